"""A table that is checked, read without a JVM: log and statistics by deltalake, rows by its SQL engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from kindling_dagster.delta_log import open_table
from kindling_dagster.quoting import double_quoted

if TYPE_CHECKING:
    from deltalake import DeltaTable

Quote = Callable[[str], str]
Query = Callable[[Quote], str]
"""Makes the text of a query over the table ``checked`` from what quotes names."""

CHECKED = "checked"


class Table(Protocol):
    """What a check may ask of a table."""

    version: int | None
    """The Delta version looked at; None where it is not known."""
    reader: str
    """What reads its rows."""

    def fields(self) -> Sequence[Mapping[str, Any]]:
        """The columns, as Spark's JSON has them."""

    def partition_columns(self) -> tuple[str, ...] | None:
        """The partition columns; None where they are not known."""

    def null_counts(self, columns: Sequence[str]) -> dict[str, int] | None:
        """Nulls by column, from statistics, rows that were deleted since included; None where these do not tell."""

    def rows(self, query: Query) -> list[dict[str, Any]]:
        """The rows a query gives."""


class DeltaFile(Table):
    """A Delta table, through deltalake; deletion vectors are heeded where rows are read.

    Args:
        table: The table, opened.
    """

    reader = "delta-rs"

    def __init__(self, table: DeltaTable) -> None:
        self._table = table
        self.version = table.version()

    @staticmethod
    def open(uri: str, storage_options: Mapping[str, str] | None = None) -> DeltaFile | None:
        """The table at a path or URI; None when there is none.

        Raises:
            Exception: Whatever deltalake raises when the log is there but cannot be read.
        """
        table = open_table(uri, storage_options)
        return None if table is None else DeltaFile(table)

    def fields(self) -> Sequence[Mapping[str, Any]]:
        """The columns, as Spark's JSON has them."""
        found: list[Mapping[str, Any]] = json.loads(self._table.schema().to_json())["fields"]
        return found

    def partition_columns(self) -> tuple[str, ...] | None:
        """The partition columns."""
        return tuple(self._table.metadata().partition_columns)

    def null_counts(self, columns: Sequence[str]) -> dict[str, int] | None:
        """Nulls by column, by the files' statistics."""
        if self._table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
            return None  # statistics go by other names then
        actions = self._table.get_add_actions(flatten=True)
        names = set(actions.schema.names)
        partitions = set(self.partition_columns() or ())
        found: dict[str, int] = {}
        for column in columns:
            if not actions.num_rows:
                found[column] = 0
                continue
            source = f"partition.{column}" if column in partitions else f"null_count.{column}"
            if source not in names or "num_records" not in names:
                return None
            values = actions.column(source).to_pylist()
            rows = actions.column("num_records").to_pylist()
            if column in partitions:
                values = [count if value is None else 0 for value, count in zip(values, rows, strict=True)]
            if any(value is None for value in values):
                return None
            found[column] = sum(values)
        return found

    def rows(self, query: Query) -> list[dict[str, Any]]:
        """The rows a query gives; columns and filters are pushed down to the files."""
        import pyarrow as pa
        from deltalake import QueryBuilder

        builder = QueryBuilder().register(CHECKED, self._table)
        # Rows come in arrow's own form, which pyarrow takes without a copy.
        found: list[dict[str, Any]] = pa.table(builder.execute(query(double_quoted)).read_all()).to_pylist()
        return found
