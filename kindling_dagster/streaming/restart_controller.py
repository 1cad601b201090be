"""StreamRestartController: drives restarts for changed dimensions over the store, and tells them by signals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from kindling.signaling import SignalProvider

from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.payloads.streams import StreamRestartPayload
from kindling_dagster.streaming.dependencies import ReadKind, RestartPolicy, StreamDependencies
from kindling_dagster.streaming.dimensions.model import DimensionLook
from kindling_dagster.streaming.restart_ticks import RestartStore, RestartTick, tick_restarts
from kindling_dagster.streaming.restarts import RestartConfig, StreamOrder


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
        """Take in changes and do what is due, as ``tick_restarts``; raises as it does."""
        return tick_restarts(
            self._store,
            self.dependencies,
            self._order,
            self._config,
            looks,
            clock=self._clock,
            tell=self._tell,
        )

    def _tell(self, signal: str, arguments: Mapping[str, Any]) -> None:
        self.emit_payload(StreamRestartPayload(signal=signal, **arguments))
