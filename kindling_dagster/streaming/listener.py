"""KindlingStreamingListener: Spark's streaming events as plain data and as signals, never holding Spark up."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, ClassVar, Final, Literal

from kindling.signaling import SignalProvider
from pyspark.sql.streaming import StreamingQueryListener

from kindling_dagster.errors import RunError
from kindling_dagster.signals.dispatch import SignalDispatcher
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.payloads import SparkQueryPayload
from kindling_dagster.signals.plain import scrub_text
from kindling_dagster.signals.settings import Backpressure, SignalSettings
from kindling_dagster.streaming.events import OnEvent, SparkEvent
from kindling_dagster.streaming.progress import batch_seconds

logger = logging.getLogger("kindling_dagster.streaming")

CAPACITY: Final = 1_000
"""How many events may wait."""

_STOP_SECONDS: Final = 5.0

Kind = Literal["started", "progress", "idle", "terminated"]
_EXPENDABLE: Final = frozenset({"progress", "idle"})
_SIGNALS: Final[Mapping[str, str]] = {
    "started": "streaming.spark_query_started",
    "progress": "streaming.spark_query_progress",
    "idle": "streaming.spark_query_idle",
    "terminated": "streaming.spark_query_terminated",
}


@dataclass(frozen=True)
class ListenerStats:
    """What became of Spark's events.

    Args:
        received: Events that Spark gave.
        handled: Events taken in.
        dropped: Events given up because too many waited; progress and idle events go first.
        failed: Events that could not be read, or whose ``on_event`` raised.
        signals_dropped: Signals given up because a subscriber is behind.
    """

    received: int
    handled: int
    dropped: int
    failed: int
    signals_dropped: int


class KindlingStreamingListener(StreamingQueryListener, AsyncSignalEmitter):  # type: ignore[misc]  # PySpark: no types
    """Bridge from Spark's streaming events to Kindling's signals.

    Spark calls a listener on the one thread of its listener bus, and ``start()`` of a query waits for it.
    So the callbacks only put the event into a bounded queue. A thread of this listener takes it from there,
    tells ``on_event``, and hands the signal to a dispatcher that never waits: a subscriber that is slow
    holds up neither Spark nor ``on_event``, it loses signals, which are counted.

    One listener serves one session. As a context manager it is registered and removed by itself, also
    when the session was stopped meanwhile.

    Args:
        signals: Where the signals go; without one nothing is sent.
        on_event: Called with each event, in order, on the listener's thread; must not take long.
        settings: How signals are emitted; ``backpressure`` is always to drop the oldest here.
        capacity: How many events may wait.
        session: The Spark session; needed as a context manager.
        clock: Gives Unix seconds.

    Example:
        >>> with KindlingStreamingListener(signals, manager.observe, session=spark):
        ...     run_streams()
    """

    EMITS: ClassVar[list[str]] = list(_SIGNALS.values())

    def __init__(
        self,
        signals: SignalProvider | None = None,
        on_event: OnEvent | None = None,
        *,
        settings: SignalSettings | None = None,
        capacity: int = CAPACITY,
        session: Any = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        settings = replace(settings or SignalSettings(), backpressure=Backpressure.DROP_OLDEST)
        self._init_signal_emitter(signals, settings, SignalDispatcher(settings))
        self._on_event = on_event
        self._capacity = capacity
        self._session = session
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Kind, Any, float]] = deque()
        self._received = self._handled = self._dropped = self._failed = 0
        self._thread: threading.Thread | None = None
        self._ended = False

    def __enter__(self) -> KindlingStreamingListener:
        if self._session is None:
            raise RunError("The streaming listener has no session.", "Give it one: session=spark.")
        self.attach(self._session)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()

    def attach(self, session: Any) -> None:
        """Start the listener's thread and register it with a Spark session.

        Raises:
            RunError: It was registered before: one listener serves one session.
        """
        if self._thread is not None:
            raise RunError(
                "This streaming listener was registered before.", "Make a new one for another session."
            )
        self._session = session
        self.start()
        session.streams.addListener(self)

    def detach(self, timeout: float = _STOP_SECONDS) -> bool:
        """Remove it from its session, take in what waits, and end its thread.

        Args:
            timeout: Seconds to wait at most for what waits, and again for subscribers that are behind.

        Returns:
            Whether all was taken in and told.
        """
        if self._session is not None:
            try:
                self._session.streams.removeListener(self)
            except Exception as error:  # the session is stopped, or its JVM gone: it is removed already
                logger.info("The streaming listener was removed with its session: %s", type(error).__name__)
        return self.stop(timeout)

    def start(self) -> None:
        """Start the thread that takes events in; ``attach`` does it by itself."""
        self._thread = threading.Thread(target=self._run, name="streaming-listener", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = _STOP_SECONDS) -> bool:
        """Take in what waits and end the thread; ``detach`` does it by itself. Returns whether all was done."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)
        told = self._signal_dispatcher is None or self._signal_dispatcher.shutdown(timeout)
        return told and (self._thread is None or not self._thread.is_alive())

    def stats(self) -> ListenerStats:
        """What became of the events so far."""
        with self._changed:
            return ListenerStats(
                received=self._received,
                handled=self._handled,
                dropped=self._dropped,
                failed=self._failed,
                signals_dropped=sum(each.dropped for each in self.signal_stats()),
            )

    def onQueryStarted(self, event: Any) -> None:  # noqa: N802
        """Spark: a query was started."""
        self._take("started", event)

    def onQueryProgress(self, event: Any) -> None:  # noqa: N802
        """Spark: a batch has ended."""
        self._take("progress", event)

    def onQueryIdle(self, event: Any) -> None:  # noqa: N802
        """Spark: there was nothing to read."""
        self._take("idle", event)

    def onQueryTerminated(self, event: Any) -> None:  # noqa: N802
        """Spark: a query has ended."""
        self._take("terminated", event)

    def _take(self, kind: Kind, event: Any) -> None:
        at = self._clock()
        with self._changed:
            self._received += 1
            if len(self._waiting) >= self._capacity:
                self._drop_one()
            self._waiting.append((kind, event, at))
            self._changed.notify()

    def _drop_one(self) -> None:
        """Give up the oldest event; starts and ends only when nothing else waits."""
        self._dropped += 1
        for index, (kind, _, _) in enumerate(self._waiting):
            if kind in _EXPENDABLE:
                del self._waiting[index]
                return
        self._waiting.popleft()

    def _run(self) -> None:
        while (waiting := self._next()) is not None:
            try:
                self._handle(plain_event(*waiting))
                failed = 0
            except Exception:  # one event that cannot be read must not cost the others
                failed = 1
                logger.exception("A streaming event (%s) could not be handled", waiting[0])
            with self._changed:
                self._handled += 1 - failed
                self._failed += failed

    def _next(self) -> tuple[Kind, Any, float] | None:
        with self._changed:
            while not self._waiting:
                if self._ended:
                    return None
                self._changed.wait()
            return self._waiting.popleft()

    def _handle(self, event: SparkEvent) -> None:
        # The signal goes first: it only enters a queue, and is due also where on_event raises.
        self.emit_payload(_payload(event), asynchronous=True)
        if self._on_event is not None:
            self._on_event(event)


