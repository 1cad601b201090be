"""Counts rows by the version that wrote them in Spark: for tables whose log does not tell which rows are live."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from kindling_dagster.lineage.audit import Staleness, VersionCount

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_NAMES: Final = ("pipe", "package", "version")


def count_in_spark(
    spark: SparkSession, uri: str, table_version: int, column: str | None, stale: Staleness
) -> Sequence[VersionCount]:
    """A table's rows by version, counted by one query over the lineage column alone.

    Args:
        spark: A session.
        uri: Path or URI of the Delta table.
        table_version: The version of the table to look at.
        column: Its lineage column; None when it has none, and no row has lineage then.
        stale: Which rows are too old.
    """
    from pyspark.sql import functions as F  # noqa: N812  # as everybody calls it

    rows = spark.read.format("delta").option("versionAsOf", table_version).load(uri)
    # As numbers: how Python gets a timestamp depends on time zones.
    written = F.expr(f"unix_micros(`{column}`.`timestamp`)") if column else F.lit(None).cast("bigint")
    limit = None if stale.before is None else _micros(stale.before)
    old = F.lit(1) if limit is None else F.when(written < limit, 1).otherwise(0)
    by_file = rows.groupBy(
        F.col("_metadata.file_path").alias("file"), *(_text(column, name).alias(name) for name in _NAMES)
    ).agg(
        F.count("*").alias("rows"),
        F.sum(old).alias("old_rows"),
        F.min(written).alias("first"),
        F.max(written).alias("last"),
    )
    totals = by_file.groupBy(*_NAMES).agg(
        F.sum("rows").alias("rows"),
        F.count("*").alias("files"),
        F.sum("old_rows").alias("old_rows"),
        F.sum(F.when(F.col("old_rows") > 0, 1).otherwise(0)).alias("old_files"),
        F.min("first").alias("first"),
        F.max("last").alias("last"),
    )
    return [_count(row, stale) for row in totals.collect()]


def _text(column: str | None, name: str) -> Column:
    from pyspark.sql.functions import coalesce, col, lit

    return coalesce(col(f"`{column}`.`{name}`"), lit("")) if column else lit("")


def _count(row: Any, stale: Staleness) -> VersionCount:
    too_old = stale.concerns(row["pipe"], row["version"])
    return VersionCount(
        row["pipe"],
        row["package"],
        row["version"],
        int(row["rows"]),
        int(row["files"]),
        _moment(row["first"]),
        _moment(row["last"]),
        int(row["old_rows"]) if too_old else 0,
        int(row["old_files"]) if too_old else 0,
    )


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)
