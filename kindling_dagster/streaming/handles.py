"""What the query manager holds of one stream: Spark's handle, how it is built, and what is known of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kindling_dagster.errors import RunError
from kindling_dagster.streaming.failures import jvm_is_gone
from kindling_dagster.streaming.model import StreamingQueryConfig, StreamingQueryInfo


class QueryHandle(Protocol):
    """What is used of Spark's StreamingQuery."""

    @property
    def id(self) -> Any:
        """Spark's lasting id."""

    @property
    def runId(self) -> Any:  # noqa: N802
        """Spark's id of this start."""

    @property
    def isActive(self) -> bool:  # noqa: N802
        """Whether it has not ended."""

    @property
    def status(self) -> Mapping[str, Any]:
        """What it does at the moment."""

    @property
    def lastProgress(self) -> Mapping[str, Any] | None:  # noqa: N802
        """Its last batch."""

    def exception(self) -> BaseException | None:
        """What it ended with."""

    def stop(self) -> None:
        """Stop it, and wait until it has ended."""


QueryBuilder = Callable[[], Any]
"""Starts a query in Spark and gives its handle (a ``QueryHandle``)."""


@dataclass
class Query:
    """One stream. ``info`` and ``handle`` are guarded by the manager's lock, the rest by ``operation``."""

    info: StreamingQueryInfo
    builder: QueryBuilder | None = None
    config: StreamingQueryConfig = field(default_factory=StreamingQueryConfig)
    configured: bool = False
    handle: Any = None
    stopper: threading.Thread | None = None
    starts: int = 0
    operation: threading.Lock = field(default_factory=threading.Lock)


def started(query: Query) -> Any:
    """Start it, and give Spark's handle.

    Raises:
        RunError: The builder gave none. Whatever the builder raises comes through.
    """
    assert query.builder is not None  # start_query refuses without one
    handle = query.builder()
    if not hasattr(handle, "runId"):
        raise RunError(
            f"The builder of stream {query.info.query_id} gave {type(handle).__name__}, not a started query.",
            "It must return what `DataStreamWriter.start()` or `toTable()` gives.",
        )
    return handle


def still_active(handle: Any) -> bool:
    """Whether a query may still be at work; one whose JVM is gone is not."""
    try:
        return bool(handle.isActive)
    except Exception as exception:  # the answer decides, not the exception
        return not jvm_is_gone(exception)
