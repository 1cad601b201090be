"""Spark's streaming events as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class SparkEvent:
    """One event of Spark's about a streaming query.

    Args:
        kind: ``started``, ``progress`` (a batch ended), ``idle`` (there is nothing to read) or ``terminated``.
        query_id: Spark's lasting id of the query.
        run_id: Spark's id of this start.
        at: When the event came, Unix seconds.
        name: Spark's name of the query, where the event says it.
        progress: Spark's report of the batch, in its JSON form.
        exception: The text of the error the query ended with; empty when it was stopped.
        error_class: Spark's error class of it, where it has one.
    """

    kind: Literal["started", "progress", "idle", "terminated"]
    query_id: str
    run_id: str
    at: float
    name: str = ""
    progress: Mapping[str, Any] = field(default_factory=dict)
    exception: str = ""
    error_class: str = ""


OnEvent = Callable[[SparkEvent], object]
