"""Which rows differ between two versions of a table, the current ones of an SCD2 table; and their digest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kindling_dagster.streaming.dimensions.model import Dimension
from kindling_dagster.streaming.dimensions.rows import RowChanges, RowsDigest, compare_rows, digest_rows
from kindling_dagster.streaming.dimensions.values import Snapshot


def current_rows_digest(dimension: Dimension, snapshot: Snapshot) -> RowsDigest:
    """The digest of one version's current rows; raises ColumnError where a column is not there."""
    return digest_rows(snapshot.current_rows(dimension, snapshot.current_columns(dimension)))


def changed_rows(
    dimension: Dimension, location: str, before: int, after: int | Snapshot | None = None
) -> RowChanges:
    """The keys of all current rows that are new, closed or changed between two versions.

    Holds a digest for each current row in memory. A row that is closed and opened again with the same
    values has not changed: when a row holds is bookkeeping. Columns that only one version has do not count.

    Args:
        dimension: An SCD2 dimension with its keys.
        location: The table's path or URI.
        before: The earlier version.
        after: The later one, or the table as it is open; the newest when None.

    Raises:
        Exception: Whatever delta-rs raises, such as for a version whose files are gone.
    """
    options = dimension.storage_options
    later = after if isinstance(after, Snapshot) else Snapshot(location, after, options)
    earlier = Snapshot(location, before, options)
    known = earlier.current_columns(dimension)
    columns = [name for name in later.current_columns(dimension) if name in known]
    return compare_rows(
        earlier.current_rows(dimension, columns), later.current_rows(dimension, columns), dimension.keys
    )


def changed_keys(
    dimension: Dimension, location: str, before: int, keys: Sequence[str], after: int | None = None
) -> RowChanges:
    """The keys of all rows of a Delta table that are new, gone or changed between two versions.

    Of an SCD2 table (method ``scd2``) the current rows. Holds a digest for each row in memory.

    Args:
        dimension: The dimension.
        location: The table's path or URI.
        before: The earlier version.
        keys: The columns that make a key.
        after: The later version; the newest when None.

    Raises:
        ColumnError: A key column is not there.
        Exception: Whatever delta-rs raises, such as for a version whose files are gone.
    """
    if dimension.method == "scd2":
        return changed_rows(replace(dimension, keys=tuple(keys)), location, before, after)
    options = dimension.storage_options
    earlier, later = (Snapshot(location, version, options) for version in (before, after))
    known = earlier.columns(keys)
    columns = [name for name in later.columns(keys) if name in known]
    return compare_rows(earlier.scan(columns), later.scan(columns), keys)
