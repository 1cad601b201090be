"""Which versions wrote a table's rows: from the Delta log's statistics where they decide, else from files. No JVM.

A file whose smallest and largest pipe, package and version are equal holds rows of that one writer, and
its count of nulls says how many rows have no lineage: no file needs to be opened for that. Only files that
mix writers, or that carry no statistics of the column, are read, and of these only the lineage column.
Which rows deletion vectors hide is told by Spark alone: such a table is counted there, where a session is up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from kindling_dagster.delta_log import may_hide_rows, open_table
from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.columns import lineage_column

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyspark.sql import SparkSession

_NAMES: Final = ("pipe", "package", "version")
_STATISTICS_LENGTH: Final = 32
"""Delta keeps the first 32 characters of a text in its statistics: longer ones may differ behind them."""


@dataclass(frozen=True)
class VersionCount:
    """What one version of one pipe wrote into a table.

    ``rows`` of it are in ``files`` files; all empty names stand for rows without lineage. ``stale_rows``
    and ``stale_files`` count what a check holds to be too old.
    """

    pipe: str
    package: str
    version: str
    rows: int
    files: int
    first_written: datetime | None = None
    last_written: datetime | None = None
    stale_rows: int = 0
    stale_files: int = 0

    @property
    def known(self) -> bool:
        """Whether these rows have lineage."""
        return bool(self.version)


@dataclass(frozen=True)
class TableLineage:
    """The versions in a table.

    Args:
        table_version: The Delta version looked at.
        layer: The layer whose column was looked at.
        counts: By version, most rows first.
        files: Files of the table.
        files_read: How many of them had to be opened.
    """

    table_version: int
    layer: str
    counts: tuple[VersionCount, ...]
    files: int
    files_read: int

    @property
    def rows(self) -> int:
        """All rows of the table."""
        return sum(count.rows for count in self.counts)

    @property
    def stale_rows(self) -> int:
        """Rows that are too old."""
        return sum(count.stale_rows for count in self.counts)

    @property
    def stale_files(self) -> int:
        """Files with such rows; one that mixes versions counts once for each."""
        return sum(count.stale_files for count in self.counts)

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions, that of the oldest row first."""
        known = [count for count in self.counts if count.known and count.first_written is not None]
        ordered = sorted(known, key=lambda count: count.first_written or datetime.min)
        return tuple(dict.fromkeys(count.version for count in ordered))


@dataclass(frozen=True)
class Staleness:
    """Which rows are too old: of another version than the current one, written before a moment.

    Args:
        current: The current version by pipe; rows of other pipes are judged by none and are not stale.
        before: Younger rows are let pass; None for all. With a time zone.
    """

    current: Mapping[str, str]
    before: datetime | None = None

    def concerns(self, pipe: str, version: str) -> bool:
        """Whether rows of this version can be stale at all."""
        return pipe in self.current and self.current[pipe] != version


def audit_table(
    uri: str,
    layer: str,
    *,
    stale: Staleness | None = None,
    storage_options: Mapping[str, str] | None = None,
    spark: SparkSession | None = None,
) -> TableLineage:
    """Count a table's rows by the version that wrote them.

    Args:
        uri: Path or URI of the Delta table.
        layer: The layer whose lineage column to look at.
        stale: Which rows to count as too old; none when None.
        storage_options: As deltalake takes them.
        spark: Counts the rows of a table with deletion vectors.

    Raises:
        LineageError: There is no table; or it has deletion vectors, and there is no session to count in.
        Exception: Whatever deltalake raises when the table is there but cannot be read.
    """
    table = open_table(uri, storage_options)
    if table is None:
        raise LineageError(f"There is no Delta table at {uri}.")
    column = lineage_column(layer)
    stale = stale or Staleness({})
    totals: dict[tuple[str, str, str], VersionCount] = {}
    has_column = column in {field.name for field in table.schema().fields}
    actions = _actions(table)
    # Which rows deletion vectors hide is not in the statistics.
    hidden = may_hide_rows(table)
    if hidden and spark is not None:
        from kindling_dagster.lineage.audit_in_spark import count_in_spark

        counted = count_in_spark(spark, uri, table.version(), column if has_column else None, stale)
        return TableLineage(table.version(), layer, _ordered(counted), len(actions), len(actions))
    unclear: set[str] = set()
    for action in actions:
        if hidden:
            unclear.add(str(action["path"]))
            continue
        counts = _from_statistics(action, column, stale) if has_column else _all_unknown(action)
        if counts is None:
            unclear.add(str(action["path"]))
        else:
            _add(totals, counts)
    for rows in _read(table, unclear, column):
        _add(totals, _from_rows(rows, stale))
    return TableLineage(table.version(), layer, _ordered(totals.values()), len(actions), len(unclear))


