"""What column lineage and checks add to a batch pipe: milliseconds, on a session that is warm."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Case
from kindling_dagster.columns.collecting import trace_frame
from kindling_dagster.manifest import AppRef, EntitySpec, Location, Manifest
from kindling_dagster.spark import build_session
from kindling_dagster.table_checks.declared import NOT_NULL, SCHEMA, UNIQUE, DeclaredChecks, TableCheck
from kindling_dagster.table_checks.evaluation import evaluate
from kindling_dagster.table_checks.in_step import SparkTable
from kindling_dagster.table_checks.tables import DeltaFile, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = (10_000, 1_000_000)
REPEATED = 5


def cases() -> Iterator[Case]:
    """All cases, in one Spark session."""
    spark = build_session({"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2"})
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield from column_lineage(spark, Path(folder))
            yield from checks(spark, Path(folder))
    finally:
        spark.stop()


def column_lineage(spark: SparkSession, folder: Path) -> Iterator[Case]:
    """Tracing what a pipe writes."""
    _sales(spark, 1_000).write.format("delta").save(str(folder / "sales"))
    _sales(spark, 100).write.format("delta").save(str(folder / "shops"))

    def read(name: str) -> DataFrame:
        return spark.read.format("delta").load(str(folder / name))

    def plan(kind: str) -> tuple[DataFrame, tuple[tuple[str, DataFrame], ...]]:
        sales, shops = read("sales"), read("shops").withColumnRenamed("amount", "size")
        inputs = (("silver.sales", sales), ("ref.shops", shops))
        joined = sales.join(shops.select("id", "size"), "id")
        made = {
            "a select of eight columns": lambda: sales.selectExpr("*", "amount * 2 AS twice"),
            "a join and an aggregation": lambda: joined.groupBy("shop").agg({"amount": "sum", "size": "max"}),
            "a self-join": lambda: sales.alias("a").join(sales.alias("b"), "id").select("id", "a.amount"),
            "a join under 25 computed columns": lambda: _computed(joined, 25),
        }[kind]()
        return made, inputs

    for kind in (
        "a select of eight columns",
        "a join and an aggregation",
        "a self-join",
        "a join under 25 computed columns",
    ):

        def traced(kind: str = kind) -> float:
            # A plan for each: what has been asked of a frame once is kept in it.
            made = [plan(kind) for _ in range(REPEATED)]
            started = perf_counter()
            for frame, inputs in made:
                lineage = trace_frame(frame, inputs)
                assert lineage.columns
            return (perf_counter() - started) * 1_000 / REPEATED

        yield Case(f"column lineage of {kind}", ours=traced, units="ms", warmups=3)


def checks(spark: SparkSession, folder: Path) -> Iterator[Case]:
    """The checks of one table, each made anew."""
    for rows in ROWS:
        path = folder / f"checked_{rows}"
        frame = _sales(spark, rows)
        frame.write.format("delta").save(str(path))
        declared = _declared(frame)
        for by, names in (("delta-rs", (NOT_NULL, SCHEMA, UNIQUE)), ("Spark", (NOT_NULL, UNIQUE))):
            for name in names:

                def checked(path: Path = path, by: str = by, check: TableCheck = declared[name]) -> float:
                    started = perf_counter()
                    outcome = evaluate(check, _table(spark, path, by), "")
                    assert outcome.passed
                    return (perf_counter() - started) * 1_000

                yield Case(f"{name} of {rows:,} rows, by {by}", ours=checked, units="ms", warmups=2)


def _table(spark: SparkSession, path: Path, by: str) -> Table:
    if by == "Spark":
        return SparkTable(spark, spark.read.format("delta").load(str(path)))
    found = DeltaFile.open(str(path))
    assert found is not None
    return found


def _declared(frame: DataFrame) -> dict[str, TableCheck]:
    schema: dict[str, Any] = json.loads(frame.schema.json())
    entity = EntitySpec(
        "silver.sales",
        name="sales",
        provider="delta",
        location=Location("path", "sales"),
        layer="silver",
        merge_columns=("id", "shop"),
        schema=tuple(schema["fields"]),
    )
    app = AppRef(name="shop", environment="local", form="packages", recorded_by="recorder")
    found = DeclaredChecks(Manifest(app=app, entities=(entity,), pipes=())).of(entity.id)
    return {check.name: check for check in found}


def _sales(spark: SparkSession, rows: int) -> DataFrame:
    return spark.range(rows).selectExpr(
        "id",
        "concat('shop ', cast(id % 50 as string)) as shop",
        "date_add(date'2025-01-01', cast(id % 365 as int)) as day",
        "cast(abs(hash(id, 1)) % 100000 as double) / 100 as amount",
        "cast(abs(hash(id, 2)) % 20 as int) as quantity",
        "concat('customer ', cast(hash(id) % 50000 as string)) as customer",
        "concat_ws('-', 'sku', cast(abs(hash(id, 3)) % 3000 as string)) as item",
    )


def _computed(frame: DataFrame, columns: int) -> DataFrame:
    for number in range(columns):
        frame = frame.withColumn(f"c{number}", frame["amount"] * number + frame["size"])
    return frame
