"""Recovery of streams: when one that failed is started again, and when it is given up. Its core is one pure function."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from typing import ClassVar, Final

from kindling.signaling import SignalProvider

from kindling_dagster.signals.dispatch import SignalDispatcher
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.payloads import Payload, StreamRecoveryFailedPayload, StreamRecoveryPayload
from kindling_dagster.signals.settings import SignalSettings
from kindling_dagster.streaming.model import RecoveryPolicy, RecoveryState, StreamError

ERRORS_KEPT: Final = 10
"""How many of a stream's last errors its recovery state holds."""


class RecoveryEvent(str, Enum):
    """What happens to a stream, as far as recovery cares.

    ``STARTED``: a query was started, by whomever. ``PROGRESSED``: it finished a batch, or
    Spark found that there is nothing to read (a batch that failed before would be read again). ``FAILED``: it could
    not start, died, or stalled (an error comes with it). ``STOPPED``: somebody stopped it. ``REVIVED``:
    somebody wants a dead letter back. ``TICK``: time passed.
    """

    STARTED = "started"
    PROGRESSED = "progressed"
    FAILED = "failed"
    STOPPED = "stopped"
    REVIVED = "revived"
    TICK = "tick"


class RecoveryStep(str, Enum):
    """What follows: nothing, wait for the backoff, start it now, give it up, tell people, or it has recovered."""

    NONE = "none"
    WAIT = "wait"
    RESTART = "restart"
    DEAD_LETTER = "dead_letter"
    ALERT = "alert"
    IGNORE = "ignore"
    RECOVERED = "recovered"


@dataclass(frozen=True)
class RecoveryAction:
    """What is to be done about one stream.

    Args:
        step: What to do.
        at: Unix seconds at which to start it; with ``WAIT``.
        backoff: Seconds until then; with ``WAIT``.
        failures: Failures in a row so far; with ``RECOVERED`` how many there were.
        error: What it failed with; with ``WAIT``, ``DEAD_LETTER``, ``ALERT`` and ``IGNORE``.
        permanent: Whether it is given up because its error cannot heal, not because its retries are used up.
    """

    step: RecoveryStep
    at: float | None = None
    backoff: float | None = None
    failures: int = 0
    error: StreamError | None = None
    permanent: bool = False


NOTHING: Final = RecoveryAction(RecoveryStep.NONE)


def next_action(
    state: RecoveryState,
    event: RecoveryEvent,
    policy: RecoveryPolicy,
    now: float,
    rng: Callable[[], float] = random.random,
    error: StreamError | None = None,
) -> tuple[RecoveryState, RecoveryAction]:
    """What recovery remembers and does after an event. Pure: the same arguments give the same result.

    Failures are forgotten in two ways only: the query stayed up for ``stable_after`` *and* finished a batch,
    or a person revived it. So a query that dies in its first batch after each start runs out of retries.

    Args:
        state: What is remembered so far.
        event: What happened.
        policy: How the stream is brought back.
        now: Unix seconds.
        rng: Gives a number from 0 to 1, for the jitter.
        error: What it failed with; needed with ``FAILED``.

    Raises:
        ValueError: ``FAILED`` without an error.
    """
    match event:
        case RecoveryEvent.FAILED:
            if error is None:
                raise ValueError("A failure needs its error.")
            return _after_failure(state, error, policy, now, rng)
        case RecoveryEvent.STARTED:
            return replace(state, next_start_at=None, last_start_at=now, progressed=False), NOTHING
        case RecoveryEvent.PROGRESSED:
            return (state if state.progressed else replace(state, progressed=True)), NOTHING
        case RecoveryEvent.STOPPED:
            return replace(state, next_start_at=None, last_start_at=None, progressed=False), NOTHING
        case RecoveryEvent.REVIVED:
            return RecoveryState(), NOTHING
        case RecoveryEvent.TICK:
            return _after_tick(state, policy, now)


def backoff_seconds(policy: RecoveryPolicy, failures: int, rng: Callable[[], float] = random.random) -> float:
    """Seconds before the start that follows the given number of failures (1 for the first), with jitter."""
    base = _base_backoff(policy, failures)
    return min(max(0.0, base * (1 + policy.jitter * (2 * rng() - 1))), policy.max_backoff)


def _base_backoff(policy: RecoveryPolicy, failures: int) -> float:
    try:
        grown = policy.initial_backoff * policy.multiplier ** (failures - 1)
    except OverflowError:
        return policy.max_backoff if policy.initial_backoff else 0.0
    return min(grown, policy.max_backoff)