def _ordered(counts: Iterable[VersionCount]) -> tuple[VersionCount, ...]:
    return tuple(sorted(counts, key=lambda count: (-count.rows, count.pipe, count.version)))


def _actions(table: DeltaTable) -> list[dict[str, Any]]:
    found = table.get_add_actions(flatten=True)
    names = list(found.schema.names)
    columns = [found.column(name).to_pylist() for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _all_unknown(action: Mapping[str, Any]) -> list[VersionCount] | None:
    rows = _row_count(action)
    return None if rows is None else [VersionCount("", "", "", rows, 1)]


def _row_count(action: Mapping[str, Any]) -> int | None:
    rows = action.get("num_records")
    return None if rows is None else int(rows)


def _from_statistics(action: Mapping[str, Any], column: str, stale: Staleness) -> list[VersionCount] | None:
    """A file's counts; None where its statistics do not decide."""
    rows = _row_count(action)
    nulls = action.get(f"null_count.{column}.version")
    if rows is None or nulls is None:
        return None
    counts = [VersionCount("", "", "", int(nulls), 1)] if nulls else []
    known = rows - int(nulls)
    if not known:
        return counts
    least = [action.get(f"min.{column}.{name}") for name in _NAMES]
    most = [action.get(f"max.{column}.{name}") for name in _NAMES]
    if least != most or any(not value or len(value) >= _STATISTICS_LENGTH for value in least):
        return None
    first, last = (action.get(f"{end}.{column}.timestamp") for end in ("min", "max"))
    pipe, package, version = map(str, least)
    too_old = stale.concerns(pipe, version)
    if too_old and stale.before is not None:
        if first is None or last is None or first < stale.before <= last:
            return None
        too_old = last < stale.before
    counts.append(
        VersionCount(
            pipe, package, version, known, 1, first, last, known if too_old else 0, 1 if too_old else 0
        )
    )
    return counts


def _read(table: DeltaTable, paths: set[str], column: str) -> Iterator[list[dict[str, Any] | None]]:
    """The lineage values of each of these files."""
    if not paths:
        return
    try:
        dataset = table.to_pyarrow_dataset()
    except Exception as error:
        raise LineageError(
            f"Which rows of {table.table_uri} are live cannot be told without Spark: {error}",
            "Run the query of version_adoption_report in Spark, or compact the table.",
        ) from error
    # How a whole path begins differs between log and reader; by name first, for there may be many of both.
    wanted: dict[str, list[str]] = {}
    for path in map(unquote, paths):
        wanted.setdefault(_file_name(path), []).append(path)
    for fragment in dataset.get_fragments():
        if any(fragment.path.endswith(path) for path in wanted.get(_file_name(fragment.path), ())):
            # Columns that were added after a file was written are nulls in it.
            yield fragment.to_table(schema=dataset.schema, columns=[column])[column].to_pylist()


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def _from_rows(rows: Iterable[dict[str, Any] | None], stale: Staleness) -> list[VersionCount]:
    found: dict[tuple[str, str, str], VersionCount] = {}
    for row in rows:
        values = row or {}
        pipe, package, version = (str(values.get(name) or "") for name in _NAMES)
        written = values.get("timestamp")
        too_old = stale.concerns(pipe, version) and (
            stale.before is None or (written is not None and written < stale.before)
        )
        _add(
            found,
            [VersionCount(pipe, package, version, 1, 0, written, written, int(too_old), 0)],
        )
    return [replace(count, files=1, stale_files=1 if count.stale_rows else 0) for count in found.values()]


def _add(totals: dict[tuple[str, str, str], VersionCount], counts: Iterable[VersionCount]) -> None:
    for count in counts:
        key = (count.pipe, count.package, count.version)
        before = totals.get(key)
        totals[key] = count if before is None else _sum(before, count)


def _sum(one: VersionCount, other: VersionCount) -> VersionCount:
    return replace(
        one,
        rows=one.rows + other.rows,
        files=one.files + other.files,
        first_written=min(filter(None, (one.first_written, other.first_written)), default=None),
        last_written=max(filter(None, (one.last_written, other.last_written)), default=None),
        stale_rows=one.stale_rows + other.stale_rows,
        stale_files=one.stale_files + other.stale_files,
    )
