"""Merge keys: none missing, none twice. Missing ones by statistics where these tell, else by one query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kindling_dagster.table_checks.declared import TableCheck
from kindling_dagster.table_checks.outcome import CheckOutcome
from kindling_dagster.table_checks.tables import CHECKED, Query, Quote, Table

ANSWERED_BY: Final = "kindling/answered_by"
EXAMPLES: Final = "kindling/examples"
STATISTICS: Final = "statistics of the table's files"


def check_not_null(check: TableCheck, table: Table) -> CheckOutcome:
    """Whether all rows have all merge keys.

    Raises:
        Exception: Whatever reading the table raises.
    """
    counts = table.null_counts(check.keys)
    by = STATISTICS
    # Of rows that deletion vectors hide the statistics do not know: they may count too many nulls, never too few.
    if counts is None or any(counts.values()):
        (row,) = table.rows(_nulls(check.keys))
        counts = {key: int(row[f"n{number}"] or 0) for number, key in enumerate(check.keys)}
        by = f"a query ({table.reader})"
    missing = {key: count for key, count in counts.items() if count}
    told = ", ".join(f"{key} in {count:,}" for key, count in missing.items())
    return CheckOutcome(
        check.name,
        passed=not missing,
        severe=True,
        text=f"Rows without a merge key: {told}." if missing else "Every row has its merge keys.",
        metadata={**{f"kindling/nulls/{key}": count for key, count in missing.items()}, ANSWERED_BY: by},
        blocking=check.blocking,
    )


def check_unique(check: TableCheck, table: Table) -> CheckOutcome:
    """Whether no two rows have the same merge keys. Rows that lack one are left to the other check.

    Raises:
        Exception: Whatever reading the table raises.
    """
    (row,) = table.rows(_duplicates(check.keys))
    keys, rows = int(row["twice"] or 0), int(row["extra"] or 0)
    metadata: dict[str, Any] = {
        "kindling/keys": int(row["keys"] or 0),
        "kindling/duplicate_keys": keys,
        "kindling/surplus_rows": rows,
        ANSWERED_BY: f"a query ({table.reader})",
    }
    if keys and check.examples:
        metadata[EXAMPLES] = named_keys(check, table.rows(_duplicate_keys(check.keys, check.examples)))
    return CheckOutcome(
        check.name,
        passed=not keys,
        severe=True,
        text=f"{keys:,} keys have more than one row, {rows:,} rows too many."
        if keys
        else f"{metadata['kindling/keys']:,} keys, each once.",
        metadata=metadata,
        blocking=check.blocking,
    )


def key_columns(keys: tuple[str, ...], quote: Quote) -> str:
    """The merge keys as columns ``k0``, ``k1`` …"""
    return ", ".join(f"{quote(key)} AS k{number}" for number, key in enumerate(keys))


def key_names(keys: tuple[str, ...]) -> str:
    """``k0, k1 …``"""
    return ", ".join(f"k{number}" for number in range(len(keys)))


def with_keys(keys: tuple[str, ...], quote: Quote) -> str:
    """The condition that a row has all merge keys."""
    return " AND ".join(f"{quote(key)} IS NOT NULL" for key in keys)


def named_keys(check: TableCheck, rows: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of examples with the keys' own names; values as text."""
    names = {f"k{number}": key for number, key in enumerate(check.keys)}
    return [
        {
            names.get(name, name): value if isinstance(value, int | bool) else str(value)
            for name, value in row.items()
        }
        for row in rows
    ]


def _nulls(keys: tuple[str, ...]) -> Query:
    def query(quote: Quote) -> str:
        counts = ", ".join(
            f"SUM(CASE WHEN {quote(key)} IS NULL THEN 1 ELSE 0 END) AS n{number}"
            for number, key in enumerate(keys)
        )
        return f"SELECT {counts} FROM {CHECKED}"

    return query


def _grouped(keys: tuple[str, ...], quote: Quote) -> str:
    return (
        f"SELECT {key_names(keys)}, COUNT(*) AS held FROM "
        f"(SELECT {key_columns(keys, quote)} FROM {CHECKED} WHERE {with_keys(keys, quote)}) AS keyed "
        f"GROUP BY {key_names(keys)}"
    )


def _duplicates(keys: tuple[str, ...]) -> Query:
    return lambda quote: (
        "SELECT COUNT(*) AS keys, SUM(CASE WHEN held > 1 THEN 1 ELSE 0 END) AS twice, "
        f"SUM(held - 1) AS extra FROM ({_grouped(keys, quote)}) AS counted"
    )


def _duplicate_keys(keys: tuple[str, ...], limit: int) -> Query:
    return lambda quote: (
        f"SELECT {key_names(keys)}, held AS {quote('rows')} FROM ({_grouped(keys, quote)}) AS counted "
        f"WHERE held > 1 ORDER BY held DESC, {key_names(keys)} LIMIT {limit}"
    )