def plain_event(kind: Kind, event: Any, at: float) -> SparkEvent:
    """One of PySpark's event objects as plain data."""
    if kind == "progress":
        progress = json.loads(event.progress.json)
        return SparkEvent(
            kind=kind,
            query_id=str(progress.get("id")),
            run_id=str(progress.get("runId")),
            at=at,
            name=progress.get("name") or "",
            progress=progress,
        )
    return SparkEvent(
        kind=kind,
        query_id=str(event.id),
        run_id=str(event.runId),
        at=at,
        name=getattr(event, "name", None) or "",
        exception=getattr(event, "exception", None) or "",
        error_class=getattr(event, "errorClassOnException", None) or "",
    )


def _payload(event: SparkEvent) -> SparkQueryPayload:
    progress = event.progress
    seconds = batch_seconds(progress)
    return SparkQueryPayload(
        signal=_SIGNALS[event.kind],
        query_id=event.query_id,
        run_id=event.run_id,
        name=event.name or None,
        timestamp=event.at,
        batch_id=progress.get("batchId"),
        num_input_rows=progress.get("numInputRows"),
        input_rows_per_second=progress.get("inputRowsPerSecond"),
        process_rate=progress.get("processedRowsPerSecond"),
        batch_duration=None if seconds is None else seconds * 1000,
        exception=scrub_text(event.exception) if event.exception else None,
        error_class=event.error_class or None,
    )
