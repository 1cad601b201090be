"""StreamRestartController: drives restarts for changed dimensions over the store, and tells them by signals."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from kindling.signaling import SignalProvider

from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.payloads.streams import StreamRestartPayload
from kindling_dagster.streaming.dependencies import (
    ReadKind,
    RestartDecision,
    RestartPolicy,
    StreamDependencies,
)
from kindling_dagster.streaming.dimensions.model import DimensionLook
from kindling_dagster.streaming.model import Command, Desired, StreamStatus
from kindling_dagster.streaming.restarts import (
    Action,
    AskRestart,
    Cascade,
    CascadeCompleted,
    CascadeStarted,
    RestartConfig,
    RestartState,
    StreamOrder,
    advance,
    next_at,
    view_of,
)
from kindling_dagster.streaming.store.errors import ConflictError

logger = logging.getLogger("kindling_dagster.streaming")

DOCUMENT = ("restarts", "controller")
"""Kind and key of the store's document that holds the controller's state."""
_TRIES = 5


class RestartStore(Protocol):
    """What the controller needs of the stream store."""

    def document(self, kind: str, key: str) -> tuple[Any, int]:
        """A small state and its version."""

    def put_document(self, kind: str, key: str, value: Any, expected: int) -> int:
        """Write it if nobody has meanwhile; ConflictError otherwise."""

    def submit(self, commands: Sequence[Command]) -> tuple[str, ...]:
        """Obey commands, each id once."""

    def desired(self) -> dict[str, Desired]:
        """What should run."""

    def statuses(self) -> dict[str, StreamStatus]:
        """What runs."""


@dataclass(frozen=True)
class RestartTick:
    """What one tick of the controller came to.

    Args:
        decisions: What each change means for each stream that depends on it, also where nothing restarts.
        actions: What was done, in order.
        state: The state it left in the store.
        next_at: When the next batch can be due (Unix seconds); None when nothing waits, or a cascade is
            under way and another tick soon brings it further.
    """

    decisions: tuple[RestartDecision, ...]
    actions: tuple[Action, ...]
    state: RestartState
    next_at: float | None

    @property
    def busy(self) -> bool:
        """Whether anything waits or is under way."""
        return bool(self.state.pending or self.state.cascade)


class StreamRestartController(AsyncSignalEmitter):
    """Restarts the streams that need it after dimensions have changed.

    Level-triggered: each ``tick`` takes what the detector found, looks at the store, and does what is due.
    All it remembers is in the store, so any process may tick, and two at once do nothing twice.

    Args:
        store: The project's stream store.
        dependencies: Which stream depends on which dimension.
        order: Which streams read what others write.
        config: How restarts are batched.
        signal_provider: Where ``streaming.restart_triggered`` and the cascade's signals go.
        clock: Gives Unix seconds.

    Example:
        >>> tick = controller.tick(detector.look(id_) for id_ in detector.dimensions)
        >>> [action.step.stream_id for action in tick.actions if isinstance(action, AskRestart)]
        []
    """

    EMITS: ClassVar[list[str]] = [
        "streaming.restart_triggered",
        "streaming.cascade_restart_started",
        "streaming.cascade_restart_completed",
    ]

    def __init__(
        self,
        store: RestartStore,
        dependencies: StreamDependencies,
        order: StreamOrder,
        config: RestartConfig | None = None,
        signal_provider: SignalProvider | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._init_signal_emitter(signal_provider)
        self._store = store
        self.dependencies = dependencies
        self._order = order
        self._config = config or RestartConfig()
        self._clock = clock

    def register_dependency(
        self,
        stream_query_id: str,
        dimension_entity_ids: Sequence[str],
        policy: RestartPolicy | None = None,
        read_kind: ReadKind | None = None,
    ) -> None:
        """Add dimensions to a stream, as ``StreamDependencies.register_dependency``; raises as it does."""
        self.dependencies.register_dependency(stream_query_id, dimension_entity_ids, policy, read_kind)

    def tick(self, looks: Iterable[DimensionLook] = ()) -> RestartTick:
        """Take in changes and do what is due.

        Keep the looks' fingerprints after this has returned: a crash before it then tells the same changes
        again, which do nothing a second time; the other way round they would be lost.

        Raises:
            StoreError: The store cannot be read or written, or others were faster again and again.
        """
        decisions = tuple(decision for found in looks for decision in self.dependencies.decide(found))
        for attempt in range(_TRIES):
            document, version = self._store.document(*DOCUMENT)
            before = _state_of(document)
            now = self._clock()
            desired, statuses = self._store.desired(), self._store.statuses()
            views = {id_: view_of(desired.get(id_), statuses.get(id_)) for id_ in desired}
            state, actions = advance(before, decisions, views, self._order, self._config, now)
            if state != before:
                try:
                    self._store.put_document(*DOCUMENT, state.to_json(), version)
                except ConflictError:
                    if attempt + 1 == _TRIES:
                        raise
                    continue  # another process has ticked meanwhile: from its state
            break
        for action in actions:
            self._do(action, now)
        return RestartTick(decisions, actions, state, next_at(state, self._config))

    def _do(self, action: Action, now: float) -> None:
        if isinstance(action, AskRestart):
            step = action.step
            command = Command(step.command_id, "restart", step.stream_id, step.reason, "dimensions", now)
            self._store.submit([command])
            if not action.again:
                self.emit_payload(_triggered(action))
        elif isinstance(action, CascadeStarted):
            self.emit_payload(_of_cascade("streaming.cascade_restart_started", action.cascade))
        else:
            self.emit_payload(_completed(action))


def _state_of(document: Any) -> RestartState:
    try:
        return RestartState.from_json(document)
    except (KeyError, TypeError) as error:
        logger.warning(
            "What was kept of restarts for changed dimensions cannot be read (%r): starting afresh.", error
        )
        return RestartState()


def _triggered(action: AskRestart) -> StreamRestartPayload:
    step = action.step
    return StreamRestartPayload(
        signal="streaming.restart_triggered",
        query_id=step.stream_id,
        entity_ids=list(dict.fromkeys(cause.entity_id for cause in step.causes)),
        policy=", ".join(dict.fromkeys(cause.policy for cause in step.causes)),
        reason=step.reason,
        cascade_id=action.cascade_id,
    )


def _of_cascade(signal: str, cascade: Cascade) -> StreamRestartPayload:
    return StreamRestartPayload(
        signal=signal,
        cascade_id=cascade.id,
        entity_ids=list(cascade.entity_ids),
        query_ids=list(cascade.stream_ids),
    )


def _completed(action: CascadeCompleted) -> StreamRestartPayload:
    payload = _of_cascade("streaming.cascade_restart_completed", action.cascade)
    payload.restarted_count = action.cascade.count("done")
    payload.skipped_count = action.cascade.count("skipped")
    payload.failed_count = action.cascade.count("failed")
    payload.duration_seconds = action.seconds
    return payload
