"""The streams of a host: what is wanted is started and stopped, what fails is judged, what happens is told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.dag.strategy import StreamingExecutionStrategy
from kindling_dagster.errors import CycleError, KindlingDagsterError
from kindling_dagster.manifest import Manifest
from kindling_dagster.streaming.config import stream_configs
from kindling_dagster.streaming.events import SparkEvent
from kindling_dagster.streaming.failures import FailureClassifier
from kindling_dagster.streaming.health import Verdict
from kindling_dagster.streaming.host_reports import Reporter, Sight
from kindling_dagster.streaming.model import (
    DeadLetter,
    Desired,
    RecoveryState,
    StreamError,
    StreamHealth,
    StreamingQueryConfig,
    StreamingQueryInfo,
    StreamStatus,
)
from kindling_dagster.streaming.model import StreamingQueryState as State
from kindling_dagster.streaming.queries import StreamingQueryManager
from kindling_dagster.streaming.reconcile import Action, Actual, StartOrder, reconcile
from kindling_dagster.streaming.recovery import RecoveryAction, RecoveryStep, StreamingRecoveryManager
from kindling_dagster.streaming.transitions import UP
from kindling_dagster.streaming.watchdog import StreamingWatchdog, stall_error

logger = logging.getLogger("kindling_dagster.streaming")

_POLL: Final = 0.05


class Starter(Protocol):
    """What starts a stream; ``StreamStarter`` outside tests."""

    def builder(self, stream_id: str, config: StreamingQueryConfig) -> Callable[[], Any]:
        """What starts the stream and gives its query."""


def start_order(manifest: Manifest, stream_ids: list[str]) -> StartOrder:
    """Consumers before the producers of what they read; the order of the manifest where they go in a circle."""
    graph = PipeGraphBuilder(manifest).build_graph(stream_ids, allow_cycles=True)
    try:
        plan = StreamingExecutionStrategy().plan(graph)
    except CycleError:
        return StartOrder(graph.pipe_ids)
    return StartOrder(plan.pipe_ids, plan.predecessors)


class HostedStreams:
    """A host's streams. ``tick`` is called from one thread; what takes long runs on threads of its own.

    Args:
        manifest: What the app declares.
        starter: Starts streams.
        manager: Their queries.
        recovery: What is remembered of failures.
        reporter: Takes what is to be told.
        before: Statuses of hosts before this one.
        overrides: Over the settings of streams.
        classifier: Decides whether an error can heal.
        mask: Takes secrets out of an error's text.
        check: Raises when the host cannot go on: then what streams meet is not their failure.
        wake: Set when something happened that the next tick should not wait for.
        starters: How many streams may be starting or stopping at once.
        clock: Gives Unix seconds.
    """

    def __init__(
        self,
        manifest: Manifest,
        starter: Starter,
        manager: StreamingQueryManager,
        recovery: StreamingRecoveryManager,
        reporter: Reporter,
        *,
        before: Mapping[str, StreamStatus],
        check: Callable[[], None],
        wake: threading.Event,
        overrides: Mapping[str, Any] | None = None,
        classifier: FailureClassifier | None = None,
        mask: Callable[[str], str] = str,
        starters: int = 4,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._manifest = manifest
        self._starter = starter
        self._manager = manager
        manager.replay_to(self.observe)
        self._recovery = recovery
        self._reporter = reporter
        self._check = check
        self._wake = wake
        self._overrides = overrides
        self._classifier = classifier or FailureClassifier()
        self._mask = mask
        self._clock = clock
        self._slots = threading.Semaphore(starters)
        self._draining = False
        self._lock = threading.Lock()
        # What is under way, and since when.
        self._doing: dict[str, tuple[State, float]] = {}
        self._stalled: dict[str, Verdict] = {}
        self._configs: dict[str, StreamingQueryConfig] = {}
        self._undeclared: dict[str, StreamError] = {}
        self._order = StartOrder()
        self._ordered: set[str] = set()
        self._before = dict(before)
        # What earlier hosts answered: otherwise each new host would take every wish for a new one.
        self._generations = {stream_id: status.generation for stream_id, status in before.items()}
        self._seen = dict(self._generations)
        self._left_failed: set[str] = set()
        # Spark's run ids of starts whose end is accounted for: stopped by this host, or judged.
        self._ends: dict[str, str] = {}
        self._desired: Mapping[str, Desired] = {}
        self.watchdog: StreamingWatchdog | None = None

    # Called from other threads

    def observe(self, event: SparkEvent) -> None:
        """Take in what Spark says; on the listener's thread."""
        stream_id = self._manager.observe(event)
        if stream_id is None:
            return
        if event.kind in ("progress", "idle"):
            self._recovery.progressed(stream_id)
        if event.kind == "progress":
            self._reporter.read(stream_id, int(event.progress.get("numInputRows") or 0))
        elif event.kind == "terminated":
            self._wake.set()

    def judged(self, stream_id: str, verdict: Verdict) -> None:
        """Take in that a query's health changed; on the watchdog's thread."""
        if verdict.health in (StreamHealth.STALLED, StreamHealth.EXCEPTION):
            with self._lock:
                if verdict.health is StreamHealth.STALLED:
                    self._stalled[stream_id] = verdict
            self._wake.set()

    # The host's thread

    def tick(self, desired: Mapping[str, Desired]) -> float | None:
        """Do what must be done now. Gives the moment (Unix seconds) at which the next start is due, if any.

        Raises:
            Exception: What ``check`` raises: the host cannot go on.
        """
        self._desired = desired
        self._learn(desired)
        self._take_new_wishes(desired)
        for info in self._manager.list_queries():
            self._judge(info)
        self._take_stalls()
        wanted = {stream_id for stream_id, wish in desired.items() if wish.running}
        down = {info.query_id for info in self._manager.list_queries() if info.state not in UP}
        for stream_id, due in self._recovery.due(wanted).items():
            if due.step is RecoveryStep.RECOVERED:
                self._reporter.note(stream_id, "recovered", f"after {due.failures} failures in a row")
        for stream_id in down - wanted - self._doing.keys():
            self._leave_down(stream_id)
        for action in reconcile(desired, self._actual(), self._recovery.states(), self._order, self._clock()):
            self._submit(action)
        waits = [
            state.next_start_at
            for stream_id, state in self._recovery.states().items()
            if stream_id in wanted and state.next_start_at is not None
        ]
        return min(waits, default=None)

    def sights(self) -> list[Sight]:
        """All streams as they are now."""
        with self._lock:
            doing = {stream_id: state for stream_id, (state, _) in self._doing.items()}
        infos = {info.query_id: info for info in self._manager.list_queries()}
        for stream_id, error in self._undeclared.items():
            state = State.FAILED if self._should_run(stream_id) else State.STOPPED
            infos[stream_id] = StreamingQueryInfo(stream_id, state, last_error=error)
        verdicts = self.watchdog.verdicts() if self.watchdog is not None else {}
        return [self._sight(info, verdicts.get(id_), doing.get(id_)) for id_, info in infos.items()]

    def seen(self) -> dict[str, int]:
        """By stream, the generation of ``Desired`` that what is known is about."""
        return dict(self._seen)

    def busy(self) -> bool:
        """Whether a start or stop is under way."""
        with self._lock:
            return bool(self._doing)

    def changed_recovery(self) -> dict[str, RecoveryState]:
        """What recovery remembers otherwise than when this was last called."""
        return self._recovery.take_changed()

    def drain(self, seconds: float, stop_seconds: float) -> int:
        """Stop all streams, each when its present batch has ended or ``seconds`` are over. Gives how many."""
        until = time.monotonic() + seconds
        self._draining = True
        while self._doing and time.monotonic() < until:
            time.sleep(_POLL)
        active = self._manager.list_active_queries()
        threads = [
            threading.Thread(
                target=self._drain_one,
                args=(info.query_id, until, stop_seconds),
                name=f"drain {info.query_id}",
            )
            for info in active
        ]
        for thread in threads:
            thread.daemon = True
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until + stop_seconds - time.monotonic()))
        return len(active)

    def _drain_one(self, stream_id: str, until: float, stop_seconds: float) -> None:
        try:
            handle = self._manager.handle(stream_id)
            if handle is not None:
                _await_batch_end(handle, until)
            self._manager.stop_query(stream_id, timeout=stop_seconds)
            self._reporter.note(stream_id, "stopped", "the host ends")
        except Exception as error:  # the host ends all the same, and the next one goes on from the checkpoint
            logger.warning("Stream %s did not stop in good order: %s", stream_id, error)
            self._reporter.note(stream_id, "stop_failed", self._mask(str(error)))

    # What is wanted

    def _learn(self, desired: Mapping[str, Desired]) -> None:
        """Register streams that are wanted for the first time, and put all of them in order."""
        new = [each for each in desired if each not in self._configs and each not in self._undeclared]
        for stream_id in new:
            try:
                config = stream_configs(self._manifest, [stream_id], self._overrides)[stream_id]
            except KindlingDagsterError as error:
                at = self._clock()
                self._undeclared[stream_id] = replace(
                    self._classifier.stream_error(error, at, mask=self._mask), kind="permanent"
                )
                self._reporter.note(stream_id, "refused", error.message)
                continue
            self._configs[stream_id] = config
            self._recovery.set_policy(stream_id, config.recovery)
            self._manager.register_query(
                stream_id,
                self._starter.builder(stream_id, config),
                config,
                self._state_from_before(stream_id),
            )
        if self._configs.keys() != self._ordered:
            self._ordered = set(self._configs)
            ids = [pipe.id for pipe in self._manifest.pipes if pipe.id in self._ordered]
            self._order = start_order(self._manifest, ids)

    def _state_from_before(self, stream_id: str) -> State:
        """A dead letter stays one over hosts; so does a failure that is left to people."""
        if self._recovery.state(stream_id).dead:
            return State.DEAD_LETTER
        status = self._before.get(stream_id)
        failed = status is not None and status.state is State.FAILED
        if failed and self._recovery.policy(stream_id).strategy != "restart":
            self._left_failed.add(stream_id)
            return State.FAILED
        return State.STOPPED

    def _take_new_wishes(self, desired: Mapping[str, Desired]) -> None:
        """Forget the failures of streams that a person has revived."""
        for stream_id, wish in desired.items():
            seen = self._seen.get(stream_id, -1)
            if wish.generation <= seen or stream_id not in self._configs:
                continue
            self._seen[stream_id] = wish.generation
            if wish.revived > max(seen, 0) and self._recovery.state(stream_id) != RecoveryState():
                self._recovery.revive(stream_id)
                self._reporter.revived(stream_id)
                self._manager.revive(stream_id)
                self._reporter.note(stream_id, "revived", wish.reason, by=wish.by)

    def _leave_down(self, stream_id: str) -> None:
        """Nobody wants the stream any more: it waits for nothing. A dead letter stays one."""
        info = self._manager.get_query_status(stream_id)
        if info.state in (State.FAILED, State.WAITING):
            self._manager.stop_query(stream_id)
            self._left_failed.discard(stream_id)
        if self._recovery.state(stream_id).next_start_at is not None:
            self._recovery.stopped(stream_id)
        wish = self._desired.get(stream_id)
        if wish is not None and not self._recovery.state(stream_id).dead:
            self._generations[stream_id] = wish.generation

    # What is

    def _actual(self) -> dict[str, Actual]:
        with self._lock:
            doing = dict(self._doing)
        actual = {}
        for info in self._manager.list_queries():
            state, since = doing.get(info.query_id, (info.state, None))
            actual[info.query_id] = Actual(state, self._generations.get(info.query_id, -1), since)
        return actual

    def _sight(self, info: StreamingQueryInfo, verdict: Verdict | None, doing: State | None) -> Sight:
        remembered = self._recovery.state(info.query_id)
        # A query that waits for its turn to be restarted is not what the new generation asks for.
        state = doing if doing is not None and info.state is State.RUNNING else info.state
        wish = self._desired.get(info.query_id)
        if state not in UP and remembered.dead:
            state = State.DEAD_LETTER
        elif state not in UP and self._should_run(info.query_id):
            # A failure so new that only the next tick judges it is not the end either.
            new = state is State.FAILED and self._restarts(info.query_id)
            state = State.WAITING if new or remembered.next_start_at is not None else state
        up = state is State.RUNNING
        return Sight(
            info,
            state,
            verdict.health if verdict is not None and up else StreamHealth.UNKNOWN,
            verdict.reason if verdict is not None and up else "",
            self._generations.get(info.query_id, wish.generation if wish is not None else 0),
            remembered.next_start_at if state is State.WAITING else None,
        )

    # What failed

    def _restarts(self, stream_id: str) -> bool:
        """Whether recovery starts the stream again by itself."""
        return stream_id in self._configs and self._recovery.policy(stream_id).strategy == "restart"

    def _judge(self, info: StreamingQueryInfo) -> None:
        """Let recovery decide about a stream that has failed, or that ended though it should run."""
        stream_id = info.query_id
        if stream_id in self._doing or stream_id in self._left_failed:
            return
        if info.state is State.FAILED and info.last_error is not None:
            self._check()  # when the host itself is at its end, no stream is to blame
            self._ends[stream_id] = info.spark_run_id
            self._act(stream_id, self._recovery.failed(stream_id, info.last_error), info.last_error)
        elif info.state is State.STOPPED and info.spark_run_id and self._should_run(stream_id):
            self._ended_by_itself(info)

    def _ended_by_itself(self, info: StreamingQueryInfo) -> None:
        if self._ends.get(info.query_id) == info.spark_run_id:
            return
        self._check()
        self._ends[info.query_id] = info.spark_run_id
        error = StreamError(
            "QueryEnded",
            "The query ended without an error, although nobody asked it to.",
            self._clock(),
            "transient",
            "See whether code of the app stops queries.",
        )
        self._act(info.query_id, self._recovery.failed(info.query_id, error), error)

    def _should_run(self, stream_id: str) -> bool:
        wish = self._desired.get(stream_id)
        return wish is not None and wish.running

    def _take_stalls(self) -> None:
        with self._lock:
            stalled, self._stalled = self._stalled, {}
        for stream_id, verdict in stalled.items():
            info = self._manager.get_query_status(stream_id)
            if info.state is not State.RUNNING or stream_id in self._doing:
                continue
            self._check()
            error = stall_error(verdict, self._clock())
            action = self._recovery.failed(stream_id, error)
            self._act(stream_id, action, error)
            if action.step in (RecoveryStep.WAIT, RecoveryStep.DEAD_LETTER):
                self._ends[stream_id] = info.spark_run_id
                self._run(stream_id, State.STOPPING, partial(self._manager.stop_query, stream_id))

    def _act(self, stream_id: str, action: RecoveryAction, error: StreamError) -> None:
        """Do what recovery says of a failure."""
        down = self._manager.get_query_status(stream_id).state is State.FAILED
        if action.step is RecoveryStep.NONE:
            self._follow_memory(stream_id, down=down)
            return
        self._reporter.note(stream_id, "failed", f"{error.type}: {error.message}", kind=error.kind)
        if action.step is RecoveryStep.WAIT:
            if down:
                self._manager.mark(stream_id, State.WAITING)
            backoff = action.backoff or 0.0
            self._reporter.note(
                stream_id, "waiting", f"started again in {backoff:.1f} s", failures=action.failures
            )
        elif action.step is RecoveryStep.DEAD_LETTER:
            if down:
                self._manager.mark(stream_id, State.DEAD_LETTER)
            self._give_up(stream_id, action, error)
        else:
            self._left_failed.add(stream_id)

    def _follow_memory(self, stream_id: str, *, down: bool) -> None:
        """A failure that was counted already, as a stall: the query's state follows from what is remembered."""
        remembered = self._recovery.state(stream_id)
        if down and remembered.dead:
            self._manager.mark(stream_id, State.DEAD_LETTER)
        elif down and remembered.next_start_at is not None:
            self._manager.mark(stream_id, State.WAITING)

    def _give_up(self, stream_id: str, action: RecoveryAction, error: StreamError) -> None:
        why = "its error cannot heal" if action.permanent else f"{action.failures} starts in a row failed"
        errors = self._recovery.state(stream_id).errors
        self._reporter.dead(
            DeadLetter(stream_id, self._clock(), action.failures, errors, error.suggestion or _REVIVE)
        )
        self._reporter.note(stream_id, "dead_letter", f"{why}: {error.type}: {error.message}")
        logger.error("Stream %s is given up, %s: %s: %s", stream_id, why, error.type, error.message)

    # What is done

    def _submit(self, action: Action) -> None:
        stream_id = action.stream_id
        self._ends[stream_id] = self._manager.get_query_status(stream_id).spark_run_id
        if action.kind == "stop":
            self._generations[stream_id] = action.generation
            self._run(stream_id, State.STOPPING, partial(self._stop, action))
            return
        asked = action.generation > self._generations.get(stream_id, -1)
        self._generations[stream_id] = action.generation
        self._left_failed.discard(stream_id)
        self._run(stream_id, State.STARTING, partial(self._start, action, asked))

    def _run(self, stream_id: str, state: State, work: Callable[[], object]) -> None:
        """Have a thread of the pool do it; until it is done, the stream counts as being in ``state``."""
        with self._lock:
            self._doing[stream_id] = (state, self._clock())

        def run() -> None:
            try:
                with self._slots:
                    if not self._draining:
                        work()
            except Exception as error:  # one stream's trouble must not stop the host's other work
                logger.exception("Stream %s", stream_id)
                self._reporter.note(stream_id, "error", self._mask(str(error)))
            finally:
                with self._lock:
                    self._doing.pop(stream_id, None)
                self._wake.set()

        # Threads of their own, and daemons: a start that hangs in the JVM must not keep the process from ending.
        threading.Thread(target=run, name=f"{state.value} {stream_id}", daemon=True).start()

    def _start(self, action: Action, asked: bool) -> None:
        stream_id = action.stream_id
        # Before the start: its query may fail before the call comes back.
        self._recovery.started(stream_id)
        if action.kind == "restart":
            info = self._manager.restart_query(stream_id, action.reason)
        else:
            info = self._manager.start_query(stream_id)
        # After it: where the old query does not end, nothing is started.
        again = self._reporter.starting(stream_id)
        if info.state is not State.FAILED:
            what = action.reason if asked else "by recovery"
            self._reporter.note(
                stream_id,
                "restarted" if again else "started",
                what,
                spark_run_id=info.spark_run_id,
                generation=action.generation,
            )

    def _stop(self, action: Action) -> None:
        self._manager.stop_query(action.stream_id)
        self._recovery.stopped(action.stream_id)
        self._reporter.note(action.stream_id, "stopped", action.reason)


_REVIVE: Final = "Mend what the last errors say, then revive the stream."


def _await_batch_end(handle: Any, until: float) -> None:
    """Wait until the batch that is under way has ended, or there is none."""
    before = _batch_id(handle)
    while time.monotonic() < until and handle.isActive:
        if not handle.status.get("isTriggerActive") or _batch_id(handle) != before:
            return
        time.sleep(_POLL)


def _batch_id(handle: Any) -> Any:
    progress = handle.lastProgress
    return None if progress is None else progress["batchId"]
