"""StreamingWatchdog: looks at each query in its own rhythm; a call that hangs marks its own query only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from kindling.signaling import SignalProvider

from kindling_dagster.signals.dispatch import SignalDispatcher
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.settings import SignalSettings
from kindling_dagster.streaming.health import Verdict
from kindling_dagster.streaming.queries import StreamingQueryManager


class StreamingWatchdog(AsyncSignalEmitter):
    """Watches the queries of a manager from a thread of its own."""

    EMITS: ClassVar[list[str]] = [
        "streaming.query_healthy",
        "streaming.query_unhealthy",
        "streaming.query_exception",
        "streaming.query_stalled",
    ]

    def __init__(
        self,
        query_manager: StreamingQueryManager,
        poll_interval: float = 30.0,
        stall_threshold: float = 300.0,
        *,
        signals: SignalProvider | None = None,
        settings: SignalSettings | None = None,
        dispatcher: SignalDispatcher | None = None,
        on_verdict: Callable[[str, Verdict], None] | None = None,
    ) -> None:
        self._init_signal_emitter(signals, settings, dispatcher)

    def start(self) -> None:
        """Start watching."""
        raise NotImplementedError

    def stop(self, timeout: float = 5.0) -> bool:
        """Stop watching; False when the thread did not end in time."""
        raise NotImplementedError

    def verdicts(self) -> Mapping[str, Verdict]:
        """The latest verdict on each query that is up."""
        raise NotImplementedError
