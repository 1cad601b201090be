"""What the methods ask of one version of a Delta table: rows, the maximum of a column, contents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kindling_dagster.delta_log import local_path, may_hide_rows
from kindling_dagster.quoting import double_quoted
from kindling_dagster.streaming.dimensions.fingerprint import column_name, schema_columns
from kindling_dagster.streaming.dimensions.model import Dimension
from kindling_dagster.streaming.dimensions.rows import RowsDigest, digest_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

_EXACT = ("byte", "short", "integer", "long", "date")
"""Types whose maximum in a file's statistics is the column's: others are cut (strings at some length,
timestamps to the millisecond), rounded (decimals, written as JSON numbers), or leave NaN out (floats)."""


class ColumnError(Exception):
    """A column that the method needs is not there."""


class Snapshot:
    """One version of a Delta table.

    Args:
        location: Path or URI.
        version: Which version; the newest when None.
        storage_options: As delta-rs takes them.
    """

    def __init__(
        self, location: str, version: int | None = None, storage_options: Mapping[str, str] | None = None
    ) -> None:
        from deltalake import DeltaTable

        path = local_path(location)
        target = str(path.absolute()) if path is not None else location
        options = dict(storage_options) if storage_options else None
        self._table: DeltaTable = DeltaTable(target, version=version, storage_options=options)
        self.fields: Sequence[Mapping[str, Any]] = json.loads(self._table.schema().to_json())["fields"]

    @property
    def table(self) -> str:
        """The table's id."""
        return str(self._table.metadata().id)

    @property
    def schema(self) -> tuple[str, ...]:
        """The columns, as a fingerprint keeps them."""
        return schema_columns(self.fields)

    def rows(self) -> int:
        """How many rows the table has: from the log, or by counting where it cannot tell.

        It cannot where a file carries no statistics, and where deletion vectors may mark rows as deleted.
        """
        actions = self._actions()
        counts = actions.column("num_records").to_pylist() if "num_records" in actions.column_names else []
        if len(counts) == actions.num_rows and None not in counts and not self._rows_may_be_marked:
            return int(sum(counts))
        return sum(batch.num_rows for batch in self.scan(self._narrowest()))

    def maximum(self, column: str) -> str | None:
        """The largest value of a column as text; None when it has none. NaN does not count.

        From the files' statistics where they are exact; else the column is read, of a timestamp only from
        the files that may hold the maximum. With deletion vectors or mapped columns statistics are of no use:
        the row that has the maximum may be marked as deleted, the name may be another column's.

        Raises:
            ColumnError: There is no such column.
        """
        kind = self._type_of(column)
        actions = self._actions()
        if not actions.num_rows:
            return None
        unusable = self._rows_may_be_marked or self._columns_are_mapped
        largest = None if unusable else self._statistics(actions, column)
        if largest is not None and kind in _EXACT:
            return _text(max(largest)) if largest else None
        predicate = None
        if largest and kind == "timestamp":
            # Statistics are cut to milliseconds, so a file that holds the maximum has the largest of them.
            top = max(largest)
            assert isinstance(top, datetime)
            floor = top.astimezone(timezone.utc).replace(microsecond=top.microsecond // 1000 * 1000)
            predicate = f"{double_quoted(column)} >= '{floor.strftime('%Y-%m-%dT%H:%M:%S.%f')}Z'"
        return _largest(self.scan([column], predicate))

    def digest(self, columns: Sequence[str] = ()) -> RowsDigest:
        """The digest of all rows, of these columns or of all.

        Raises:
            ColumnError: One of the columns is not there.
        """
        return digest_rows(self.scan(self._existing(columns) if columns else None))

    def columns(self, needed: Sequence[str] = ()) -> list[str]:
        """The names of all columns.

        Raises:
            ColumnError: One of the needed ones is not among them.
        """
        self._existing(needed)
        return [column_name(text) for text in self.schema]

    def current_columns(self, dimension: Dimension) -> list[str]:
        """The columns of an SCD2 table whose values count: keys and chosen ones, else all but bookkeeping.

        Raises:
            ColumnError: The flag, a key or a chosen column is not there.
        """
        names = dimension.current_rows
        self._existing([names.current, *dimension.keys, *dimension.columns])
        if dimension.columns:
            return [*dict.fromkeys([*dimension.keys, *dimension.columns])]
        bookkeeping = (names.current, names.effective_from, names.effective_to)
        return [name for name in map(column_name, self.schema) if name not in bookkeeping]

    def current_rows(self, dimension: Dimension, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """These columns of the current rows of an SCD2 table."""
        return self.scan(columns, f"{double_quoted(dimension.current_rows.current)} = true")

    def scan(
        self, columns: Sequence[str] | None = None, predicate: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows, batch by batch."""
        import pyarrow as pa
        from deltalake import QueryBuilder

        # By a query, since it reads tables with deletion vectors and mapped columns, other than datasets do.
        wanted = ", ".join(map(double_quoted, columns or [item["name"] for item in self.fields]))
        where = f" WHERE {predicate}" if predicate else ""
        reader = QueryBuilder().register("t", self._table).execute(f"SELECT {wanted} FROM t{where}")
        yield from pa.RecordBatchReader.from_stream(reader)

    def _actions(self) -> Any:
        import pyarrow as pa

        return pa.table(self._table.get_add_actions(flatten=True))

    def _statistics(self, actions: Any, column: str) -> list[Any] | None:
        """Each file's maximum, files whose values are all null left out; None unless every file has said."""
        nulls, top = f"null_count.{column}", f"max.{column}"
        if (
            top not in actions.column_names
            or nulls not in actions.column_names
            or "num_records" not in actions.column_names
        ):
            return None
        found = []
        rows = zip(
            actions.column("num_records").to_pylist(),
            actions.column(nulls).to_pylist(),
            actions.column(top).to_pylist(),
            strict=True,
        )
        for count, empty, value in rows:
            if value is not None:
                found.append(value)
            elif count is None or empty is None or count != empty:
                return None
        return found

    @cached_property
    def _rows_may_be_marked(self) -> bool:
        """Whether deletion vectors may hide rows: the add actions that delta-rs gives do not tell of them."""
        return may_hide_rows(self._table)

    @property
    def _columns_are_mapped(self) -> bool:
        """Whether statistics go by other names than columns do: one's may be another's after a rename."""
        return str(self._table.metadata().configuration.get("delta.columnMapping.mode") or "none") != "none"

    def _type_of(self, column: str) -> str:
        self._existing([column])
        kind = next(item["type"] for item in self.fields if item["name"] == column)
        return kind if isinstance(kind, str) else str(kind.get("type"))

    def _existing(self, columns: Sequence[str]) -> Sequence[str]:
        known = [item["name"] for item in self.fields]
        missing = [name for name in columns if name not in known]
        if missing:
            raise ColumnError(f"there is no column {', '.join(missing)}; there are {', '.join(known)}")
        return columns

    def _narrowest(self) -> list[str]:
        """One column that is cheap to read; nested ones only when there is no other."""
        flat = [item["name"] for item in self.fields if item["type"] in _EXACT]
        return [flat[0] if flat else self.fields[0]["name"]]


def _largest(batches: Iterator[pa.RecordBatch]) -> str | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    largest: Any = None
    for batch in batches:
        column = batch.column(0)
        if pa.types.is_floating(column.type):
            column = column.filter(pc.invert(pc.is_nan(column)))
        if pa.types.is_boolean(column.type):
            column = pc.cast(column, pa.int8())
        if pa.types.is_string_view(column.type):
            column = pc.cast(column, pa.string())
        value = pc.max(column).as_py()
        if value is not None and (largest is None or value > largest):
            largest = value
    return None if largest is None else _text(largest)


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
