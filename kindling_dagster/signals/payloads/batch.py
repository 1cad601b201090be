"""Payloads of batch runs: datapipes.*, orchestrator.*, stage.* and lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from kindling_dagster.signals.payloads.base import FailurePayload, Payload


@dataclass(kw_only=True)
class PipeRunPayload(Payload):
    """A run of several pipes begins or ends. ``duration_seconds`` is the whole run's."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "datapipes.before_run": "pipe_ids pipe_count run_id",
        "datapipes.after_run": "pipe_ids success_count skipped_count failed_count duration_seconds run_id",
    }

    pipe_ids: Sequence[str] | None = None
    pipe_count: int | None = None
    success_count: int | None = None
    skipped_count: int | None = None
    failed_count: int | None = None
    duration_seconds: float | None = None
    run_id: str | None = None


@dataclass(kw_only=True)
class PipeExecutePayload(Payload):
    """One pipe of a run begins, ends or is skipped. ``pipe_index`` counts from 0."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "datapipes.before_pipe": "pipe_id pipe_name pipe_index run_id",
        "datapipes.after_pipe": "pipe_id pipe_name duration_seconds run_id",
        "datapipes.pipe_skipped": "pipe_id pipe_name skip_reason run_id",
    }

    pipe_id: str | None = None
    pipe_name: str | None = None
    pipe_index: int | None = None
    duration_seconds: float | None = None
    skip_reason: str | None = None
    run_id: str | None = None


@dataclass(kw_only=True)
class PipeFailedPayload(FailurePayload):
    """A pipe failed, or the run it belongs to (then ``failed_pipe`` is the last one that did)."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "datapipes.pipe_failed": "pipe_id pipe_name error error_type duration_seconds run_id",
        "datapipes.run_failed": (
            "pipe_ids failed_pipe success_count error error_type duration_seconds run_id"
        ),
    }

    pipe_id: str | None = None
    pipe_name: str | None = None
    pipe_ids: Sequence[str] | None = None
    failed_pipe: str | None = None
    success_count: int | None = None
    duration_seconds: float | None = None
    run_id: str | None = None


@dataclass(kw_only=True)
class PlanPayload(Payload):
    """An execution plan was made."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "orchestrator.plan_generated": (
            "strategy pipe_ids pipe_count generation_count max_parallelism metadata run_id?"
        ),
    }

    strategy: str | None = None
    pipe_ids: Sequence[str] | None = None
    pipe_count: int | None = None
    generation_count: int | None = None
    max_parallelism: int | None = None
    metadata: Mapping[str, Any] | None = None
    run_id: str | None = None


@dataclass(kw_only=True)
class ExecutionPayload(Payload):
    """A plan's execution begins or ends. ``cache_metrics`` are hits and misses by entity."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "orchestrator.execution_started": "run_id strategy mode pipe_count generation_count parallel",
        "orchestrator.execution_completed": (
            "run_id success_count failed_count skipped_count duration_seconds all_succeeded cache_metrics"
        ),
        "orchestrator.execution_cancelled": (
            "run_id success_count failed_count skipped_count cancelled_count duration_seconds reason?"
        ),
    }

    run_id: str | None = None
    strategy: str | None = None
    mode: str | None = None
    pipe_count: int | None = None
    generation_count: int | None = None
    parallel: bool | None = None
    success_count: int | None = None
    failed_count: int | None = None
    skipped_count: int | None = None
    cancelled_count: int | None = None
    duration_seconds: float | None = None
    all_succeeded: bool | None = None
    cache_metrics: Mapping[str, Any] | None = None
    reason: str | None = None


@dataclass(kw_only=True)
class ExecutionFailedPayload(FailurePayload):
    """A plan's execution ended because of failures."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "orchestrator.execution_failed": (
            "run_id error error_type duration_seconds failed_pipes cache_metrics"
        ),
    }

    run_id: str | None = None
    duration_seconds: float | None = None
    failed_pipes: Sequence[str] | None = None
    cache_metrics: Mapping[str, Any] | None = None


@dataclass(kw_only=True)
class GenerationPayload(Payload):
    """A generation (pipes that do not depend on each other) begins or ends. Numbers count from 0."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "orchestrator.generation_started": "run_id generation pipe_ids pipe_count",
        "orchestrator.generation_completed": (
            "run_id generation success_count failed_count skipped_count duration_seconds"
        ),
    }

    run_id: str | None = None
    generation: int | None = None
    pipe_ids: Sequence[str] | None = None
    pipe_count: int | None = None
    success_count: int | None = None
    failed_count: int | None = None
    skipped_count: int | None = None
    duration_seconds: float | None = None


