"""Streams as Dagster events: observations, heartbeats, the health check; and when each of them is due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    MetadataValue,
)

from kindling_dagster.signals.bridge_outputs import ROWS_METADATA
from kindling_dagster.signals.bridge_stream_rules import HEALTH_CHECK
from kindling_dagster.streaming.model import StreamingQueryState
from kindling_dagster.streaming.views import StreamView, Verdict

# Dagster's own tag for the version of an asset's data, on events that have no field for it.
_DATA_VERSION_TAG = "dagster/data_version"
_STREAM_METADATA = "kindling/stream"

StreamEvent = AssetObservation | AssetMaterialization | AssetCheckEvaluation


@dataclass(frozen=True)
class ReportingPolicy:
    """How often the supervisor reports on a stream, in seconds. A change of state is reported at once.

    Args:
        observe_every: Between two observations of a stream that works.
        heartbeat_every: Between two heartbeat materializations of a stream that reads rows.
        idle_heartbeat_every: Between two heartbeats of a healthy stream that has nothing to read; a
            freshness policy must allow more than this.
        check_every: Between two evaluations of a health check whose outcome stays the same.
    """

    observe_every: float = 60.0
    heartbeat_every: float = 60.0
    idle_heartbeat_every: float = 300.0
    check_every: float = 600.0


@dataclass(frozen=True)
class ReportRecord:
    """What was last reported on a stream, kept in the store.

    Args:
        state: The state that was observed, with what else is worth an observation at once.
        batch_id: The batch that was observed.
        observed_at: When.
        rows: Rows that all heartbeats so far stand for.
        heartbeat_at: When the last one was.
        check: The outcome of the last check.
        checked_at: When it was evaluated.
        checked_for: Of the materialization by others, such as a run, that it was last evaluated after: its storage id.
    """

    state: str = ""
    batch_id: int | None = None
    observed_at: float = 0.0
    rows: int = 0
    heartbeat_at: float = 0.0
    check: str = ""
    checked_at: float = 0.0
    checked_for: int = 0

    def to_data(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    @staticmethod
    def from_data(data: object) -> ReportRecord:
        """From JSON data; what cannot be read counts as never reported."""
        if not isinstance(data, Mapping):
            return ReportRecord()
        try:
            return ReportRecord(**data)
        except TypeError:
            return ReportRecord()


def stream_metadata(view: StreamView) -> dict[str, Any]:
    """What an event says of a stream. What nobody has reported is left out."""
    status, metrics = view.status, view.status.metrics if view.status else None
    values: dict[str, Any] = {
        _STREAM_METADATA: view.stream_id,
        "kindling/state": view.state,
        "kindling/wanted": view.wanted,
    }
    if status is not None and metrics is not None:
        error = status.last_error
        values |= {
            "kindling/health": status.health.value if view.current else None,
            "kindling/health_reason": status.health_reason if view.current else None,
            "kindling/batch_id": metrics.batch_id,
            "kindling/input_rows_per_second": metrics.input_rows_per_second,
            "kindling/processed_rows_per_second": metrics.processed_rows_per_second,
            "kindling/batch_seconds": metrics.batch_seconds,
            "kindling/backlog_files": metrics.backlog_files,
            "kindling/backlog_bytes": metrics.backlog_bytes,
            "kindling/state_rows": metrics.state_rows,
            "kindling/rows_total": status.rows_committed,
            "kindling/restarts": status.restarts,
            "kindling/last_commit": _timestamp(metrics.last_progress_at),
            "kindling/started": _timestamp(status.started_at),
            "kindling/next_start": _timestamp(status.next_start_at),
            "kindling/last_error": f"{error.type}: {error.message}" if error else None,
        }
    run_id = view.host.run_id if view.host is not None and view.hosted else ""
    values["kindling/host_run"] = MetadataValue.dagster_run(run_id) if run_id else None
    return {name: value for name, value in values.items() if value not in (None, "")}


def _timestamp(at: float | None) -> Any:
    return None if at is None else MetadataValue.timestamp(at)


def worst(views: Sequence[StreamView]) -> tuple[StreamView, Verdict]:
    """Of an asset's streams the one that is worst off."""
    order = {"error": 0, "warning": 1}
    return min(
        ((view, view.verdict) for view in views),
        key=lambda pair: 2 if pair[1].ok else order[pair[1].severity],
    )


def health_evaluation(key: AssetKey, views: Sequence[StreamView]) -> AssetCheckEvaluation:
    """The outcome of an asset's ``stream_health``: that of the worst of its streams."""
    view, verdict = worst(views)
    return AssetCheckEvaluation(
        asset_key=key,
        check_name=HEALTH_CHECK,
        passed=verdict.ok,
        severity=check_severity(verdict),
        description=" ".join(filter(None, (f"{view.stream_id}: {verdict.reason}", verdict.suggestion))),
        metadata=stream_metadata(view),
    )


