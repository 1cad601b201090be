"""RestartSignals: tells the app's subscribers, in the stream host, what the dimension sensor has decided."""

from __future__ import annotations

import logging
from typing import ClassVar

from kindling.signaling import SignalProvider

from kindling_dagster.signals.dispatch import SignalDispatcher
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.payloads import decode
from kindling_dagster.signals.settings import SignalSettings
from kindling_dagster.streaming.restart_ticks import DOCUMENT, TOLD
from kindling_dagster.streaming.store.errors import ConflictError
from kindling_dagster.streaming.store.store import StreamStore

logger = logging.getLogger("kindling_dagster.streaming")


class RestartSignals(AsyncSignalEmitter):
    """Emits the news that sensors leave in the store, in the app's own registry of signals.

    Each is told once: what is told is marked as such first, so a host that dies in between leaves out what
    it was about to tell, and repeats nothing. What happens while no host lives is told by the next.

    Args:
        store: The project's stream store.
        signal_provider: The app's signals.
        settings: How signals are emitted.
        dispatcher: The host's, for asynchronous ones.
    """

    # RESTART_SIGNALS, written out: the reference of signals is made from the source.
    EMITS: ClassVar[list[str]] = [
        "streaming.dimension_changed",
        "streaming.restart_triggered",
        "streaming.cascade_restart_started",
        "streaming.cascade_restart_completed",
    ]

    def __init__(
        self,
        store: StreamStore,
        signal_provider: SignalProvider,
        settings: SignalSettings | None = None,
        dispatcher: SignalDispatcher | None = None,
    ) -> None:
        self._init_signal_emitter(signal_provider, settings, dispatcher)
        self._store = store
        self._seen = -1

    def tell(self) -> int:
        """Tell what is new; gives how much that was.

        Raises:
            StoreError: The store cannot be read or written; nothing was told then.
        """
        if self._store.document_version(*DOCUMENT) == self._seen:
            return 0
        state, version = self._store.document(*DOCUMENT)
        # As plain data: a state that this version cannot read is for those who restart to begin afresh.
        news = state.get("news", ()) if isinstance(state, dict) else ()
        told, told_version = self._store.document(*TOLD)
        fresh = [item for item in news if item["id"] not in (told or ())]
        if fresh:
            try:
                self._store.put_document(*TOLD, [item["id"] for item in news], told_version)
            except ConflictError:
                logger.info("Another host has told what is new at the same moment.")
                return 0
        self._seen = version
        for item in fresh:
            try:
                self.emit_payload(decode(item["signal"], item["arguments"]))
            except Exception:  # such as one that a sensor of another version has left; the streams go on
                logger.exception("What became of a dimension could not be told: %s", item)
        return len(fresh)
