"""The signals that tell of a streaming query's life, as payloads."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from kindling_dagster.signals.payloads import StreamQueryFailedPayload, StreamQueryPayload
from kindling_dagster.streaming.model import StreamError, StreamingQueryConfig, StreamingQueryInfo


def registered(info: StreamingQueryInfo, config: StreamingQueryConfig) -> StreamQueryPayload:
    """It is known."""
    made = {"checkpoint_path": info.checkpoint_path, "trigger": config.trigger}
    return _payload(info, "registered", config=made)


def begun(info: StreamingQueryInfo) -> StreamQueryPayload:
    """It was started."""
    return _payload(
        info,
        "started",
        spark_query_id=info.spark_query_id,
        spark_run_id=info.spark_run_id,
        start_time=None if info.start_time is None else _datetime(info.start_time),
    )


def restarted(info: StreamingQueryInfo, reason: str) -> StreamQueryPayload:
    """It was started again because somebody asked for it."""
    return _payload(info, "restarted", restart_count=info.restart_count, reason=reason or None)


def stopped(info: StreamingQueryInfo, at: float) -> StreamQueryPayload:
    """It ended without an error, or waits no longer."""
    return _payload(info, "stopped", stop_time=_datetime(at), restart_count=info.restart_count)


def failed(info: StreamingQueryInfo, error: StreamError) -> StreamQueryFailedPayload:
    """It could not start or stop, or died."""
    return StreamQueryFailedPayload(
        signal="streaming.query_failed",
        query_id=info.query_id,
        query_name=info.query_name,
        error=error.message,
        error_type=error.type,
        suggestion=error.suggestion or None,
    )


def _payload(info: StreamingQueryInfo, what: str, **fields: Any) -> StreamQueryPayload:
    return StreamQueryPayload(
        signal=f"streaming.query_{what}", query_id=info.query_id, query_name=info.query_name, **fields
    )


def _datetime(at: float) -> datetime:
    return datetime.fromtimestamp(at, timezone.utc)