def _after_failure(
    state: RecoveryState, error: StreamError, policy: RecoveryPolicy, now: float, rng: Callable[[], float]
) -> tuple[RecoveryState, RecoveryAction]:
    if state.dead or state.next_start_at is not None:
        return state, NOTHING  # the same failure, seen by the watchdog and by Spark's event
    failures = state.failures + 1
    failed = replace(state, failures=failures, progressed=False, errors=(*state.errors, error)[-ERRORS_KEPT:])
    if policy.strategy != "restart":
        step = RecoveryStep.ALERT if policy.strategy == "alert" else RecoveryStep.IGNORE
        return failed, RecoveryAction(step, failures=failures, error=error)
    permanent = error.kind == "permanent"
    if permanent or failures > policy.max_retries:
        given_up = RecoveryAction(
            RecoveryStep.DEAD_LETTER, failures=failures, error=error, permanent=permanent
        )
        return replace(failed, dead=True), given_up
    at = now + backoff_seconds(policy, failures, rng)
    if state.last_start_at is not None and state.last_start_at <= now:
        at = max(at, state.last_start_at + policy.cooldown)
    action = RecoveryAction(RecoveryStep.WAIT, at=at, backoff=at - now, failures=failures, error=error)
    return replace(failed, next_start_at=at), action


def _after_tick(
    state: RecoveryState, policy: RecoveryPolicy, now: float
) -> tuple[RecoveryState, RecoveryAction]:
    if state.dead:
        return state, NOTHING
    state = _mend_clock(state, policy, now)
    if state.next_start_at is not None:
        if now < state.next_start_at:
            return state, NOTHING
        started = replace(state, next_start_at=None, last_start_at=now, progressed=False)
        return started, RecoveryAction(RecoveryStep.RESTART, failures=state.failures)
    up_for = None if state.last_start_at is None else now - state.last_start_at
    if state.failures and state.progressed and up_for is not None and up_for >= policy.stable_after:
        recovered = replace(state, failures=0, errors=())
        return recovered, RecoveryAction(RecoveryStep.RECOVERED, failures=state.failures)
    return state, NOTHING


def _mend_clock(state: RecoveryState, policy: RecoveryPolicy, now: float) -> RecoveryState:
    """The state after the clock was set back: no wait may be longer than it would be from now on."""
    longest = max(backoff_seconds(policy, state.failures, rng=lambda: 1.0), policy.cooldown)
    if state.next_start_at is not None and state.next_start_at > now + longest:
        state = replace(state, next_start_at=now + longest)
    if state.last_start_at is not None and state.last_start_at > now:
        state = replace(state, last_start_at=now)
    return state


