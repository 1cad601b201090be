"""Gives a table's old rows a lineage column: in bounded steps that can be broken off and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from kindling_dagster.delta_log import open_table
from kindling_dagster.delta_rewrite import FileRewrite
from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.columns import lineage_column
from kindling_dagster.lineage.context import lineage_type
from kindling_dagster.quoting import backticked

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession

DEFAULT_CHUNK_BYTES: Final = 1024**3
_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class BackfillStep:
    """One commit of a backfill.

    Args:
        number: Which it is, from 1.
        files: Files it rewrote.
        rows: Rows that got their lineage.
        left: Files that are still to be looked at.
        version: The table's version after it.
    """

    number: int
    files: int
    rows: int
    left: int
    version: int


@dataclass(frozen=True)
class BackfillResult:
    """What a backfill did, or would do.

    Args:
        column: The lineage column.
        adds_column: Whether the table lacks the column, and got it.
        files: Files that hold rows without lineage.
        rows: Rows without lineage.
        steps: Its commits; none of a dry run.
    """

    column: str
    adds_column: bool
    files: int
    rows: int
    steps: tuple[BackfillStep, ...] = ()


def backfill_lineage(
    spark: SparkSession,
    table_path: str,
    layer: str,
    version: str,
    *,
    pipe: str = "",
    package: str = "",
    timestamp: datetime | None = None,
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    dry_run: bool = False,
    on_step: Callable[[BackfillStep], None] | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> BackfillResult:
    """Fill the lineage column of the rows that have none; the others are never touched.

    A table without the column gets it first, which readers see as a new column of nulls. Then files with
    such rows are rewritten, ``chunk_bytes`` at a time, one commit each, which says that no data changed: a
    stream that reads the table goes on, and the change feed stays silent. What was committed stays when
    the process ends in between; the next call goes on with what is left. (A stream that was running when
    the column was added ends once by Delta's rules and goes on from its checkpoint when started again.)

    Args:
        spark: The session.
        table_path: The Delta table's path or URI.
        layer: The layer whose column to fill.
        version: The version that is said to have written the rows.
        pipe: The pipe that is said to have written them.
        package: The package that is said to have written them.
        timestamp: When they are said to have been written, with a time zone; now when None.
        chunk_bytes: Bytes of files to rewrite in one commit; a larger file is a commit of its own.
        dry_run: Count, and change nothing.
        on_step: Called after each commit.
        storage_options: How to reach the log without Spark, as deltalake takes them.

    Raises:
        LineageError: There is no table, the version is empty, or the table has another column of that name.
        Py4JJavaError: Spark failed, or other writers kept changing the same files.
    """
    if not version.strip():
        raise LineageError("A backfill needs a version to write.", "Name the version that wrote the rows.")
    column = lineage_column(layer)
    adds_column = not _has_column(spark, table_path, column, storage_options)
    if adds_column and not dry_run:
        spark.sql(
            f"ALTER TABLE delta.{backticked(table_path)} "
            f"ADD COLUMNS ({backticked(column)} {lineage_type().simpleString()})"
        )
    todo = _files_without(table_path, column, storage_options)
    if dry_run:
        rows = _lacking(
            FileRewrite(spark, table_path), [name for name, _ in todo], None if adds_column else column
        )
        return BackfillResult(
            column, adds_column, sum(1 for count in rows.values() if count), sum(rows.values())
        )
    value = _value(pipe, package, version, timestamp or datetime.now(timezone.utc))
    steps: list[BackfillStep] = []
    chunks = list(_chunks(todo, chunk_bytes))
    left = len(todo)
    for chunk in chunks:
        left -= len(chunk)
        done = _rewrite(spark, table_path, chunk, column, value, len(steps) + 1, left)
        if done is not None:
            steps.append(done)
            if on_step is not None:
                on_step(done)
    files, rows_filled = sum(step.files for step in steps), sum(step.rows for step in steps)
    return BackfillResult(column, adds_column, files, rows_filled, tuple(steps))


def _has_column(
    spark: SparkSession, path: str, column: str, storage_options: Mapping[str, str] | None
) -> bool:
    if open_table(path, storage_options) is None:
        raise LineageError(f"There is no Delta table at {path}.")
    found = {field.name: field.dataType for field in spark.read.format("delta").load(path).schema.fields}
    if column not in found:
        return False
    if found[column].simpleString() != lineage_type().simpleString():
        raise LineageError(
            f"The table at {path} has a column {column} of type {found[column].simpleString()}.",
            f"Lineage is a {lineage_type().simpleString()}: rename that column, or choose other layer names.",
        )
    return True


def _files_without(
    path: str, column: str, storage_options: Mapping[str, str] | None
) -> list[tuple[str, int]]:
    """Names and bytes of the files that hold rows without lineage, or may do so, oldest first."""
    table = open_table(path, storage_options)
    if table is None:
        raise LineageError(f"There is no Delta table at {path}.")
    found = table.get_add_actions(flatten=True)
    names = list(found.schema.names)

    def values(name: str) -> list[Any]:
        return found.column(name).to_pylist() if name in names else [None] * found.num_rows

    rows = zip(
        values("modification_time"),
        values("path"),
        values("size_bytes"),
        values(f"null_count.{column}.version"),
        strict=True,
    )
    # No statistics of the column: the file is from before it, or has too many columns for them.
    return [
        (str(name), int(size)) for _, name, size, nulls in sorted(rows, key=lambda row: row[:2]) if nulls != 0
    ]


def _chunks(files: Sequence[tuple[str, int]], limit: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for name, length in files:
        if chunk and size + length > limit:
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
        size += length
    if chunk:
        yield chunk


def _rewrite(
    spark: SparkSession, path: str, chunk: Sequence[str], column: str, value: Column, number: int, left: int
) -> BackfillStep | None:
    """Rewrite those files of a chunk that are still there and lack lineage; None where none does."""
    from py4j.protocol import Py4JJavaError

    for attempt in range(1, _ATTEMPTS + 1):
        rewrite = FileRewrite(spark, path)
        present = set(rewrite.files)
        counts = _lacking(rewrite, [name for name in chunk if name in present], column)
        files = [name for name in chunk if counts.get(name.rsplit("/", 1)[-1])]
        if not files:
            return None
        try:
            version = rewrite.commit(files, _filled(rewrite, files, column, value))
        except Py4JJavaError as error:
            # Another writer was first with the same files: look again at what is left of them.
            if "Concurrent" not in str(error) or attempt == _ATTEMPTS:
                raise
            continue
        return BackfillStep(number, len(files), sum(counts.values()), left, version)
    return None


def _lacking(rewrite: FileRewrite, files: Sequence[str], column: str | None) -> dict[str, int]:
    """Rows without lineage by file name; all rows where the table has no such column yet."""
    from pyspark.sql.functions import col

    if not files:
        return {}
    rows = rewrite.rows_of(files)
    lacking = rows.where(col(column).isNull()) if column is not None else rows
    counted = lacking.groupBy(col("_metadata.file_name").alias("file")).count().collect()
    return {str(row["file"]): int(row["count"]) for row in counted}


def _filled(rewrite: FileRewrite, files: Sequence[str], column: str, value: Column) -> Any:
    from pyspark.sql.functions import coalesce, col

    return rewrite.rows_of(files).withColumn(column, coalesce(col(column), value))


def _value(pipe: str, package: str, version: str, timestamp: datetime) -> Column:
    from pyspark.sql.functions import lit, struct

    # With its offset in the text, so that the session's time zone does not change what it means.
    moment = timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=timezone.utc)
    return struct(
        lit(pipe).alias("pipe"),
        lit(package).alias("package"),
        lit(version).alias("version"),
        lit(moment.isoformat()).cast("timestamp").alias("timestamp"),
        lit("backfill").alias("run_id"),
    )
