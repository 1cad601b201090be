"""Writes rows of a stream's output anew that carry old values of a dimension: the pipe once, over what drove them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, Final

from kindling_dagster.engines.thread import SparkThread
from kindling_dagster.jvm_plans import nodes_above
from kindling_dagster.project import KindlingProject
from kindling_dagster.quoting import backticked
from kindling_dagster.runtime import KindlingRuntime
from kindling_dagster.spark import session_is_up
from kindling_dagster.streaming.conflicts import write_through_conflicts
from kindling_dagster.streaming.reprocessing import (
    Key,
    ReprocessError,
    ReprocessRequest,
    ReprocessResult,
    ReprocessScope,
    keys_of,
    refuse_columns,
    refuse_counts,
    refuse_plan,
    scope_of,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_DRIVING: Final = "kindling_dagster_driving"
_RANK: Final = "__kindling_dagster_rank"
_LOOK_SECONDS: Final = 0.5
_CANCEL_SECONDS: Final = 30.0


def reprocess_rows(
    project: KindlingProject,
    request: ReprocessRequest,
    create_session: Callable[[], SparkSession],
    *,
    dry_run: bool = True,
    run_id: str = "",
    storage_options: Mapping[str, str] | None = None,
) -> ReprocessResult:
    """Write the rows anew that carry old values of a dimension; a dry run counts them and writes nothing.

    The stream's pipe runs once, over those rows of its driving input that made them, with the dimension as
    it is now; what it gives is merged into the output as the stream does it. Only rows that the output has
    are written, none is added. The stream may run meanwhile, and the same request again changes nothing.
    Where no key has changed Spark is not started. A session that was not there before is stopped at the end.

    Args:
        project: The app.
        request: Which rows.
        create_session: Makes the Spark session, on a thread of its own.
        dry_run: Write nothing.
        run_id: Stands in the lineage of what is written.
        storage_options: How to read the dimension's log on object storage, as deltalake takes them.

    Raises:
        SelectionError: There is no such stream, or the dimension is none of its.
        ReprocessError: Which rows are affected cannot be known, there are too many, or they cannot be written anew.
        Exception: Whatever Kindling, the pipe or Spark raises; then nothing was written.

    Example::

        request = ReprocessRequest("silver.live", "ref.airlines", keys=("AA",))
        print(reprocess_rows(KindlingProject("demo"), request, build_session))
    """
    scope = scope_of(project.manifest, request)
    keys = keys_of(scope, project.working_dir, storage_options)
    if not keys:
        return _result(scope, 0, 0, written=False)
    group = f"kindling-dagster-{uuid.uuid4().hex}"
    started: list[SparkSession] = []

    def work() -> ReprocessResult:
        owned = not session_is_up()
        spark = create_session()
        started.append(spark)
        spark.sparkContext.setJobGroup(group, f"rows of {scope.output.id}", interruptOnCancel=True)
        try:
            with KindlingRuntime.start(project, spark) as runtime:
                return RowReprocessor(runtime, spark, run_id).run(scope, keys, write=not dry_run)
        finally:
            if owned:
                spark.stop()

    thread = SparkThread(f"rows of {scope.output.id}")
    future = thread.submit(work)
    thread.stop()
    try:
        # In short waits, which an interrupt can end.
        while not future.done():
            wait([future], _LOOK_SECONDS)
    except BaseException:
        canceller = SparkThread("cancel")
        for spark in started:
            canceller.submit(lambda spark=spark: spark.sparkContext.cancelJobGroup(group))  # type: ignore[misc]
        canceller.stop()
        wait([future], _CANCEL_SECONDS)
        raise
    return future.result()


class RowReprocessor:
    """Counts and writes rows anew in a started app; see ``reprocess_rows``.

    Args:
        runtime: The app.
        spark: Its session.
        run_id: Stands in the lineage of what is written.
    """

    def __init__(self, runtime: KindlingRuntime, spark: SparkSession, run_id: str = "") -> None:
        self._runtime = runtime
        self._spark = spark
        self._run_id = run_id

    def run(self, scope: ReprocessScope, keys: Sequence[Key], *, write: bool) -> ReprocessResult:
        """Find the affected rows, and write them anew where that is asked for.

        Raises:
            ReprocessError: They cannot be known or written.
            Exception: Whatever Kindling, the pipe or Spark raises.
        """
        began = time.monotonic()
        driving = self._driving(scope, keys)
        frame = self._enriched(scope, driving)
        rows = self._count(scope, driving)
        if write and rows:
            self._merge(scope, frame)
        return _result(scope, len(keys), rows, written=write and rows > 0, seconds=time.monotonic() - began)

    def _driving(self, scope: ReprocessScope, keys: Sequence[Key]) -> DataFrame:
        """Rows of the driving input that made rows of the output in which a changed key is."""
        from pyspark.sql.functions import broadcast

        driving = self._runtime.read_entity(scope.driving_id)
        refuse_columns(scope, driving.columns)
        changed = broadcast(self._keys(scope, driving, keys))
        names, merged = list(scope.driving_columns), list(scope.output.merge_columns)
        output = self._runtime.read_entity(scope.output.id)
        if scope.current:
            output = output.where(output[scope.current])
        # By the output's keys, not by the changed ones: a later row of the same key may have left them.
        touched = driving.join(changed, names, "left_semi").select(*merged).distinct()
        there = output.select(*merged).join(touched, merged, "left_semi")
        rows = driving.join(there, merged, "left_semi")
        if scope.request.latest_by:
            rows = _latest(rows, merged, scope.request.latest_by).join(changed, names, "left_semi")
        return rows.alias(_DRIVING)

    def _keys(self, scope: ReprocessScope, driving: DataFrame, keys: Sequence[Key]) -> DataFrame:
        """The changed keys, under the names and in the types of the driving input's columns."""
        kinds = {field.name: field.dataType.simpleString() for field in driving.schema.fields}
        names = {name: backticked(name) for name in scope.driving_columns}
        texts = self._spark.createDataFrame(
            list(keys), ", ".join(f"{name} string" for name in names.values())
        )
        return texts.selectExpr(
            *(f"try_cast({quoted} AS {kinds[name]}) AS {quoted}" for name, quoted in names.items())
        )

    def _enriched(self, scope: ReprocessScope, driving: DataFrame) -> DataFrame:
        """What the pipe makes of them, as the stream's starter has it made."""
        from kindling.surrogate_keys import apply_surrogate_keys

        self._runtime.lineage.begin(self._run_id)
        frames = {
            id_.replace(".", "_"): driving if id_ == scope.driving_id else self._runtime.read_entity(id_)
            for id_ in scope.pipe.input_entity_ids
        }
        frame = self._runtime.pipes.get_pipe_definition(scope.pipe.id).execute(**frames)
        if frame is None:
            raise ReprocessError(f"{scope.pipe.id} gives nothing to write for these rows.")
        refuse_plan(scope, nodes_above(frame, _DRIVING))
        return apply_surrogate_keys(frame, self._entity(scope))

    def _count(self, scope: ReprocessScope, driving: DataFrame) -> int:
        from pyspark.sql.functions import count
        from pyspark.sql.functions import sum as total

        groups = driving.groupBy(*scope.output.merge_columns).count()
        [found] = groups.agg(count("*").alias("rows"), total("count").alias("driving")).collect()
        refuse_counts(scope, found["rows"], found["driving"] or 0)
        return int(found["rows"])

    def _merge(self, scope: ReprocessScope, frame: DataFrame) -> None:
        entity = self._entity(scope)
        provider = self._runtime.providers.get_provider_for_entity(entity)
        with self._runtime.lineage.writing(scope.pipe.id):
            # Delta reads the output before it evaluates the frame, so a row that the stream merges in between
            # is a conflict, never overwritten by an older one.
            write_through_conflicts(lambda: provider.merge_to_entity(frame, entity), scope.output.id)

    def _entity(self, scope: ReprocessScope) -> Any:
        return self._runtime.entities.get_entity_definition(scope.output.id)


def _latest(rows: DataFrame, keys: Sequence[str], column: str) -> DataFrame:
    from pyspark.sql import Window
    from pyspark.sql.functions import col, row_number

    newest_first = Window.partitionBy(*keys).orderBy(col(column).desc_nulls_last())
    ranked = rows.withColumn(_RANK, row_number().over(newest_first))
    return ranked.where(col(_RANK) == 1).drop(_RANK)


def _result(
    scope: ReprocessScope, keys: int, rows: int, *, written: bool, seconds: float = 0.0
) -> ReprocessResult:
    return ReprocessResult(
        scope.pipe.id, scope.dimension.id, scope.output.id, keys, rows, written, round(seconds, 3)
    )
