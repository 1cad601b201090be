"""Automation: conditions and freshness policies from tags and layers, and schedules from selections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetSelection,
    DefaultScheduleStatus,
    ScheduleDefinition,
    define_asset_job,
    in_process_executor,
)

from kindling_dagster.assets import KindlingAssetGraph, app_name
from kindling_dagster.errors import DeclarationError
from kindling_dagster.project import KindlingProject
from kindling_dagster.selection import Selection
from kindling_dagster.translator import DagsterKindlingTranslator

if TYPE_CHECKING:
    from dagster import RunConfig


def build_kindling_schedule(
    project: KindlingProject,
    *,
    cron_schedule: str,
    select: Selection | None = None,
    exclude: Selection | None = None,
    name: str | None = None,
    translator: DagsterKindlingTranslator | None = None,
    execution_timezone: str | None = None,
    run_config: RunConfig | Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    default_status: DefaultScheduleStatus = DefaultScheduleStatus.STOPPED,
) -> ScheduleDefinition:
    """A schedule that materializes a selection of an app's batch assets, in one run and one Spark session.

    Args:
        project: The app.
        cron_schedule: When, as five fields or ``@daily`` and the like.
        select: Kindling ids with globs, ``tag:name=value``, Dagster selection strings, or a list of such.
        exclude: The same, for what to leave out.
        name: Of the schedule; ``<app>_schedule`` when left out. Its job has the name with ``_job``.
        translator: Decides the assets' keys; the same as for the assets.
        execution_timezone: In which the times are meant; UTC when left out.
        run_config: Of its runs, such as ``mode: incremental`` for the step.
        tags: Of its runs.
        default_status: Whether the schedule is on from the start.

    Raises:
        KindlingDagsterError: The app cannot be loaded, a selection fits nothing, or it holds partitioned assets.

    Example::

        nightly = build_kindling_schedule(KindlingProject("demo"), cron_schedule="0 3 * * *", select="gold.*")
    """
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())
    chosen = [assets.specs[id_] for id_ in assets.select(select, exclude)]
    parted = [spec.key.to_user_string() for spec in chosen if spec.partitions_def is not None]
    if parted:
        raise DeclarationError(
            f"A schedule names no partition, and {', '.join(parted)} have partitions.",
            "Leave them out, or have them follow by automation: their tag dagster/automation: eager or on_cron.",
        )
    schedule_name = name or f"{app_name(project)}_schedule"
    job = define_asset_job(
        f"{schedule_name}_job",
        AssetSelection.assets(*(spec.key for spec in chosen)),
        config=run_config,
        tags=tags,
        executor_def=in_process_executor,
    )
    return ScheduleDefinition(
        name=schedule_name,
        job=job,
        cron_schedule=cron_schedule,
        execution_timezone=execution_timezone,
        default_status=default_status,
    )
