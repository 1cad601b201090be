"""StreamingQueryManager: the streaming queries of one Spark session, their states, and the legal ways between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Protocol

from kindling.signaling import SignalProvider

from kindling_dagster.signals.dispatch import SignalDispatcher
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.plain import scrub_text
from kindling_dagster.signals.settings import SignalSettings
from kindling_dagster.streaming.failures import FailureClassifier
from kindling_dagster.streaming.model import (
    StreamError,
    StreamingQueryConfig,
    StreamingQueryInfo,
    StreamingQueryState,
)

STOP_SECONDS: Final = 60.0


class QueryHandle(Protocol):
    """What is used of Spark's StreamingQuery."""

    @property
    def id(self) -> str: ...
    @property
    def runId(self) -> str: ...  # noqa: N802
    @property
    def isActive(self) -> bool: ...  # noqa: N802
    @property
    def status(self) -> Mapping[str, Any]: ...
    @property
    def lastProgress(self) -> Mapping[str, Any] | None: ...  # noqa: N802
    def exception(self) -> BaseException | None: ...
    def stop(self) -> None: ...


QueryBuilder = Callable[[], Any]
"""Starts a query and gives its handle."""


class StreamingQueryManager(AsyncSignalEmitter):
    """Starts, stops and restarts queries; knows the state of each. Safe to call from several threads."""

    EMITS: ClassVar[list[str]] = [
        "streaming.query_started",
        "streaming.query_stopped",
        "streaming.query_restarted",
        "streaming.query_failed",
    ]

    def __init__(
        self,
        signals: SignalProvider | None = None,
        *,
        settings: SignalSettings | None = None,
        dispatcher: SignalDispatcher | None = None,
        classifier: FailureClassifier | None = None,
        mask: Callable[[str], str] = scrub_text,
        stop_timeout: float = STOP_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._init_signal_emitter(signals, settings, dispatcher)

    def start_query(
        self, query_id: str, query_builder: QueryBuilder, config: StreamingQueryConfig | None = None
    ) -> StreamingQueryInfo:
        """Start a query; a builder that raises gives FAILED with ``last_error``, it is not raised."""
        raise NotImplementedError

    def stop_query(
        self, query_id: str, await_termination: bool = True, timeout: float | None = None
    ) -> StreamingQueryInfo:
        """Stop a query; raises QueryStopTimeout when it does not end in time."""
        raise NotImplementedError

    def restart_query(
        self,
        query_id: str,
        reason: str = "",
        *,
        query_builder: QueryBuilder | None = None,
        config: StreamingQueryConfig | None = None,
    ) -> StreamingQueryInfo:
        """Stop (if up) and start with the same builder and config, or new ones; counts the restart."""
        raise NotImplementedError

    def get_query_status(self, query_id: str) -> StreamingQueryInfo:
        """One query; raises UnknownQueryError."""
        raise NotImplementedError

    def list_active_queries(self) -> tuple[StreamingQueryInfo, ...]:
        """Those that are STARTING, RUNNING or STOPPING."""
        raise NotImplementedError

    def list_queries(self) -> tuple[StreamingQueryInfo, ...]:
        """All that are known."""
        raise NotImplementedError

    def query_ended(
        self, query_id: str, spark_run_id: str, error: BaseException | str | None = None, condition: str = ""
    ) -> StreamingQueryInfo:
        """A query ended by itself: FAILED with an error, STOPPED without. Ignored for an older start."""
        raise NotImplementedError

    def mark(
        self, query_id: str, state: StreamingQueryState, error: StreamError | None = None
    ) -> StreamingQueryInfo:
        """Move a query that is not up to WAITING, DEAD_LETTER, FAILED or STOPPED (legal transitions only)."""
        raise NotImplementedError

    def query_of_run(self, spark_run_id: str) -> str | None:
        """The query that Spark's run id belongs to."""
        raise NotImplementedError

    def handle(self, query_id: str) -> Any | None:
        """Spark's handle of a query that is up; None else."""
        raise NotImplementedError
