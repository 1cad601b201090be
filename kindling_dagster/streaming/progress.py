"""From Spark's progress reports to StreamMetrics. Pure; takes the JSON form that Spark 3.5 and 4 share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from kindling_dagster.streaming.model import StreamMetrics

_BYTES: Final = ("numBytesOutstanding",)
_FILES: Final = ("numFilesOutstanding",)


def metrics_of(progress: Mapping[str, Any], previous: StreamMetrics, at: float) -> StreamMetrics:
    """The metrics after one more batch.

    Args:
        progress: Spark's report of the batch.
        previous: The metrics before it; ``rows_total`` counts on.
        at: When the batch ended, Unix seconds.
    """
    rows = _whole(progress.get("numInputRows"))
    read_something = bool(rows)
    return StreamMetrics(
        batch_id=_whole(progress.get("batchId")),
        input_rows=rows,
        rows_total=previous.rows_total + (rows or 0),
        input_rows_per_second=_number(progress.get("inputRowsPerSecond")),
        processed_rows_per_second=_number(progress.get("processedRowsPerSecond")),
        batch_seconds=batch_seconds(progress),
        backlog_bytes=_outstanding(progress, _BYTES),
        backlog_files=_outstanding(progress, _FILES),
        state_rows=_total(operator.get("numRowsTotal") for operator in _items(progress, "stateOperators")),
        last_progress_at=at if read_something else previous.last_progress_at,
        last_event_at=at,
    )


def idle_metrics(previous: StreamMetrics, at: float) -> StreamMetrics:
    """The metrics after Spark said that there is nothing to read: no rows come, none wait."""
    return replace(
        previous,
        input_rows_per_second=0.0,
        processed_rows_per_second=0.0,
        backlog_bytes=None if previous.backlog_bytes is None else 0,
        backlog_files=None if previous.backlog_files is None else 0,
        last_event_at=at,
    )


def batch_seconds(progress: Mapping[str, Any]) -> float | None:
    """How long a batch took; None where Spark does not say."""
    duration = _number(progress.get("batchDuration"))
    if duration is None:
        durations = progress.get("durationMs")
        duration = _number(durations.get("triggerExecution")) if isinstance(durations, Mapping) else None
    return None if duration is None else duration / 1000


def _outstanding(progress: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """What waits in all sources that say it: Delta's do, as text."""
    waiting = []
    for source in _items(progress, "sources"):
        metrics = source.get("metrics")
        if isinstance(metrics, Mapping):
            waiting += [metrics[name] for name in names if name in metrics]
    return _total(waiting)


def _items(progress: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [item for item in progress.get(name) or () if isinstance(item, Mapping)]


def _total(values: Iterable[Any]) -> int | None:
    whole = [number for number in map(_whole, values) if number is not None]
    return sum(whole) if whole else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _number(value: object) -> float | None:
    """A finite number; None for what Spark writes when a rate is not known (``NaN``, ``Infinity``)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
