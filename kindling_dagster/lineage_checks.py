"""The asset check ``lineage_freshness``, and the job and schedule that evaluate it. Starts no JVM."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

from dagster import (
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetKey,
    AssetSelection,
    MetadataValue,
    ScheduleDefinition,
    TableRecord,
    define_asset_job,
    multi_asset_check,
)

from kindling_dagster.assets import KindlingAssetGraph, app_name
from kindling_dagster.engines.masking import secret_book
from kindling_dagster.lineage.settings import lineage_pipes
from kindling_dagster.project import KindlingProject
from kindling_dagster.signals.plain import scrub_text
from kindling_dagster.spark import session_is_up
from kindling_dagster.table_checks.outcome import told_in_a_line
from kindling_dagster.translator import CheckData, DagsterKindlingTranslator

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from kindling_dagster.lineage.auditor import EntityAudit

CHECK = "lineage_freshness"
_DESCRIPTION = "Whether the rows were written by the current versions of the pipes."
# A table in Dagster's UI gets unwieldy beyond that.
_MAX_VERSIONS = 50


def build_lineage_checks(
    project: KindlingProject,
    *,
    max_age: timedelta | None = None,
    max_stale_share: float = 0.0,
    translator: DagsterKindlingTranslator | None = None,
    storage_options: dict[str, str] | None = None,
) -> Sequence[AssetChecksDefinition]:
    """The check ``lineage_freshness`` of each asset whose rows carry lineage; none for an app without.

    It warns when too many rows are of another version than the one that last wrote the table, and tells
    how many rows and files each version has. It reads the table's log, and only files that mix versions;
    a table with deletion vectors is counted by Spark, if the run has a session.

    Args:
        project: The app.
        max_age: Rows of other versions may be so old; none at all when None.
        max_stale_share: The share of rows, 0 to 1, that may be older than that.
        translator: Decides keys and check specs.
        storage_options: How to reach the tables' storage, as deltalake takes it.

    Raises:
        KindlingDagsterError: The app cannot be loaded.
    """
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())
    known = {**assets.written, **assets.streaming}
    stamped = [pipe.entity_id for pipe in lineage_pipes(assets.manifest).values() if pipe.entity_id in known]
    entity_of: dict[AssetKey, str] = {assets.key_of(entity_id): entity_id for entity_id in stamped}
    if not entity_of:
        return ()

    @multi_asset_check(
        name=f"{app_name(project)}_{CHECK}",
        specs=[
            assets.translator.get_asset_check_spec(CheckData(known[entity_id], CHECK, _DESCRIPTION))
            for entity_id in entity_of.values()
        ],
        can_subset=True,
    )
    def lineage_freshness(context):  # type: ignore[no-untyped-def]  # Dagster takes no postponed annotation here
        for check in sorted(context.selected_asset_check_keys):
            entity_id = entity_of[check.asset_key]
            try:
                found = _audit(project, entity_id, max_age, storage_options)
            except Exception as error:
                # One table that is not there, or cannot be read, must not hide what the others hold.
                line = told_in_a_line(error, project.manifest.entities_by_id[entity_id])
                text = scrub_text(secret_book(project.manifest.secrets).mask(line))
                yield AssetCheckResult(
                    passed=False,
                    asset_key=check.asset_key,
                    check_name=check.name,
                    severity=AssetCheckSeverity.WARN,
                    description=f"Could not be checked. {text}",
                )
                continue
            lineage = found.lineage
            yield AssetCheckResult(
                passed=found.stale_share <= max_stale_share,
                asset_key=check.asset_key,
                check_name=check.name,
                severity=AssetCheckSeverity.WARN,
                description=f"{lineage.stale_rows:,} of {lineage.rows:,} rows are of versions that are too old.",
                metadata={
                    "kindling/stale_share": found.stale_share,
                    "kindling/stale_files": lineage.stale_files,
                    "kindling/files": lineage.files,
                    "kindling/files_read": lineage.files_read,
                    "kindling/delta_version": lineage.table_version,
                    "kindling/versions": MetadataValue.table(
                        [
                            TableRecord(
                                {
                                    "pipe": count.pipe or "no lineage",
                                    "version": count.version,
                                    "rows": count.rows,
                                    "files": count.files,
                                    "stale rows": count.stale_rows,
                                    "last written": str(count.last_written or ""),
                                }
                            )
                            for count in lineage.counts[:_MAX_VERSIONS]
                        ]
                    )
                    if lineage.counts
                    else "the table is empty",
                },
            )

    return (lineage_freshness,)


def _audit(
    project: KindlingProject,
    entity_id: str,
    max_age: timedelta | None,
    storage_options: dict[str, str] | None,
) -> EntityAudit:
    """Audit in a thread of its own: Terminate interrupts the main thread, and no call to a JVM bears that."""
    # Here, because it imports Kindling, which definitions do without.
    from kindling_dagster.lineage.auditor import LineageAuditor

    def audit() -> EntityAudit:
        auditor = LineageAuditor(
            project.manifest, project.working_dir, storage_options=storage_options, spark=_session()
        )
        return auditor.audit(entity_id, max_age=max_age)

    with ThreadPoolExecutor(1, thread_name_prefix="lineage-audit") as pool:
        return pool.submit(audit).result()


def _session() -> SparkSession | None:
    """The session that the run has, as when it materializes assets of Kindling in the same process."""
    if "pyspark" not in sys.modules or not session_is_up():
        return None
    from pyspark.sql import SparkSession

    return SparkSession.builder.getOrCreate()


def build_lineage_audit(
    project: KindlingProject,
    checks: Sequence[AssetChecksDefinition],
    *,
    cron_schedule: str = "0 5 * * *",
) -> ScheduleDefinition:
    """A schedule (stopped at first) whose job ``<app>_lineage_audit`` evaluates these checks.

    Args:
        project: The app.
        checks: What ``build_lineage_checks`` gave.
        cron_schedule: When to audit.

    Example::

        checks = build_lineage_checks(project, max_age=timedelta(days=30))
        defs = Definitions(asset_checks=checks, schedules=[build_lineage_audit(project, checks)])
    """
    name = f"{app_name(project)}_lineage_audit"
    job = define_asset_job(
        name,
        AssetSelection.checks(*checks),
        description="Looks for rows that old versions of the pipes wrote.",
    )
    return ScheduleDefinition(name=f"{name}_schedule", job=job, cron_schedule=cron_schedule)