def check_severity(verdict: Verdict) -> AssetCheckSeverity:
    """A verdict's severity, as Dagster has it."""
    return AssetCheckSeverity.WARN if verdict.severity == "warning" else AssetCheckSeverity.ERROR


def failed_report(key: AssetKey, stream_id: str, error: Exception) -> AssetCheckEvaluation:
    """The check of a stream on which nothing can be told."""
    return AssetCheckEvaluation(
        asset_key=key,
        check_name=HEALTH_CHECK,
        passed=False,
        description=f"{stream_id}: its state cannot be told: {type(error).__name__}: {error}",
    )


def is_heartbeat(materialization: AssetMaterialization, run_id: str) -> bool:
    """Whether the supervisor has reported it: it belongs to no run, and says which stream's it is."""
    return not run_id and {_STREAM_METADATA, ROWS_METADATA} <= materialization.metadata.keys()


def data_version(view: StreamView) -> str:
    """Changes with every batch that read something, and with nothing else."""
    return f"rows-{view.status.rows_committed if view.status else 0}"


def reports(
    key: AssetKey, view: StreamView, record: ReportRecord, policy: ReportingPolicy
) -> tuple[list[StreamEvent], ReportRecord]:
    """The events that are due on one stream, and the record after them."""
    events: list[StreamEvent] = []
    state, batch = _state(view), view.status.metrics.batch_id if view.status else None
    waited = _seconds_since(record.observed_at, view.now)
    due = waited >= policy.observe_every and batch != record.batch_id
    if view.desired is not None and (state != record.state or due):
        said = f"{view.stream_id}: {view.verdict.reason}"
        events.append(AssetObservation(key, description=said, metadata=stream_metadata(view)))
        record = replace(record, state=state, batch_id=batch, observed_at=view.now)
    heartbeat, record = _heartbeat(key, view, record, policy)
    return [*events, *heartbeat], record


def _seconds_since(told_at: float, now: float) -> float:
    """How long ago something was told; very long when the clock was set back since, so that it is told again."""
    return now - told_at if now >= told_at else float("inf")


def _state(view: StreamView) -> str:
    status = view.status
    seen: list[object] = [view.state, view.wanted, view.dead_letter.at if view.dead_letter else None]
    if status is not None:
        error = status.last_error
        seen += [status.health.value, status.restarts, status.host_run_id, error.at if error else None]
        seen.append(status.metrics.batch_id is None)  # the first batch is told at once
    return "|".join(map(str, seen))


def _heartbeat(
    key: AssetKey, view: StreamView, record: ReportRecord, policy: ReportingPolicy
) -> tuple[list[StreamEvent], ReportRecord]:
    if view.status is None:
        return [], record
    total, waited = view.status.rows_committed, _seconds_since(record.heartbeat_at, view.now)
    # A store that was made anew counts from nothing again.
    rows = total - record.rows if total >= record.rows else total
    works = view.current and view.verdict.ok and view.status.state is StreamingQueryState.RUNNING
    if not (rows and waited >= policy.heartbeat_every) and not (
        works and record.heartbeat_at and waited >= policy.idle_heartbeat_every
    ):
        return [], record
    event = AssetMaterialization(
        key,
        description=f"{rows} rows read by the stream {view.stream_id} since the last heartbeat.",
        metadata={**stream_metadata(view), ROWS_METADATA: rows},
        tags={_DATA_VERSION_TAG: data_version(view)},
    )
    return [event], replace(record, rows=total, heartbeat_at=view.now)


def health_reports(
    key: AssetKey,
    views: Sequence[StreamView],
    record: ReportRecord,
    policy: ReportingPolicy,
    *,
    beat: bool = False,
    materialization: int = 0,
) -> tuple[list[StreamEvent], ReportRecord]:
    """The check of one asset, if it is due: its outcome changed, or it was last evaluated long ago.

    It is due too when the asset has a new materialization: Dagster shows the check of the latest one alone.

    Args:
        key: The asset.
        views: Its streams.
        record: What was last reported on the first of them.
        policy: How often it is evaluated.
        beat: Whether it has a heartbeat among the events of this tick.
        materialization: Storage id of its latest materialization, if that is no heartbeat; else 0.
    """
    view, verdict = worst(views)
    outcome = f"{verdict.ok}|{verdict.severity}|{view.state}"
    waited = _seconds_since(record.checked_at, view.now)
    asked = any(item.desired is not None for item in views)
    new = beat or materialization not in (0, record.checked_for)
    due = new or outcome != record.check or waited >= policy.check_every
    if not asked or not due:
        return [], record
    told = replace(
        record, check=outcome, checked_at=view.now, checked_for=materialization or record.checked_for
    )
    return [health_evaluation(key, views)], told
