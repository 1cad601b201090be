"""An app's pipes on small frames: called alone, or run through Kindling into tables that are thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kindling_dagster.dag.datapipes import run_datapipes_dag
from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.dag.results import ExecutionResult, PipeStatus
from kindling_dagster.errors import RunError, SelectionError
from kindling_dagster.manifest import EntitySpec
from kindling_dagster.project import KindlingProject
from kindling_dagster.runtime import KindlingRuntime
from kindling_dagster.spark import build_session, session_is_up

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Rows = Any
"""A list of dicts, a pandas DataFrame or a Spark DataFrame."""

_SMALL = {
    "spark.master": "local[1]",
    "spark.sql.shuffle.partitions": "1",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.ui.enabled": "false",
}
_WHOLE = frozenset({"byte", "short", "integer", "long"})
_IN_SESSION = frozenset({"memory", "view", "current_view"})
"""Providers that keep nothing outside the session: they are left as they are."""


@dataclass(frozen=True)
class RunOutcome(Mapping[str, list[dict[str, Any]]]):
    """What a run left: the rows of each entity that it wrote, by entity id.

    Args:
        tables: Rows by entity id, as dicts.
        result: What became of each pipe.
    """

    tables: Mapping[str, list[dict[str, Any]]] = field(repr=False)
    result: ExecutionResult

    def __getitem__(self, entity_id: str) -> list[dict[str, Any]]:
        return self.tables[entity_id]

    def __iter__(self) -> Any:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)

    def rows(self, entity_id: str, *columns: str) -> list[tuple[Any, ...]]:
        """Rows of an entity as sorted tuples of these columns, to be compared with a literal."""
        return sorted(tuple(row[column] for column in columns) for row in self.tables[entity_id])

    @property
    def statuses(self) -> dict[str, PipeStatus]:
        """What became of each pipe, by its id."""
        return {pipe_id: each.status for pipe_id, each in self.result.results.items()}


class PipeTester:
    """An app started in this process, its tables in a folder that is thrown away.

    One app at a time: Kindling keeps its state in the process. Starting Spark takes seconds, so make
    one for a module of tests, and call ``reset`` between tests.

    Args:
        app: The app: a project, its directory, its app.py or a package directory.
        environment: The environment whose settings apply, where ``app`` is no project.
        spark: The session to use. By default the one that is up, else a small local one, stopped at
            the end.

    Raises:
        ProjectError: The app cannot be loaded.
        ProjectMixError: Another app is started in this process.
        SparkSetupError: Spark does not start.

    Example::

        with PipeTester("path/to/app") as app:
            after = app.run({"bronze.orders": [{"id": 1, "amount": 5}, {"id": 2, "amount": 0}]})
            assert after.rows("silver.orders", "id") == [(1,)]
    """

    def __init__(
        self,
        app: KindlingProject | str | Path,
        *,
        environment: str = "local",
        spark: SparkSession | None = None,
    ) -> None:
        project = app if isinstance(app, KindlingProject) else KindlingProject(app, environment=environment)
        self.project = project
        self._owns_session = spark is None and not session_is_up()
        self._folder = tempfile.TemporaryDirectory(prefix="kindling_dagster_lake_")
        self._generation = 0
        self.spark: SparkSession = spark if spark is not None else build_session(_SMALL)
        try:
            self._runtime = KindlingRuntime.start(project, self.spark)
        except BaseException:
            self._stop_session()
            self._folder.cleanup()
            raise

    def call(self, pipe_id: str, inputs: Mapping[str, Rows]) -> DataFrame:
        """Call one pipe's function on these inputs; gives its frame. Nothing is written.

        Args:
            pipe_id: The pipe.
            inputs: Rows of each of its inputs, by entity id.

        Raises:
            SelectionError: There is no such pipe, or an input is missing.
            Exception: What the function raises.
        """
        pipe = self._runtime.pipes.get_pipe_definition(pipe_id)
        if pipe is None:
            known = ", ".join(sorted(self.project.manifest.pipes_by_id))
            raise SelectionError(f"There is no pipe {pipe_id!r}.", f"There are: {known}.")
        missing = [id_ for id_ in pipe.input_entity_ids or () if id_ not in inputs]
        if missing:
            raise SelectionError(
                f"The pipe {pipe_id} also reads {', '.join(missing)}.", "Give rows for each input."
            )
        frames = {id_.replace(".", "_"): self.frame(id_, inputs[id_]) for id_ in pipe.input_entity_ids or ()}
        made: DataFrame = pipe.execute(**frames)
        return made

    def run(
        self,
        inputs: Mapping[str, Rows] | None = None,
        pipes: Iterable[str] | None = None,
        *,
        raise_on_failure: bool = True,
        **options: Any,
    ) -> RunOutcome:
        """Run pipes through Kindling, as a step does: reads, merges, history and all.

        Tables stay from one call to the next, so that a second one shows what a merge makes of them.

        Args:
            inputs: Rows of entities, by entity id; each replaces what the entity had.
            pipes: Pipe ids; all batch pipes of the app when left out.
            raise_on_failure: Raise when a pipe does not succeed; otherwise ``statuses`` tells.
            **options: As ``run_datapipes_dag`` takes them: ``parallel``, ``mode``, ….

        Raises:
            SelectionError: A pipe or entity is not declared, or an input has no rows.
            RunError: A pipe did not succeed; names each.
        """
        given = dict(inputs or {})
        graph = PipeGraphBuilder(self.project.manifest).build_graph(
            tuple(pipes) if pipes is not None else self._batch_pipes()
        )
        tags = self._redirected(given)
        self._check_inputs(graph.external_inputs, given)
        for entity_id, rows in given.items():
            self._write(entity_id, rows)
        # Around all of it: planning, too, must see where entities are now.
        with self._runtime.entities.tag_overrides(tags):
            result = run_datapipes_dag(graph.pipe_ids, raise_on_failure=raise_on_failure, **options)
            pipes_by_id = self.project.manifest.pipes_by_id
            written = {
                pipes_by_id[pipe_id].output_entity_id
                for pipe_id, each in result.results.items()
                if each.status.ok
            }
            tables = {id_: self._read(id_) for id_ in sorted(written) if self._there(id_)}
        return RunOutcome(tables, result)

    def frame(self, entity_id: str, rows: Rows) -> DataFrame:
        """Rows as a frame with the entity's declared schema, where it has one: missing columns are null.

        Raises:
            SelectionError: The entity is not declared, or it has neither rows nor a schema.
        """
        entity = self._runtime.entities.get_entity_definition(entity_id)
        if entity is None:
            raise SelectionError(
                f"There is no entity {entity_id!r}.",
                f"There are: {', '.join(sorted(self.project.manifest.entities_by_id))}.",
            )
        if hasattr(rows, "sparkSession"):
            return rows
        plain = _plain(rows)
        if entity.schema is not None:
            _no_unknown_columns(entity_id, plain, entity.schema.names)
            types = {field.name: field.dataType.typeName() for field in entity.schema.fields}
            return self.spark.createDataFrame(
                [tuple(_fitting(row.get(name), kind) for name, kind in types.items()) for row in plain],
                entity.schema,
            )
        if not plain:
            raise SelectionError(
                f"The entity {entity_id} declares no schema, and there are no rows to tell it by.",
                "Give a Spark DataFrame, or at least one row.",
            )
        return self.spark.createDataFrame(plain)

    def reset(self) -> None:
        """Forget all tables."""
        self._generation += 1

    def close(self) -> None:
        """Close the app, remove the tables, and stop the session if it was started here. Can be called twice."""
        self._runtime.close()
        self._stop_session()
        self._folder.cleanup()

    def __enter__(self) -> PipeTester:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stop_session(self) -> None:
        if self._owns_session:
            self.spark.stop()
            self._owns_session = False

    def _batch_pipes(self) -> tuple[str, ...]:
        return tuple(pipe.id for pipe in self.project.manifest.pipes if not pipe.streaming)

    def _path(self, entity_id: str) -> Path:
        return Path(self._folder.name, str(self._generation), *entity_id.split("."))

    def _there(self, entity_id: str) -> bool:
        entity = self.project.manifest.entities_by_id[entity_id]
        return not self._stored(entity) or self._path(entity_id).exists()

    def _stored(self, entity: EntitySpec) -> bool:
        return entity.sql is None and entity.provider not in _IN_SESSION

    def _redirected(self, given: Mapping[str, Rows]) -> dict[str, dict[str, str]]:
        """Tags by which every table of the app lies in the folder, as Delta."""
        entities = self.project.manifest.entities
        chosen = [entity.id for entity in entities if self._stored(entity) or entity.id in given]
        return {
            entity_id: {
                "provider_type": "delta",
                "provider.path": str(self._path(entity_id)),
                "provider.access_mode": "storage",
            }
            for entity_id in chosen
        }

    def _write(self, entity_id: str, rows: Rows) -> None:
        (
            self.frame(entity_id, rows)
            .coalesce(1)
            .write.format("delta")
            .mode("overwrite")
            .option("overwriteSchema", "true")
            # As Kindling makes its tables: watermarks read the change feed.
            .option("delta.enableChangeDataFeed", "true")
            .save(str(self._path(entity_id)))
        )

    def _read(self, entity_id: str) -> list[dict[str, Any]]:
        return [row.asDict(recursive=True) for row in self._runtime.read_entity(entity_id).collect()]

    def _check_inputs(self, external: Mapping[str, Sequence[str]], given: Mapping[str, Rows]) -> None:
        missing = {
            table: readers
            for entity_id, readers in external.items()
            for table in self._tables_behind(entity_id)
            if table not in given and not self._path(table).exists()
        }
        if missing:
            told = "; ".join(f"{table} (read by {', '.join(readers)})" for table, readers in missing.items())
            raise SelectionError(
                f"There are no rows of {told}.", "Give them in inputs, or leave the pipe out."
            )

    def _tables_behind(self, entity_id: str) -> set[str]:
        """The stored entities that one reads: itself, or what its SQL or its companionship leads to."""
        entity = self.project.manifest.entities_by_id[entity_id]
        if entity.companion_of:
            return self._tables_behind(entity.companion_of)
        if entity.sql is not None:
            return {table for id_ in entity.sql_inputs for table in self._tables_behind(id_)}
        return {entity_id} if self._stored(entity) else set()


def _plain(rows: Rows) -> list[dict[str, Any]]:
    if hasattr(rows, "to_dict") and hasattr(rows, "notna"):  # pandas, which need not be installed
        rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
    if not isinstance(rows, Iterable) or isinstance(rows, str | bytes | Mapping):
        raise RunError(
            f"Rows are a list of dicts or a DataFrame, not a {type(rows).__name__}.",
            "Wrap a single row in a list.",
        )
    return [dict(row) for row in rows]


def _fitting(value: Any, kind: str) -> Any:
    """The value as Spark takes it; pandas makes floats of whole numbers where one is missing."""
    return int(value) if kind in _WHOLE and isinstance(value, float) and value.is_integer() else value


def _no_unknown_columns(entity_id: str, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    unknown = sorted({name for row in rows for name in row if name not in columns})
    if unknown:
        raise SelectionError(
            f"The entity {entity_id} declares no column {', '.join(unknown)}.",
            f"It has {', '.join(columns)}.",
        )
