"""Measures which running streams see that a dimension changed, on real Spark, and prints it as a Markdown table.

``python -m benchmarks.dimension_restarts`` prints it, with ``--write FILE`` it goes between the markers of a
page. The exit code is 1 where a change is not seen and the policy ``auto`` restarts no stream for it.

Each cell is one streaming query, joined with a table that has one row. The table is changed by delta-rs or
pyarrow, which know nothing of Spark, and one more row is streamed: it carries the table's new values or its
old ones, or the query has failed. Tables are read as Kindling reads them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from deltalake import write_deltalake

from kindling_dagster.spark import build_session
from kindling_dagster.streaming.dependencies import ReadKind, decide
from kindling_dagster.streaming.failures import facts_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

BEGIN = "<!-- measured: python -m benchmarks.dimension_restarts --write docs/dimensions.md -->"
END = "<!-- measured: end -->"

ChangeKind = Literal["data", "schema", "replaced"]
CHANGES: dict[str, ChangeKind] = {
    "rows are added": "data",
    "rows are replaced": "data",
    "a column is added": "schema",
    "the table is created anew": "replaced",
}


class Table:
    """A dimension of one row, ``k = 1, v = 'old'``, and the ways to change it; the new row says ``new``.

    Args:
        spark: The session, for tables of its catalog or its own.
        folder: Where the table may be.
    """

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark = spark
        self.path = folder / "dimension"
        self.name = f"dimension_{uuid.uuid4().hex}"
        self.put([1], "old")

    def put(self, keys: Sequence[int], value: str, *, column: bool = False) -> None:
        """Replace all rows; with ``column`` by ones that have one column more."""
        raise NotImplementedError

    def add(self, key: int, value: str) -> None:
        """Add a row."""
        self.put([1, key], value)

    def recreate(self) -> None:
        """Drop the table, and make another of that name or at that place."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.put([1, 2], "new")

    def change(self, what: str) -> None:
        """Change it in one of the ways of ``CHANGES``. Afterwards it has key 2, whose value is ``new``."""
        if what == "rows are added":
            self.add(2, "new")
        elif what == "rows are replaced":
            self.put([1, 2], "new")
        elif what == "a column is added":
            self.put([1, 2], "new", column=True)
        else:
            self.recreate()


def rows_of(keys: Sequence[int], value: str, column: bool) -> pa.Table:
    """Rows of the dimension."""
    columns = {"k": pa.array(keys, pa.int64()), "v": [value] * len(keys)}
    return pa.table({**columns, **({"extra": ["more"] * len(keys)} if column else {})})


class DeltaTable(Table):
    """Delta, written by delta-rs."""

    def put(self, keys: Sequence[int], value: str, *, column: bool = False) -> None:
        """See ``Table``."""
        write_deltalake(
            str(self.path),
            rows_of(keys, value, column),
            mode="overwrite",
            schema_mode="merge" if column else None,
        )

    def add(self, key: int, value: str) -> None:
        """See ``Table``."""
        write_deltalake(str(self.path), rows_of([key], value, False), mode="append")


class CatalogTable(DeltaTable):
    """Delta under a name of Spark's catalog; its rows are written by delta-rs all the same."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        super().__init__(spark, folder)
        self._register()

    def _register(self) -> None:
        self.spark.sql(f"CREATE TABLE {self.name} USING delta LOCATION '{self.path}'")

    def recreate(self) -> None:
        """See ``Table``."""
        self.spark.sql(f"DROP TABLE {self.name}")
        self.path = self.path.with_name("another")
        self.put([1, 2], "new")
        self._register()


class FilesTable(Table):
    """Plain files in a folder."""

    def __init__(self, spark: SparkSession, folder: Path, suffix: str) -> None:
        self._suffix = suffix
        super().__init__(spark, folder)

    def put(self, keys: Sequence[int], value: str, *, column: bool = False) -> None:
        """See ``Table``."""
        before = list(self.path.glob("*")) if self.path.exists() else []
        self._file(keys, value, column)
        for file in before:
            file.unlink()

    def add(self, key: int, value: str) -> None:
        """See ``Table``."""
        self._file([key], value, False)

    def _file(self, keys: Sequence[int], value: str, column: bool) -> None:
        self.path.mkdir(exist_ok=True)
        file = self.path / f"part-{uuid.uuid4().hex}.{self._suffix}"
        rows = rows_of(keys, value, column)
        if self._suffix == "csv":
            pyarrow.csv.write_csv(rows, file)
        else:
            pyarrow.parquet.write_table(rows, file)


class SessionTable(Table):
    """A view of the session over rows that it holds in memory, as Kindling's memory provider keeps them."""

    def put(self, keys: Sequence[int], value: str, *, column: bool = False) -> None:
        """See ``Table``."""
        rows = rows_of(keys, value, column)
        frame = self.spark.createDataFrame(
            [tuple(row.values()) for row in rows.to_pylist()], rows.schema.names
        )
        frame.createOrReplaceTempView(self.name)