@dataclass(kw_only=True)
class PlannedPipePayload(Payload):
    """One pipe of a plan's execution begins or ends without an error of its own.

    ``attempts`` counts tries; ``reason`` and ``upstream_pipe`` say why it did not run to its end.
    """

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "orchestrator.pipe_started": "run_id pipe_id is_streaming",
        "orchestrator.pipe_completed": "run_id pipe_id duration_seconds is_streaming attempts",
        "orchestrator.pipe_skipped": "run_id pipe_id duration_seconds reason? upstream_pipe?",
        "orchestrator.pipe_cancelled": "run_id pipe_id duration_seconds reason",
    }

    run_id: str | None = None
    pipe_id: str | None = None
    is_streaming: bool | None = None
    duration_seconds: float | None = None
    attempts: int | None = None
    reason: str | None = None
    upstream_pipe: str | None = None


@dataclass(kw_only=True)
class PlannedPipeFailedPayload(FailurePayload):
    """One pipe of a plan's execution failed, passed its time limit, or will be tried again.

    ``interval_seconds`` is the wait before the next try; ``limit_seconds`` the time limit that passed.
    """

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "orchestrator.pipe_failed": "run_id pipe_id error error_type duration_seconds attempts",
        "orchestrator.pipe_retrying": (
            "run_id pipe_id attempt max_attempts error error_type interval_seconds"
        ),
        "orchestrator.pipe_timed_out": "run_id pipe_id error error_type duration_seconds limit_seconds",
        "orchestrator.pipe_stuck": "run_id pipe_id error error_type duration_seconds",
    }

    run_id: str | None = None
    pipe_id: str | None = None
    attempt: int | None = None
    attempts: int | None = None
    max_attempts: int | None = None
    interval_seconds: float | None = None
    limit_seconds: float | None = None
    duration_seconds: float | None = None


@dataclass(kw_only=True)
class CachePayload(Payload):
    """An entity that several pipes of an execution read: advice, hits, misses, release.

    ``cache_level`` is Spark's storage level; ``estimated_bytes`` comes from the Delta log.
    """

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "orchestrator.cache_recommended": (
            "run_id entity_id consumer_pipes cache_level auto_cache estimated_bytes?"
        ),
        "orchestrator.cache_hit": "run_id entity_id hit_count",
        "orchestrator.cache_miss": "run_id entity_id miss_count cache_level auto_cached",
        "orchestrator.cache_released": "run_id entity_id hit_count miss_count",
    }

    run_id: str | None = None
    entity_id: str | None = None
    consumer_pipes: Sequence[str] | None = None
    cache_level: str | None = None
    auto_cache: bool | None = None
    auto_cached: bool | None = None
    hit_count: int | None = None
    miss_count: int | None = None
    estimated_bytes: int | None = None


@dataclass(kw_only=True)
class StagePayload(Payload):
    """A stage (the pipes whose ids start with its name) begins or ends."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "stage.before_execute": "stage stage_description layer pipe_count pipe_ids execution_id",
        "stage.after_execute": "stage stage_description layer pipe_count duration_seconds execution_id",
    }

    stage: str | None = None
    stage_description: str | None = None
    layer: str | None = None
    pipe_count: int | None = None
    pipe_ids: Sequence[str] | None = None
    duration_seconds: float | None = None
    execution_id: str | None = None


@dataclass(kw_only=True)
class StageFailedPayload(FailurePayload):
    """A stage failed."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "stage.execute_failed": (
            "stage stage_description layer error error_type duration_seconds execution_id"
        ),
    }

    stage: str | None = None
    stage_description: str | None = None
    layer: str | None = None
    duration_seconds: float | None = None
    execution_id: str | None = None


@dataclass(kw_only=True)
class LineagePayload(Payload):
    """Which version of which package's transform wrote an entity's rows.

    ``stale_*`` count what versions older than allowed wrote.
    """

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "datapipes.lineage_applied": "pipe_id entity_id layer column package_name package_version run_id",
        "datapipes.version_changed": (
            "pipe_id entity_id package_name previous_version package_version run_id"
        ),
        "datapipes.lineage_audit": (
            "entity_id layer current_version oldest_version versions "
            "row_count? stale_row_count? file_count? stale_file_count?"
        ),
    }

    pipe_id: str | None = None
    entity_id: str | None = None
    layer: str | None = None
    column: str | None = None
    package_name: str | None = None
    package_version: str | None = None
    previous_version: str | None = None
    current_version: str | None = None
    oldest_version: str | None = None
    versions: Sequence[str] | None = None
    row_count: int | None = None
    stale_row_count: int | None = None
    file_count: int | None = None
    stale_file_count: int | None = None
    run_id: str | None = None
