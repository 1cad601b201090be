"""Checks inside the step that writes a table: those that hold back what depends on it, and what only Spark can read.

What is within deltalake's reach is read by it here too; the session is asked where it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kindling_dagster.dag.plan import ExecutionPlan
from kindling_dagster.dag.results import PipeError, PipeOutcome
from kindling_dagster.delta_log import local_path
from kindling_dagster.engines.commits import PATIENCE
from kindling_dagster.locations import table_location
from kindling_dagster.manifest import Manifest
from kindling_dagster.quoting import backticked
from kindling_dagster.table_checks.declared import SCHEMA, DeclaredChecks, TableCheck
from kindling_dagster.table_checks.evaluation import evaluate, migration_command, not_told
from kindling_dagster.table_checks.migration import migration_lines
from kindling_dagster.table_checks.outcome import CheckOutcome
from kindling_dagster.table_checks.tables import CHECKED, DeltaFile, Query, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from kindling_dagster.runtime import KindlingRuntime

ERROR = "CheckFailed"
METADATA = "checks"


class SparkTable(Table):
    """A table as the session reads it.

    Args:
        spark: The session.
        frame: All rows of the table.
    """

    reader = "Spark"
    version = None

    def __init__(self, spark: SparkSession, frame: DataFrame) -> None:
        self._spark = spark
        self._frame = frame

    def fields(self) -> Sequence[Mapping[str, Any]]:
        """The columns, as Spark's JSON has them."""
        found: list[Mapping[str, Any]] = self._frame.schema.jsonValue()["fields"]
        return found

    def partition_columns(self) -> tuple[str, ...] | None:
        """A frame does not tell."""
        return None

    def null_counts(self, columns: Sequence[str]) -> dict[str, int] | None:  # noqa: ARG002
        """Statistics are not within reach."""
        return None

    def rows(self, query: Query) -> list[dict[str, Any]]:
        """The rows a query gives."""
        # Braces name frames in the text; those in names of columns are doubled.
        text = query(_in_braced_text).replace(f"FROM {CHECKED}", f"FROM {{{CHECKED}}}")
        return [row.asDict() for row in self._spark.sql(text, **{CHECKED: self._frame}).collect()]


class StepChecks:
    """Judges what pipes have written.

    Args:
        wanted: By entity, the checks to make, and which of them hold back what depends on it.
        plan: The run's plan: of several writers of an entity the last one is judged. None without checks.
        manifest: What the app declares.
        runtime: The app, started.
        spark: The session.
        storage_options: For reading tables on object storage without Spark, as deltalake takes them.
    """

    def __init__(
        self,
        wanted: Mapping[str, Mapping[str, bool]],
        plan: ExecutionPlan | None,
        manifest: Manifest,
        runtime: KindlingRuntime,
        spark: SparkSession,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self._wanted = wanted
        self._manifest = manifest
        self._runtime = runtime
        self._spark = spark
        self._storage_options = {**PATIENCE, **storage_options} if storage_options else {}
        self._last_writer = {} if plan is None else _last_writers(plan)
        self._declared = DeclaredChecks(manifest) if wanted else None

    def judge(self, pipe_id: str, outcome: PipeOutcome) -> PipeOutcome:
        """The outcome with what its table's checks found; an error where a blocking one failed.

        A pipe that found no new data is judged too: what an earlier run left is still there.
        """
        entity_id = self._manifest.pipes_by_id[pipe_id].output_entity_id
        if self._declared is None or self._last_writer.get(entity_id) != pipe_id:
            return outcome
        names = self._wanted.get(entity_id, {})
        checks = [
            replace(check, blocking=names[check.name])
            for check in self._declared.of(entity_id)
            if check.name in names
        ]
        if not checks:
            return outcome
        found = self._evaluate(entity_id, checks, outcome)
        metadata = {**outcome.metadata, METADATA: [each.to_data() for each in found]}
        return replace(outcome, metadata=metadata, error=_error(pipe_id, entity_id, found))

    def _evaluate(
        self, entity_id: str, checks: Sequence[TableCheck], outcome: PipeOutcome
    ) -> list[CheckOutcome]:
        table = self._without_spark(entity_id, outcome)
        return [self._one(entity_id, check, table) for check in checks]

    def _one(self, entity_id: str, check: TableCheck, table: DeltaFile | None) -> CheckOutcome:
        command = migration_command(self._manifest)
        try:
            found = None if table is None else evaluate(check, table, command)
        except Exception:  # of a kind that delta-rs does not know: Spark wrote it, and reads it
            found = None
        try:
            if found is None:
                frame = self._runtime.read_entity(entity_id)
                found = evaluate(check, SparkTable(self._spark, frame), command)
        except Exception as error:  # the write has succeeded; that it cannot be judged does not undo it
            return not_told(check, error, self._manifest.entities_by_id[entity_id])
        if check.name == SCHEMA and not found.passed:
            plan = {"kindling/migration_plan": self._migration_plan(entity_id, check)}
            found = replace(found, metadata={**found.metadata, **plan})
        return found

    def _migration_plan(self, entity_id: str, check: TableCheck) -> list[str]:
        try:
            lines = migration_lines(self._runtime, entity_id, self._declared_location(entity_id), check.made)
            return lines or ["Kindling's planner finds nothing to change"]
        except Exception as error:  # advice: the difference is told without it
            return [f"there is none: {type(error).__name__}: {error}"]

    def _without_spark(self, entity_id: str, outcome: PipeOutcome) -> DeltaFile | None:
        try:
            uri = str(outcome.metadata.get("uri") or "") or self._declared_location(entity_id)
            if uri is None or (local_path(uri) is None and not self._storage_options):
                return None
            return DeltaFile.open(uri, None if local_path(uri) is not None else self._storage_options)
        except Exception:  # Spark reads it then, and says what is wrong if it cannot either
            return None

    def _declared_location(self, entity_id: str) -> str | None:
        project = self._runtime.project
        return table_location(self._manifest.entities_by_id[entity_id], project.working_dir)


def _last_writers(plan: ExecutionPlan) -> dict[str, str]:
    ordered = [pipe_id for generation in plan.generations for pipe_id in generation]
    return {plan.writes[pipe_id]: pipe_id for pipe_id in ordered}


def _error(pipe_id: str, entity_id: str, found: Sequence[CheckOutcome]) -> PipeError | None:
    failed = [outcome for outcome in found if outcome.holds_back]
    if not failed:
        return None
    told = " ".join(f"{outcome.name}: {outcome.text}" for outcome in failed)
    return PipeError(
        pipe_id=pipe_id,
        type=ERROR,
        message=f"{entity_id} is written, but a blocking check of it failed. {told}",
        suggestion="What depends on it has not run. Mend the table or the pipe and run it again; "
        "nothing is undone by itself.",
    )


def _in_braced_text(name: str) -> str:
    return backticked(name).replace("{", "{{").replace("}", "}}")