Open = Callable[[Any], "DataFrame"]


def by_path(table: Table) -> DataFrame:
    """As Kindling's Delta provider reads by path."""
    from delta.tables import DeltaTable as SparkDeltaTable

    return SparkDeltaTable.forPath(table.spark, str(table.path)).toDF()


def collected(table: Table) -> DataFrame:
    """As a pipe does it that takes values into its own code."""
    rows = [tuple(row) for row in by_path(table).collect()]
    return table.spark.createDataFrame(rows, "k long, v string")


def by_view(table: Table) -> DataFrame:
    """As a view pipe makes it: a view of the session over what it reads."""
    name = f"view_of_{table.name}"
    by_path(table).createOrReplaceTempView(name)
    return table.spark.sql(f"SELECT * FROM {name}")


def broadcasted(table: Table) -> DataFrame:
    """With a hint."""
    from pyspark.sql.functions import broadcast

    return broadcast(by_path(table))


@dataclass(frozen=True)
class Read:
    """A way in which a stream reads a dimension: its name, for us, its table, and how it is opened."""

    name: str
    kind: ReadKind
    table: Callable[[Any, Path], Table]
    open: Open


READS: tuple[Read, ...] = (
    Read("Delta, by path", "delta", DeltaTable, by_path),
    Read(
        "Delta, by the name of a table",
        "delta",
        CatalogTable,
        lambda table: table.spark.read.table(table.name),
    ),
    Read("Delta, with a broadcast hint", "delta", DeltaTable, broadcasted),
    Read("Delta, cached by the pipe", "captured", DeltaTable, lambda table: by_path(table).cache()),
    Read("Delta, collected by the pipe", "captured", DeltaTable, collected),
    Read(
        "SQL entity over Delta",
        "delta",
        DeltaTable,
        lambda table: table.spark.sql(f"SELECT * FROM delta.`{table.path}`"),
    ),
    Read("view of the session over Delta", "delta", DeltaTable, by_view),
    Read(
        "Parquet files",
        "files",
        lambda spark, folder: FilesTable(spark, folder, "parquet"),
        lambda table: table.spark.read.format("parquet").load(str(table.path)),
    ),
    Read(
        "CSV files",
        "files",
        lambda spark, folder: FilesTable(spark, folder, "csv"),
        lambda table: table.spark.read.option("header", "true").csv(str(table.path)),
    ),
    Read(
        "table of the session (memory)", "memory", SessionTable, lambda table: table.spark.table(table.name)
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a stream whose dimension changed.

    Args:
        value: What the row that came afterwards carries: ``new``, ``old`` or nothing.
        error: Why the query failed; empty when it is up.
        columns: Whether it has the dimension's columns as they are now.
    """

    value: str = ""
    error: str = ""
    columns: bool = True

    @property
    def seen(self) -> bool:
        """Whether the change is seen without a restart."""
        return self.value == "new" and self.columns and not self.error

    def __str__(self) -> str:
        if self.error:
            return f"fails ({self.error})"
        rows = "new rows" if self.value == "new" else "old rows"
        return rows if self.columns else f"{rows}, old columns"


def measure(spark: SparkSession, read: Read, change: str) -> Outcome:
    """Start a query that joins with the dimension, change it, and see what the next row carries."""
    with tempfile.TemporaryDirectory(prefix="dimension-") as name:
        folder = Path(name)
        table = read.table(spark, folder)
        with streaming(spark, read.open(table), folder) as (land, rows, columns):
            land(1)
            [first] = rows()
            assert (first["k"], first["v"]) == (1, "old"), f"{read.name}: {first}"
            table.change(change)
            try:
                land(2)
            except Exception as error:  # whatever Spark says is the answer
                return Outcome(error=facts_of(error).name)
            value = next(row["v"] for row in rows() if row["k"] == 2)
            return Outcome(value or "", columns=change != "a column is added" or "extra" in columns)


@contextmanager
def streaming(
    spark: SparkSession, dimension: DataFrame, folder: Path
) -> Iterator[tuple[Callable[[int], None], Callable[[], Sequence[Any]], Sequence[str]]]:
    """A query over a Delta table, joined with the dimension: what lands a row, what it has given, its columns."""
    source = str(folder / "source")
    name = f"rows_{uuid.uuid4().hex}"

    def append(key: int | None) -> None:
        keys = pa.array([] if key is None else [key], pa.int64())
        write_deltalake(source, pa.table({"k": keys}), mode="append")

    append(None)
    joined = spark.readStream.format("delta").load(source).join(dimension, "k", "left")
    writer = joined.writeStream.format("memory").queryName(name)
    query = writer.option("checkpointLocation", str(folder / "checkpoint")).start()

    def land(key: int) -> None:
        append(key)
        query.processAllAvailable()

    try:
        yield land, lambda: spark.table(name).collect(), joined.columns
    finally:
        query.stop()


def markdown(outcomes: dict[str, dict[str, Outcome]]) -> str:
    """The table: a row for each way to read, a column for each change; bold where ``auto`` restarts the stream."""
    kinds = {read.name: read.kind for read in READS}
    lines = [
        f"| the dimension is read as | {' | '.join(CHANGES)} |",
        "|---" * (len(CHANGES) + 1) + "|",
    ]
    for name, found in outcomes.items():
        cells = [
            f"{outcome}: **restart**" if restarts(kinds[name], change) else str(outcome)
            for change, outcome in found.items()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def restarts(kind: ReadKind, change: str) -> bool:
    """Whether the policy ``auto`` restarts a stream for it."""
    return decide(CHANGES[change], "auto", kind).restart


def missed(outcomes: dict[str, dict[str, Outcome]]) -> list[str]:
    """Changes that a stream would never see."""
    kinds = {read.name: read.kind for read in READS}
    return [
        f"{name}: {change}: {outcome}"
        for name, found in outcomes.items()
        for change, outcome in found.items()
        if not outcome.seen and not restarts(kinds[name], change)
    ]


def between_markers(page: str, text: str) -> str:
    """The page with the text between its markers; raises ValueError where it has none."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all of it; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dimension_restarts", description=__doc__)
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the table between the markers of this page"
    )
    options = parser.parse_args(arguments)
    outcomes: dict[str, dict[str, Outcome]] = {}
    with tempfile.TemporaryDirectory(prefix="warehouse-") as warehouse:
        spark = build_session(
            {
                "spark.master": "local[2]",
                "spark.ui.enabled": "false",
                "spark.sql.shuffle.partitions": "1",
                "spark.sql.warehouse.dir": warehouse,
            }
        )
        try:
            for read in READS:
                outcomes[read.name] = {change: measure(spark, read, change) for change in CHANGES}
                told = "; ".join(f"{change}: {found}" for change, found in outcomes[read.name].items())
                print(f"{read.name}: {told}", file=sys.stderr, flush=True)
        finally:
            spark.stop()
    table = f"{markdown(outcomes)}\n\nMeasured with pyspark {version('pyspark')}, delta-spark {version('delta-spark')}."
    if options.write:
        options.write.write_text(
            between_markers(options.write.read_text(encoding="utf-8"), table), encoding="utf-8"
        )
    else:
        print(table)
    never = missed(outcomes)
    for line in never:
        print(f"not seen, and no restart: {line}", file=sys.stderr)
    return 1 if never else 0


if __name__ == "__main__":
    sys.exit(main())
