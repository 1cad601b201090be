"""Payloads of streams: queries, health, recovery, Spark's own events, dimensions and restarts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from kindling_dagster.signals.payloads.base import FailurePayload, Payload


@dataclass(kw_only=True)
class StreamQueryPayload(Payload):
    """A streaming query's life: registered, started, stopped, restarted.

    ``query_id`` is ours and lasts; ``spark_query_id`` belongs to the checkpoint, ``spark_run_id`` to one
    start. Times are sent as Kindling sends them (``datetime``); decoded ones are ISO text.
    """

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "streaming.query_registered": "query_id query_name config",
        "streaming.query_started": "query_id query_name spark_query_id spark_run_id start_time",
        "streaming.query_stopped": "query_id query_name stop_time restart_count",
        "streaming.query_restarted": "query_id query_name restart_count reason?",
    }

    query_id: str | None = None
    query_name: str | None = None
    config: Mapping[str, Any] | None = None
    spark_query_id: str | None = None
    spark_run_id: str | None = None
    start_time: datetime | str | None = None
    stop_time: datetime | str | None = None
    restart_count: int | None = None
    reason: str | None = None


@dataclass(kw_only=True)
class StreamQueryFailedPayload(FailurePayload):
    """A streaming query could not start or stop, or died."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "streaming.query_failed": "query_id query_name error error_type?",
    }

    query_id: str | None = None
    query_name: str | None = None


@dataclass(kw_only=True)
class StreamHealthPayload(Payload):
    """What the watchdog found. ``metrics`` are the numbers behind it, ``reason`` says it in words."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "streaming.query_healthy": "query_id query_name health_status check_time metrics?",
        "streaming.query_unhealthy": "query_id query_name health_status check_time metrics reason?",
        "streaming.query_stalled": (
            "query_id query_name health_status check_time last_progress_time seconds_since_progress? "
            "metrics? reason?"
        ),
    }

    query_id: str | None = None
    query_name: str | None = None
    health_status: str | None = None
    check_time: datetime | str | None = None
    metrics: Mapping[str, Any] | None = None
    last_progress_time: datetime | str | None = None
    seconds_since_progress: float | None = None
    reason: str | None = None


@dataclass(kw_only=True)
class StreamExceptionPayload(FailurePayload):
    """The watchdog found that a query ended with an exception (its text in ``exception``)."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "streaming.query_exception": "query_id query_name health_status check_time exception error_type?",
    }

    query_id: str | None = None
    query_name: str | None = None
    health_status: str | None = None
    check_time: datetime | str | None = None
    exception: str | None = None

    @property
    def error_text(self) -> str:
        """The exception's text."""
        return str(self.error or self.exception or "")


@dataclass(kw_only=True)
class StreamRecoveryPayload(Payload):
    """A restart by recovery was tried, or has proved itself. ``retry_count`` counts from 1."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "streaming.recovery_attempted": (
            "query_id query_name retry_count max_retries attempt_time backoff_seconds?"
        ),
        "streaming.recovery_succeeded": "query_id query_name retry_count success_time",
    }

    query_id: str | None = None
    query_name: str | None = None
    retry_count: int | None = None
    max_retries: int | None = None
    attempt_time: datetime | str | None = None
    success_time: datetime | str | None = None
    backoff_seconds: float | None = None


@dataclass(kw_only=True)
class StreamRecoveryFailedPayload(FailurePayload):
    """A restart by recovery failed; ``recovery_exhausted``: it was the last, the query is a dead letter."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "streaming.recovery_failed": (
            "query_id query_name retry_count max_retries failure_reason failure_time error_type?"
        ),
        "streaming.recovery_exhausted": (
            "query_id query_name retry_count max_retries failure_reason exhausted_time error_type?"
        ),
    }

    query_id: str | None = None
    query_name: str | None = None
    retry_count: int | None = None
    max_retries: int | None = None
    failure_reason: str | None = None
    failure_time: datetime | str | None = None
    exhausted_time: datetime | str | None = None

    @property
    def error_text(self) -> str:
        """Why it failed."""
        return str(self.error or self.failure_reason or "")


@dataclass(kw_only=True)
class SparkQueryPayload(Payload):
    """Spark's own event of a streaming query. Here ``query_id`` and ``run_id`` are Spark's.

    Rates are rows per second, ``batch_duration`` milliseconds, ``timestamp`` Unix seconds.
    ``exception`` and ``error_class`` come with a query that ended by an error.
    """

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "streaming.spark_query_started": "query_id run_id name timestamp",
        "streaming.spark_query_progress": (
            "query_id run_id name timestamp batch_id num_input_rows input_rows_per_second process_rate "
            "batch_duration"
        ),
        "streaming.spark_query_idle": "query_id run_id timestamp name?",
        "streaming.spark_query_terminated": "query_id run_id timestamp name? exception? error_class?",
    }

    query_id: str | None = None
    run_id: str | None = None
    name: str | None = None
    batch_id: int | None = None
    num_input_rows: int | None = None
    input_rows_per_second: float | None = None
    process_rate: float | None = None
    batch_duration: float | None = None
    exception: str | None = None
    error_class: str | None = None


@dataclass(kw_only=True)
class StreamRunPayload(Payload):
    """A run of streaming pipes begins, ends by itself, or is stopped."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "streaming.orchestrator_started": "run_id pipe_ids active_query_count",
        "streaming.orchestrator_completed": "run_id active_query_count",
        "streaming.orchestrator_stopped": "run_id stopped_query_count",
    }

    run_id: str | None = None
    pipe_ids: Sequence[str] | None = None
    active_query_count: int | None = None
    stopped_query_count: int | None = None


@dataclass(kw_only=True)
class StreamRunFailedPayload(FailurePayload):
    """A run of streaming pipes could not start, or ended by an error."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "streaming.orchestrator_failed": "run_id error error_type",
    }

    run_id: str | None = None


@dataclass(kw_only=True)
class DimensionChangePayload(Payload):
    """A dimension's data or schema changed.

    ``change_detection`` is the method that saw it; fingerprints are that method's text before and after.
    ``change`` is ``data``, ``schema`` or ``replaced``; counts are rows, None where the method has none.
    """

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "streaming.dimension_changed": (
            "entity_id change_detection change previous_fingerprint fingerprint "
            "version? operation? new_count? closed_count? changed_count? reason?"
        ),
    }

    entity_id: str | None = None
    change_detection: str | None = None
    change: str | None = None
    previous_fingerprint: str | None = None
    fingerprint: str | None = None
    version: int | None = None
    operation: str | None = None
    new_count: int | None = None
    closed_count: int | None = None
    changed_count: int | None = None
    reason: str | None = None


@dataclass(kw_only=True)
class StreamRestartPayload(Payload):
    """A stream is to restart because dimensions changed, and the cascade that restart is part of.

    ``query_ids`` are in the order of the restart: consumers before producers.
    """

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "streaming.restart_triggered": "query_id entity_ids policy reason cascade_id?",
        "streaming.cascade_restart_started": "cascade_id entity_ids query_ids",
        "streaming.cascade_restart_completed": (
            "cascade_id entity_ids query_ids restarted_count skipped_count failed_count duration_seconds"
        ),
    }

    query_id: str | None = None
    entity_ids: Sequence[str] | None = None
    policy: str | None = None
    reason: str | None = None
    cascade_id: str | None = None
    query_ids: Sequence[str] | None = None
    restarted_count: int | None = None
    skipped_count: int | None = None
    failed_count: int | None = None
    duration_seconds: float | None = None
