"""SCD2 tables: one current row per key, no overlap of validity, no end before its start. One query."""

from __future__ import annotations

from typing import Any, Final

from kindling_dagster.table_checks.declared import TableCheck
from kindling_dagster.table_checks.keys import (
    ANSWERED_BY,
    EXAMPLES,
    key_columns,
    key_names,
    named_keys,
    with_keys,
)
from kindling_dagster.table_checks.outcome import CheckOutcome
from kindling_dagster.table_checks.tables import CHECKED, Query, Quote, Table

_BROKEN: Final = {
    "many_current": "keys have more than one current row",
    "overlaps": "rows are still valid when the next row of their key begins",
    "backwards": "rows end before they start",
}


def check_history(check: TableCheck, table: Table) -> CheckOutcome:
    """Whether an SCD2 table's rows say of each key and each moment at most one thing.

    Raises:
        Exception: Whatever reading the table raises.
    """
    (row,) = table.rows(_totals(check))
    found = {name: int(row[name] or 0) for name in _BROKEN}
    broken = {name: count for name, count in found.items() if count}
    metadata: dict[str, Any] = {
        "kindling/keys": int(row["keys"] or 0),
        **{f"kindling/{name}": count for name, count in found.items()},
        ANSWERED_BY: f"a query ({table.reader})",
    }
    if broken and check.examples:
        metadata[EXAMPLES] = named_keys(check, table.rows(_broken_keys(check)))
    told = "; ".join(f"{count:,} {_BROKEN[name]}" for name, count in broken.items())
    return CheckOutcome(
        check.name,
        passed=not broken,
        severe=True,
        text=f"{told}." if broken else f"The history of {metadata['kindling/keys']:,} keys is sound.",
        metadata=metadata,
        blocking=check.blocking,
    )


def _by_key(check: TableCheck, quote: Quote) -> str:
    """What is wrong, counted by key.

    A row is valid from its start to before its end. Rows without any validity (that end as they start, or
    before) overlap with nothing, so that each of the others is held against the next of them.
    """
    history, keys = check.history, key_names(check.keys)
    assert history is not None
    rows = (
        f"SELECT {key_columns(check.keys, quote)}, {quote(history.start)} AS starts, "
        f"{quote(history.end)} AS ends, {quote(history.current)} AS current_row "
        f"FROM {CHECKED} WHERE {with_keys(check.keys, quote)}"
    )
    lasting = (
        f"SELECT {keys}, starts, ends, current_row, "
        f"CASE WHEN ends IS NULL OR ends > starts THEN 1 ELSE 0 END AS lasts FROM ({rows}) AS versions"
    )
    following = (
        f"SELECT {keys}, starts, ends, current_row, lasts, LEAD(starts) OVER "
        f"(PARTITION BY {keys}, lasts ORDER BY starts, ends NULLS LAST) AS next_starts FROM ({lasting}) AS judged"
    )
    return (
        f"SELECT {keys}, "
        "CASE WHEN SUM(CASE WHEN current_row THEN 1 ELSE 0 END) > 1 THEN 1 ELSE 0 END AS many_current, "
        "SUM(CASE WHEN lasts = 1 AND next_starts IS NOT NULL AND (ends IS NULL OR next_starts < ends) "
        "THEN 1 ELSE 0 END) AS overlaps, "
        "SUM(CASE WHEN ends < starts THEN 1 ELSE 0 END) AS backwards "
        f"FROM ({following}) AS ordered GROUP BY {keys}"
    )


def _totals(check: TableCheck) -> Query:
    sums = ", ".join(f"SUM({name}) AS {name}" for name in _BROKEN)
    return lambda quote: f"SELECT COUNT(*) AS keys, {sums} FROM ({_by_key(check, quote)}) AS by_key"


def _broken_keys(check: TableCheck) -> Query:
    keys = key_names(check.keys)
    wrong = " OR ".join(f"{name} > 0" for name in _BROKEN)
    return lambda quote: (
        f"SELECT {keys}, {', '.join(_BROKEN)} FROM ({_by_key(check, quote)}) AS by_key "
        f"WHERE {wrong} ORDER BY {keys} LIMIT {check.examples}"
    )