class StreamingRecoveryManager(AsyncSignalEmitter):
    """Keeps what recovery remembers of each stream, decides by ``next_action``, and tells of it by signals.

    It starts and stops nothing itself: the host does what the actions say. Its memory is plain
    (``RecoveryState``); the host loads it from the store and saves what ``take_changed`` gives.
    Safe to call from several threads.

    Args:
        max_retries: As in ``RecoveryPolicy``; these four make the policy of streams without their own.
        initial_backoff: As in ``RecoveryPolicy``.
        max_backoff: As in ``RecoveryPolicy``.
        backoff_multiplier: ``multiplier`` of ``RecoveryPolicy``.
        policies: The policies of single streams, by id.
        states: What is remembered from before.
        signals: Where the signals go; without one nothing is sent.
        settings: How signals are emitted.
        dispatcher: Delivers asynchronous signals; one of its own when None.
        clock: Gives Unix seconds.
        rng: Gives a number from 0 to 1, for the jitter.
    """

    EMITS: ClassVar[list[str]] = [
        "streaming.recovery_attempted",
        "streaming.recovery_succeeded",
        "streaming.recovery_failed",
        "streaming.recovery_exhausted",
    ]
    ASYNC = True

    def __init__(
        self,
        max_retries: int = 5,
        initial_backoff: float = 1.0,
        max_backoff: float = 300.0,
        backoff_multiplier: float = 2.0,
        *,
        policies: Mapping[str, RecoveryPolicy] | None = None,
        states: Mapping[str, RecoveryState] | None = None,
        signals: SignalProvider | None = None,
        settings: SignalSettings | None = None,
        dispatcher: SignalDispatcher | None = None,
        clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._init_signal_emitter(signals, settings, dispatcher)
        self._default = RecoveryPolicy(
            max_retries=max_retries,
            initial_backoff=initial_backoff,
            max_backoff=max_backoff,
            multiplier=backoff_multiplier,
        )
        self._policies = dict(policies or {})
        self._states = dict(states or {})
        self._changed: set[str] = set()
        self._lock = threading.Lock()
        self._clock = clock
        self._rng = rng

    def policy(self, query_id: str) -> RecoveryPolicy:
        """How a stream is brought back."""
        return self._policies.get(query_id, self._default)

    def set_policy(self, query_id: str, policy: RecoveryPolicy) -> None:
        """Change how a stream is brought back from now on."""
        self._policies[query_id] = policy

    def state(self, query_id: str) -> RecoveryState:
        """What is remembered of a stream; the empty state when nothing is."""
        with self._lock:
            return self._states.get(query_id, RecoveryState())

    def states(self) -> dict[str, RecoveryState]:
        """What is remembered of all streams."""
        with self._lock:
            return dict(self._states)

    def load(self, states: Mapping[str, RecoveryState]) -> None:
        """Put what the store says in place of what is remembered of these streams."""
        with self._lock:
            self._states.update(states)
            self._changed -= states.keys()

    def take_changed(self) -> dict[str, RecoveryState]:
        """The states that changed since this was last called; to be saved."""
        with self._lock:
            changed, self._changed = self._changed, set()
            return {query_id: self._states[query_id] for query_id in changed}

    def dead_letters(self) -> tuple[str, ...]:
        """The streams that are not started again until they are revived."""
        with self._lock:
            return tuple(query_id for query_id, state in self._states.items() if state.dead)

    def started(self, query_id: str) -> None:
        """A query of this stream was started, by whomever."""
        self._handle(query_id, RecoveryEvent.STARTED)

    def progressed(self, query_id: str) -> None:
        """The stream's present query finished a batch, or Spark found that there is nothing to read."""
        self._handle(query_id, RecoveryEvent.PROGRESSED)

    def stopped(self, query_id: str) -> None:
        """Somebody stopped the stream: it is not started again by recovery. Its failures still count."""
        self._handle(query_id, RecoveryEvent.STOPPED)

    def revive(self, query_id: str) -> None:
        """Forget the stream's failures, so that it may be started again."""
        self._handle(query_id, RecoveryEvent.REVIVED)

    def failed(self, query_id: str, error: StreamError) -> RecoveryAction:
        """The stream could not start, died or stalled. Reporting one failure twice does no harm."""
        return self._handle(query_id, RecoveryEvent.FAILED, error)

    def due(self, query_ids: Collection[str] | None = None) -> dict[str, RecoveryAction]:
        """What time has brought, by stream: ``RESTART`` (start it now) or ``RECOVERED``.

        Args:
            query_ids: Only these streams; all when None.
        """
        with self._lock:
            candidates = [
                query_id
                for query_id, state in self._states.items()
                if not state.dead
                and (state.next_start_at is not None or state.failures)
                and (query_ids is None or query_id in query_ids)
            ]
        actions = {query_id: self._handle(query_id, RecoveryEvent.TICK) for query_id in candidates}
        return {query_id: action for query_id, action in actions.items() if action != NOTHING}

    def _handle(
        self, query_id: str, event: RecoveryEvent, error: StreamError | None = None
    ) -> RecoveryAction:
        now = self._clock()
        policy = self.policy(query_id)
        with self._lock:
            before = self._states.get(query_id, RecoveryState())
            after, action = next_action(before, event, policy, now, self._rng, error)
            if after != before or query_id not in self._states:
                self._states[query_id] = after
                self._changed.add(query_id)
        for payload in _told(query_id, before, action, policy, now):
            self.emit_payload(payload)
        return action


def _told(
    query_id: str, before: RecoveryState, action: RecoveryAction, policy: RecoveryPolicy, now: float
) -> list[Payload]:
    """The signals that tell of an action."""
    at = datetime.fromtimestamp(now, timezone.utc)
    if action.step in (RecoveryStep.RESTART, RecoveryStep.RECOVERED):
        attempted = action.step is RecoveryStep.RESTART
        waited = None
        if before.next_start_at is not None and before.errors:
            waited = max(0.0, before.next_start_at - before.errors[-1].at)
        return [
            StreamRecoveryPayload(
                signal="streaming.recovery_attempted" if attempted else "streaming.recovery_succeeded",
                query_id=query_id,
                query_name=query_id,
                retry_count=action.failures,
                max_retries=policy.max_retries if attempted else None,
                attempt_time=at if attempted else None,
                success_time=None if attempted else at,
                backoff_seconds=waited if attempted else None,
            )
        ]
    error = action.error
    if error is None or action.step not in (RecoveryStep.WAIT, RecoveryStep.DEAD_LETTER):
        return []
    names = ["streaming.recovery_failed"] if before.failures else []
    if action.step is RecoveryStep.DEAD_LETTER:
        names.append("streaming.recovery_exhausted")
    return [
        StreamRecoveryFailedPayload(
            signal=name,
            query_id=query_id,
            query_name=query_id,
            retry_count=before.failures,
            max_retries=policy.max_retries,
            failure_reason=error.message,
            error_type=error.type,
            suggestion=error.suggestion or None,
            failure_time=at if name.endswith("failed") else None,
            exhausted_time=at if name.endswith("exhausted") else None,
        )
        for name in names
    ]
