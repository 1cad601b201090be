"""Checks of real Delta tables, without Spark: by statistics, by a query, by the log."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import combinations, count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from delta_tables import backdate, delete_rows, write
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import entity, manifest

from kindling_dagster.manifest import Location, SecretRef
from kindling_dagster.streaming.dimensions.log import FileMark
from kindling_dagster.table_checks.declared import History, TableCheck
from kindling_dagster.table_checks.drift import find_drift, type_text
from kindling_dagster.table_checks.evaluation import TableChecker, evaluate
from kindling_dagster.table_checks.freshness import LastData, last_data_commit
from kindling_dagster.table_checks.outcome import CheckOutcome
from kindling_dagster.table_checks.tables import DeltaFile

ORDERS = pa.schema([("id", pa.int64()), ("Shop no", pa.string()), ("amount", pa.int64())])
KEYS = ("id", "shop NO")
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def check(name: str, **more: Any) -> TableCheck:
    return TableCheck("silver.orders", name, **{"keys": KEYS, **more})


def order(id_: int | None, shop: str | None, amount: int = 1) -> dict[str, Any]:
    return {"id": id_, "Shop no": shop, "amount": amount}


def outcome(path: Path, which: TableCheck) -> CheckOutcome:
    table = DeltaFile.open(str(path))
    assert table is not None
    return evaluate(which, table, "see it")


@pytest.mark.parametrize(
    ("commits", "nulls", "by"),
    [
        ([[order(1, "a"), order(2, "b")]], {}, "statistics"),
        ([[order(1, "a")], [order(2, "b")]], {}, "statistics"),
        ([[order(1, "a"), order(None, "b")], [order(None, None)]], {"id": 2, "Shop no": 1}, "query"),
    ],
)
@pytest.mark.parametrize("partitioned", [False, True])
def test_missing_keys(
    tmp_path: Path, commits: list[list[dict[str, Any]]], nulls: dict[str, int], by: str, partitioned: bool
) -> None:
    for rows in commits:
        write(tmp_path, rows, ORDERS, mode="append", partition_by=["Shop no"] if partitioned else None)
    found = outcome(tmp_path, check("merge_keys_not_null"))
    told = {
        name.removeprefix("kindling/nulls/"): value
        for name, value in found.metadata.items()
        if name.startswith("kindling/nulls/")
    }
    assert (found.passed, told) == (not nulls, nulls)
    assert by in found.metadata["kindling/answered_by"]


def test_an_empty_table_has_nothing_wrong(tmp_path: Path) -> None:
    write(tmp_path, [], ORDERS)
    for name in ("merge_keys_not_null", "merge_keys_unique"):
        assert outcome(tmp_path, check(name)).passed


def test_duplicates_are_counted_and_shown(tmp_path: Path) -> None:
    write(tmp_path, [order(1, "a"), order(1, "b"), order(2, "a"), order(None, "z")], ORDERS)
    assert outcome(tmp_path, check("merge_keys_unique")).passed
    write(tmp_path, [order(1, "a"), order(1, "a"), order(2, "a"), order(None, "z")], ORDERS, mode="append")
    found = outcome(tmp_path, check("merge_keys_unique"))
    assert (found.passed, found.severe) == (False, True)
    assert found.metadata["kindling/keys"] == 3
    assert (found.metadata["kindling/duplicate_keys"], found.metadata["kindling/surplus_rows"]) == (2, 3)
    assert found.metadata["kindling/examples"] == [
        {"id": 1, "Shop no": "a", "rows": 3},
        {"id": 2, "Shop no": "a", "rows": 2},
    ]
    assert "kindling/examples" not in outcome(tmp_path, check("merge_keys_unique", examples=0)).metadata


def test_deletion_vectors_are_heeded(tmp_path: Path) -> None:
    write(tmp_path, [order(1, "a"), order(2, "b"), order(2, "b"), order(None, "c")], ORDERS)
    assert not outcome(tmp_path, check("merge_keys_unique")).passed
    assert not outcome(tmp_path, check("merge_keys_not_null")).passed
    delete_rows(tmp_path, [2, 3])
    assert outcome(tmp_path, check("merge_keys_unique")).metadata["kindling/keys"] == 2
    assert outcome(tmp_path, check("merge_keys_unique")).passed
    assert outcome(tmp_path, check("merge_keys_not_null")).passed


# SCD2

VERSIONS = pa.schema(
    [
        ("id", pa.int64()),
        ("from", pa.timestamp("us", "UTC")),
        ("to", pa.timestamp("us", "UTC")),
        ("current", pa.bool_()),
    ]
)
HISTORY = check("scd2_history", keys=("id",), history=History("from", "to", "current"))
Version = tuple[int, int, "int | None", "bool | None"]


def versions(rows: list[Version]) -> list[dict[str, Any]]:
    def at(day: int | None) -> datetime | None:
        return None if day is None else START + timedelta(days=day)

    return [{"id": i, "from": at(f), "to": at(t), "current": c} for i, f, t, c in rows]


def broken(found: CheckOutcome) -> tuple[int, int, int]:
    return tuple(found.metadata[f"kindling/{name}"] for name in ("many_current", "overlaps", "backwards"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(1, 0, 1, False), (1, 1, None, True), (2, 0, None, True)], (0, 0, 0)),
        # deleted: no current row at all
        ([(1, 0, 1, False)], (0, 0, 0)),
        # an unchanged moment, and one that is no interval
        ([(1, 1, 1, False), (1, 1, None, True)], (0, 0, 0)),
        ([(1, 0, 9, False), (1, 3, 3, False)], (0, 0, 0)),
        ([(1, 0, 2, False), (1, 1, None, True)], (0, 1, 0)),
        ([(1, 0, None, True), (1, 1, None, True)], (1, 1, 0)),
        ([(1, 0, None, False), (1, 1, None, True)], (0, 1, 0)),
        ([(1, 0, 5, False), (1, 1, 2, False), (1, 5, None, True)], (0, 1, 0)),
        ([(1, 2, 1, False), (1, 2, None, True)], (0, 0, 1)),
        ([(1, 0, 1, None), (1, 1, None, True)], (0, 0, 0)),
    ],
)
def test_histories(tmp_path: Path, rows: list[Version], expected: tuple[int, int, int]) -> None:
    write(tmp_path, versions(rows), VERSIONS)
    found = outcome(tmp_path, HISTORY)
    assert (broken(found), found.passed) == (expected, expected == (0, 0, 0))
    shown = found.metadata.get("kindling/examples", [])
    assert [row["id"] for row in shown] == ([] if found.passed else [1])


_FOLDERS = count()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 2), st.integers(0, 4), st.none() | st.integers(0, 5), st.none() | st.booleans()
        ),
        max_size=7,
    )
)
def test_a_sound_history_is_one_that_is_sound_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Version]
) -> None:
    folder = tmp_path_factory.mktemp(f"history{next(_FOLDERS)}")
    write(folder, versions(rows), VERSIONS)
    lasting = [row for row in rows if row[2] is None or row[2] > row[1]]
    overlap = any(
        one[0] == other[0] and one[1] < (9 if other[2] is None else other[2])
        and other[1] < (9 if one[2] is None else one[2])
        for one, other in combinations(lasting, 2)
    )  # fmt: skip
    current = [row[0] for row in rows if row[3]]
    many, overlaps, backwards = broken(outcome(folder, HISTORY))
    assert many == sum(current.count(key) > 1 for key in set(current))
    assert (overlaps > 0) == overlap
    assert backwards == sum(row[2] is not None and row[2] < row[1] for row in rows)


# Schema


def column(name: str, type_: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, "nullable": True, "metadata": {}}


def struct(*fields: tuple[str, Any]) -> dict[str, Any]:
    return {"type": "struct", "fields": [column(*each) for each in fields]}


DECLARED = (column("id", "long"), column("name", "string"))


@pytest.mark.parametrize(
    ("live", "changes", "lines"),
    [
        (DECLARED, {}, []),
        ((column("NAME", "string"), column("ID", "long")), {}, []),
        ((column("id", "integer"),), {}, ["add columns: name", "id: int -> bigint"]),
        ((*DECLARED, column("more", "string")), {}, []),
        ((*DECLARED, column("more", "string")), {"evolves": False}, ["remove columns: more"]),
        (
            (*DECLARED, column("__Current", "boolean")),
            {"evolves": False, "made": frozenset({"__current"})},
            [],
        ),
        (DECLARED, {"partitions": ("name",)}, ["partition columns: [] -> ['name']"]),
        (DECLARED, {"partitions": None}, []),
        (
            (column("id", "long"), column("name", struct(("a", "long")))),
            {"schema": (column("id", "long"), column("name", struct(("a", "string"))))},
            ["name: struct<a:bigint> -> struct<a:string>"],
        ),
    ],
)
def test_drift(live: tuple[dict[str, Any], ...], changes: dict[str, Any], lines: list[str]) -> None:
    declared = check("schema_drift", **{"schema": DECLARED, "partitions": (), **changes})
    assert find_drift(declared, live, ()).lines() == lines


@pytest.mark.parametrize(
    ("spark_type", "text"),
    [
        ("long", "bigint"),
        ("decimal(10,2)", "decimal(10,2)"),
        ({"type": "array", "elementType": "integer", "containsNull": True}, "array<int>"),
        (
            {"type": "map", "keyType": "string", "valueType": "short", "valueContainsNull": False},
            "map<string,smallint>",
        ),
        ({"type": "udt", "sqlType": "byte"}, "tinyint"),
    ],
)
def test_types_as_spark_names_them(spark_type: object, text: str) -> None:
    assert type_text(spark_type) == text


def test_drift_warns_and_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, [order(1, "a")], ORDERS)
    declared = check(
        "schema_drift", schema=(column("id", "long"), column("when", "timestamp")), partitions=()
    )
    found = outcome(tmp_path, declared)
    assert (found.passed, found.severe) == (False, False)
    assert found.text == "The table is not as declared: add columns: when. see it"
    assert found.metadata["kindling/columns_not_declared"] == "Shop no, amount"
    assert outcome(tmp_path, replace(declared, blocking=True)).holds_back


# Whole entities


def checker(path: Path, **changes: Any) -> TableChecker:
    source = entity("raw.orders", location=Location("path", str(path)), **changes)
    return TableChecker(manifest(entities=(source,)), None)


def fresh(hours: float) -> TableCheck:
    return TableCheck("raw.orders", "source_freshness", max_age=timedelta(hours=hours))


def test_maintenance_makes_no_data_fresh(tmp_path: Path) -> None:
    for version in range(2):
        write(tmp_path, [order(1, "a")], ORDERS, mode="append")
        backdate(tmp_path, version, hours=2.5)
    DeltaTable(tmp_path).optimize.compact()
    late = checker(tmp_path).check(fresh(1))
    assert (late.passed, late.metadata["kindling/delta_version"]) == (False, 1)
    assert late.text == "The last data is 2.5 h old; 60 min is allowed."
    assert checker(tmp_path).check(fresh(3)).passed


class Commits:
    """A log of which only these commits are left."""

    def __init__(self, *operations: tuple[int, float, bool]) -> None:
        self._texts = {
            f"{version:020d}.json": json.dumps(
                {"commitInfo": {"timestamp": int(at * 1000), "operation": "X"}}
            ) + ("\n" + json.dumps({"remove": {"path": "a"}}) if data else "")
            for version, at, data in operations
        }  # fmt: skip

    def names(self) -> list[str]:
        return [*self._texts, "00000000000000000010.checkpoint.parquet"]

    def read(self, names: Sequence[str]) -> list[bytes]:
        return [self._texts[name].encode() for name in names]

    def marks(self, names: Sequence[str]) -> list[FileMark | None]:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("commits", "expected"),
    [
        ([(11, 100.0, True), (12, 200.0, False)], LastData(100.0, True, "the table's log", 11)),
        (
            [(version, float(version), version == 11) for version in range(11, 61)],
            LastData(11.0, True, "the table's log", 11),
        ),
        ([(11, 100.0, False), (12, 200.0, False)], LastData(100.0, False, "the table's log")),
    ],
)
def test_the_last_commit_of_data(commits: list[tuple[int, float, bool]], expected: LastData) -> None:
    assert last_data_commit(Commits(*commits), "here") == expected


def test_files_without_a_log_are_as_old_as_the_newest(tmp_path: Path) -> None:
    old, newer = tmp_path / "old.csv", tmp_path / "part" / "newer.csv"
    newer.parent.mkdir()
    for file, hours in ((old, 9), (newer, 3), (tmp_path / "_SUCCESS", 0)):
        file.write_text("x")
        os.utime(file, (time.time() - hours * 3600,) * 2)
    source = checker(tmp_path, provider="csv")
    assert source.check(fresh(4)).passed
    late = source.check(fresh(2))
    assert (late.passed, late.severe, late.metadata["kindling/age_hours"]) == (False, False, 3.0)
    assert late.text == "The last data is 3 h old; 2 h is allowed."


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (Location("path", "nowhere"), "at a relative path"),
        (Location("path", "/nowhere/at/all"), "There is no Delta table at /nowhere/at/all yet"),
        (Location("table", "lake.orders"), "known to Spark's catalog alone"),
        (Location("secret", "NOT_SET"), "the secret NOT_SET, which is not set"),
    ],
)
def test_what_cannot_be_read_is_a_warning_that_blocks_nothing(location: Location, message: str) -> None:
    made = manifest(entities=(entity("silver.orders", location=location),))
    found = TableChecker(made, None).check(check("merge_keys_unique", blocking=True))
    assert (found.passed, found.severe, found.holds_back) == (False, False, False)
    assert found.text.startswith("Could not be checked.")
    assert message in found.text


def test_a_table_without_the_keys_is_said(tmp_path: Path) -> None:
    write(tmp_path, [order(1, "a")], ORDERS)
    made = manifest(entities=(entity("silver.orders", location=Location("path", str(tmp_path))),))
    found = TableChecker(made, None).check(check("merge_keys_unique", keys=("id", "customer")))
    assert "has no column customer" in found.text


def test_a_secret_location_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIDDEN_PLACE", str(tmp_path / "hidden"))
    made = manifest(
        entities=(entity("silver.orders", location=Location("secret", "HIDDEN_PLACE")),),
        secrets=(SecretRef("HIDDEN_PLACE", "entity_tags.silver.orders.provider.path"),),
    )
    found = TableChecker(made, None).check(check("merge_keys_unique"))
    assert "There is no Delta table at" in found.text
    assert str(tmp_path) not in str(found)


def test_outcomes_are_json() -> None:
    made = CheckOutcome("a", True, "b", metadata={"n": 1}, blocking=True)
    assert CheckOutcome.from_data(made.to_data()) == made
