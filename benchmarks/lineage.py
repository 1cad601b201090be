"""Version lineage: writing rows with it against without, bytes it adds, and auditing 10 million rows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deltalake import DeltaTable

from benchmarks.harness import Case
from kindling_dagster.lineage.audit import audit_table
from kindling_dagster.lineage.context import VersionedExecutionContext
from kindling_dagster.lineage.sql import version_adoption_report
from kindling_dagster.spark import build_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

WRITTEN_ROWS = 2_000_000
AUDITED_ROWS = 10_000_000
WRITE_GOAL = 1.05
BYTES_GOAL = 2.0


def stamped(version: str) -> Callable[[DataFrame], DataFrame]:
    """What a pipe with lineage does to its output."""
    context = VersionedExecutionContext({"silver.orders": ("benchmark", None)}, "run", version)
    return lambda frame: context.add_lineage_column(frame, "silver.orders", "silver")


def orders(spark: SparkSession, rows: int) -> DataFrame:
    """Rows as a fact table has them: keys, texts, numbers, times."""
    return spark.range(rows).selectExpr(
        "id",
        "concat('customer ', cast(hash(id) % 50000 as string)) as customer",
        "date_add(date'2025-01-01', cast(id % 365 as int)) as day",
        "cast(abs(hash(id, 1)) % 100000 as double) / 100 as amount",
        "cast(abs(hash(id, 2)) % 20 as int) as quantity",
        "concat_ws('-', 'sku', cast(abs(hash(id, 3)) % 3000 as string)) as item",
    )


def landed(spark: SparkSession, rows: int) -> DataFrame:
    """Rows as a bronze table has them: sixteen columns, some of few values, some of many."""
    return orders(spark, rows).selectExpr(
        "*",
        "concat('street ', cast(hash(id, 5) % 9000 as string)) as street",
        "concat('city ', cast(hash(id, 6) % 900 as string)) as city",
        "cast(abs(hash(id, 7)) % 100000 as double) / 100 as tax",
        "cast(abs(hash(id, 8)) % 100000 as double) / 100 as discount",
        "timestamp_seconds(1700000000 + abs(hash(id, 9)) % 30000000) as ordered_at",
        "timestamp_seconds(1700000000 + abs(hash(id, 10)) % 30000000) as shipped_at",
        "concat('status ', cast(abs(hash(id, 11)) % 5 as string)) as status",
        "cast(abs(hash(id, 12)) % 400 as int) as shop",
        "md5(cast(id as string)) as reference",
        "concat('promo ', cast(abs(hash(id, 13)) % 70 as string)) as promotion",
    )


def cleaned(bronze: DataFrame) -> DataFrame:
    """What a pipe does: a filter, and columns computed from others."""
    computed = bronze.where("quantity > 0").selectExpr(
        "*",
        "round(amount + tax, 2) as gross",
        "round(discount / (amount + 1), 4) as discount_share",
        "unix_timestamp(shipped_at) - unix_timestamp(ordered_at) as seconds_to_ship",
    )
    return computed.drop("tax", "discount")


def write(frame: DataFrame, path: Path) -> None:
    """Write a fresh table."""
    shutil.rmtree(path, ignore_errors=True)
    frame.write.format("delta").save(str(path))


def size(path: Path) -> int:
    """Bytes of a table's live files."""
    return sum(DeltaTable(str(path)).get_add_actions(flatten=True).column("size_bytes").to_pylist())


def cases() -> Iterator[Case]:
    """All cases, in one Spark session."""
    spark = build_session({"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2"})
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield from writing(spark, Path(folder))
            yield from auditing(spark, Path(folder))
    finally:
        spark.stop()


def writing(spark: SparkSession, folder: Path) -> Iterator[Case]:
    """Time and bytes of a write."""
    frame = orders(spark, WRITTEN_ROWS)
    plain, marked = folder / "plain", folder / "marked"
    yield Case(
        f"write {WRITTEN_ROWS:,} rows of 6 columns, made up while they are written",
        ours=lambda: write(stamped("1.0")(frame), marked),
        other=lambda: write(frame, plain),
        other_name="without lineage",
        goal=WRITE_GOAL,
        runs=7,
        warmups=2,
    )
    source, result = folder / "source", folder / "result"

    def pipe() -> DataFrame:
        return cleaned(spark.read.format("delta").load(str(source)))

    yield Case(
        f"a pipe over {WRITTEN_ROWS:,} rows of 16 columns: read, clean, write",
        ours=lambda: write(stamped("1.0")(pipe()), result),
        other=lambda: write(pipe(), result),
        other_name="without lineage",
        goal=WRITE_GOAL,
        setup=lambda: write(landed(spark, WRITTEN_ROWS), source),
    )
    yield Case(
        "bytes per row that lineage adds",
        ours=lambda: (size(marked) - size(plain)) / WRITTEN_ROWS,
        goal=BYTES_GOAL,
        units="bytes",
        runs=1,
        warmups=0,
    )


def auditing(spark: SparkSession, folder: Path) -> Iterator[Case]:
    """Which versions wrote the rows, by the log against a scan."""
    path = folder / "audited"
    for version in ("1.0", "1.1"):
        frame = stamped(version)(orders(spark, AUDITED_ROWS // 2))
        frame.write.format("delta").mode("append").save(str(path))

    def ours() -> None:
        found = audit_table(str(path), "silver")
        assert found.rows == AUDITED_ROWS
        assert found.files_read == 0

    def other() -> None:
        rows = spark.sql(version_adoption_report(str(path), layer="silver")).collect()
        assert sum(row["rows"] for row in rows) == AUDITED_ROWS

    yield Case(
        f"audit of {AUDITED_ROWS:,} rows",
        ours=ours,
        other=other,
        other_name="full scan by Spark, its session up and warm",
        better="at least",
    )
