"""SCD2 tables: only what happens to current rows counts, and it is told how many and which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, write_deltalake

from kindling_dagster.streaming.dimensions.current_rows import changed_rows
from kindling_dagster.streaming.dimensions.look import look
from kindling_dagster.streaming.dimensions.model import KEYS_SHOWN, CurrentRows, Dimension

SINCE = datetime(2024, 1, 1, tzinfo=timezone.utc)
SCHEMA = pa.schema(
    [
        ("tail", pa.string()),
        ("maker", pa.string()),
        ("__effective_from", pa.timestamp("us", "UTC")),
        ("__effective_to", pa.timestamp("us", "UTC")),
        ("__is_current", pa.bool_()),
    ]
)


def rows(*planes: tuple[str, str, bool]) -> pa.Table:
    made = [
        {
            "tail": tail,
            "maker": maker,
            "__effective_from": SINCE,
            "__effective_to": None if current else SINCE,
            "__is_current": current,
        }
        for tail, maker, current in planes
    ]
    return pa.Table.from_pylist(made, SCHEMA)


@pytest.fixture
def planes(tmp_path: Path) -> Dimension:
    path = tmp_path / "planes"
    write_deltalake(str(path), rows(("N1", "Boeing", True), ("N2", "Airbus", True), ("N3", "Cessna", False)))
    return Dimension("ref.planes", location=str(path), method="scd2", keys=("tail",))


def change_maker(table: DeltaTable, tail: str, maker: str) -> None:
    """What Kindling's SCD2 merge does: close the current row, add another."""
    table.update(updates={"__is_current": "false"}, predicate=f"tail = '{tail}' and __is_current")
    write_deltalake(table.table_uri, rows((tail, maker, True)), mode="append", schema_mode="merge")


def touch_history(table: DeltaTable) -> None:
    table.update(updates={"maker": "'?'"}, predicate="not __is_current")


def reload_as_it_was(table: DeltaTable) -> None:
    later = datetime(2025, 1, 1, tzinfo=timezone.utc)
    fresh = rows(("N1", "Boeing", True), ("N2", "Airbus", True))
    fresh = fresh.set_column(2, "__effective_from", pa.array([later, later], SCHEMA.field(2).type))
    write_deltalake(table.table_uri, fresh, mode="overwrite")


CASES: list[tuple[str, Callable[[DeltaTable], object], tuple[int, int, int] | None]] = [
    ("a change", lambda t: change_maker(t, "N1", "Airbus"), (0, 0, 1)),
    ("a new one", lambda t: change_maker(t, "N9", "Piper"), (1, 0, 0)),
    (
        "a closed one",
        lambda t: t.update(updates={"__is_current": "false"}, predicate="tail = 'N2'"),
        (0, 1, 0),
    ),
    ("a deleted one", lambda t: t.delete("tail = 'N2'"), (0, 1, 0)),
    (
        "an untracked column in place",
        lambda t: t.update(updates={"maker": "'X'"}, predicate="tail='N1'"),
        (0, 0, 1),
    ),
    ("closed rows", touch_history, None),
    ("the same again", lambda t: change_maker(t, "N1", "Boeing"), None),
    ("a reload", reload_as_it_was, None),
    ("compact", lambda t: t.optimize.compact(), None),
]


@pytest.mark.parametrize(("name", "act", "counts"), CASES, ids=[name for name, *_ in CASES])
def test_what_counts(
    planes: Dimension, name: str, act: Callable[[DeltaTable], object], counts: tuple[int, int, int] | None
) -> None:
    seen = look(planes)
    act(DeltaTable(str(planes.location)))
    found = look(planes, seen.fingerprint)
    assert found.problem is None
    assert found.change == ("data" if counts else None)
    assert (found.new_count, found.closed_count, found.changed_count) == (counts or (None, None, None))


def test_names_keys_and_says_it_in_words(planes: Dimension) -> None:
    seen = look(planes)
    table = DeltaTable(str(planes.location))
    change_maker(table, "N1", "Airbus")
    change_maker(DeltaTable(table.table_uri), "N7", "Piper")
    found = look(planes, seen.fingerprint)
    assert found.keys is not None
    assert (found.keys.new, found.keys.closed, found.keys.changed) == ((("N7",),), (), (("N1",),))
    assert found.reason == "1 new, 0 closed, 1 changed current rows"
    assert (found.rows, found.operations) == (3, ("UPDATE", "WRITE"))


def test_keys_are_capped_and_counts_are_not(planes: Dimension) -> None:
    seen = look(planes)
    many = [(f"M{number:03}", "Piper", True) for number in range(KEYS_SHOWN + 30)]
    write_deltalake(str(planes.location), rows(*many), mode="append")
    found = look(planes, seen.fingerprint)
    assert found.keys is not None
    assert (found.new_count, len(found.keys.new)) == (KEYS_SHOWN + 30, KEYS_SHOWN)
    everything = changed_rows(planes, str(planes.location), before=0)
    assert len(everything.new) == KEYS_SHOWN + 30


def test_old_files_gone_leave_the_change_and_say_why_there_are_no_counts(planes: Dimension) -> None:
    seen = look(planes)
    table = DeltaTable(str(planes.location))
    change_maker(table, "N1", "Airbus")
    table = DeltaTable(table.table_uri)
    table.optimize.compact()
    table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    found = look(planes, seen.fingerprint)
    assert (found.change, found.new_count, found.problem) == ("data", None, None)
    assert "version 0 can no longer be read" in found.reason


def test_a_column_that_is_added_changes_no_row(planes: Dimension) -> None:
    seen = look(planes)
    DeltaTable(str(planes.location)).alter.add_columns([Field("seats", "integer")])
    change_maker(DeltaTable(str(planes.location)), "N1", "Airbus")
    found = look(planes, seen.fingerprint)
    assert (found.change, found.new_count, found.closed_count, found.changed_count) == ("schema", 0, 0, 1)
    assert found.reason == "added seats: integer; 0 new, 0 closed, 1 changed current rows"


def test_chosen_columns(planes: Dimension) -> None:
    watched = replace(planes, columns=("tail",))
    seen = look(watched)
    change_maker(DeltaTable(str(planes.location)), "N1", "Airbus")
    assert look(watched, seen.fingerprint).change is None


def test_other_names_of_bookkeeping_columns(tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    names = ["tail", "maker", "since", "until", "now"]
    write_deltalake(path, rows(("N1", "Boeing", True)).rename_columns(names))
    watched = Dimension(
        "ref.t",
        location=path,
        method="scd2",
        keys=("tail",),
        current_rows=CurrentRows("now", "since", "until"),
    )
    seen = look(watched)
    DeltaTable(path).update(updates={"since": "until"})
    assert look(watched, seen.fingerprint).change is None
    DeltaTable(path).update(updates={"maker": "'X'"})
    assert look(watched, seen.fingerprint).changed_count == 1


def test_a_table_that_is_not_scd2(tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    write_deltalake(path, pa.table({"tail": ["N1"]}))
    found = look(Dimension("ref.t", location=path, method="scd2", keys=("tail",)))
    assert found.problem is not None
    assert "there is no column __is_current" in found.problem.message
