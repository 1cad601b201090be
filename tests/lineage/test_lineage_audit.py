"""Counting rows by version without Spark, against a count of all rows."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st
from lineage_tables import START, TYPE, Row, write

from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.audit import Staleness, TableLineage, audit_table


def counted(found: TableLineage) -> dict[tuple[str, str], int]:
    return {(count.pipe, count.version): count.rows for count in found.counts}


def test_files_of_one_version_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path, [("p", "1.0", 0)] * 3, [("p", "2.0", 1)] * 2, [None, ("p", "2.0", 2)])
    found = audit_table(str(tmp_path), "silver")
    assert counted(found) == {("p", "1.0"): 3, ("p", "2.0"): 3, ("", ""): 1}
    assert (found.files, found.files_read, found.rows, found.versions) == (3, 0, 7, ("1.0", "2.0"))


def test_files_that_mix_versions_are_read(tmp_path: Path) -> None:
    write(tmp_path, [("p", "1.0", 0), ("p", "2.0", 1)], [("p", "2.0", 1)])
    found = audit_table(str(tmp_path), "silver")
    assert counted(found) == {("p", "1.0"): 1, ("p", "2.0"): 2}
    assert found.files_read == 1


def test_files_are_found_whatever_stands_in_the_names_of_their_folders(tmp_path: Path) -> None:
    stamps = [
        {"pipe": "p", "package": "acme", "version": version, "timestamp": START, "run_id": ""}
        for version in ("1.0", "2.0") * 3
    ]
    regions = [region for region in ("a b", "x%y", "Côte d'Ivoire") for _ in range(2)]
    rows = pa.table({"_silver_lineage": pa.array(stamps, TYPE), "region": regions})
    write_deltalake(str(tmp_path), rows, partition_by=["region"])
    found = audit_table(str(tmp_path), "silver")
    assert counted(found) == {("p", "1.0"): 3, ("p", "2.0"): 3}
    assert found.files_read == 3


def test_long_versions_are_read_for_statistics_cut_them(tmp_path: Path) -> None:
    long = "git.0123456789ab.dirty.0123456789a"
    write(tmp_path, [("p", long + "b", 0), ("p", long + "c", 0)])
    found = audit_table(str(tmp_path), "silver")
    assert counted(found) == {("p", long + "b"): 1, ("p", long + "c"): 1}


def test_tables_and_files_from_before_lineage(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    write_deltalake(str(plain), pa.table({"id": [1, 2]}))
    assert counted(audit_table(str(plain), "silver")) == {("", ""): 2}
    stamps = pa.array(
        [{"pipe": "p", "package": "acme", "version": "1", "timestamp": START, "run_id": ""}], TYPE
    )
    write_deltalake(
        str(plain), pa.table({"id": [3], "_silver_lineage": stamps}), mode="append", schema_mode="merge"
    )
    assert counted(audit_table(str(plain), "silver")) == {("", ""): 2, ("p", "1"): 1}


def test_no_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(LineageError, match="no Delta table"):
        audit_table(str(tmp_path), "silver")


@pytest.mark.parametrize(
    ("current", "before", "rows", "files"),
    [
        ({"p": "2.0"}, None, 3, 2),
        ({"p": "2.0"}, START + timedelta(days=5), 2, 1),
        ({"p": "2.0"}, START, 0, 0),
        ({"q": "2.0"}, None, 0, 0),
        ({"p": "1.0"}, None, 1, 1),
    ],
)
def test_what_is_stale(
    tmp_path: Path, current: dict[str, str], before: datetime | None, rows: int, files: int
) -> None:
    write(tmp_path, [("p", "1.0", 0)] * 2, [("p", "1.0", 9)], [("p", "2.0", 9)])
    found = audit_table(str(tmp_path), "silver", stale=Staleness(current, before))
    assert (found.stale_rows, found.stale_files) == (rows, files)


row = st.one_of(
    st.none(),
    st.tuples(st.sampled_from(["p", "q"]), st.sampled_from(["1", "2", "x" * 33]), st.integers(0, 3)),
)
files = st.lists(st.lists(row, min_size=1, max_size=5), min_size=1, max_size=4)


@settings(max_examples=25)
@given(
    files, st.one_of(st.none(), st.integers(0, 4)), st.dictionaries(st.sampled_from(["p", "q"]), st.just("2"))
)
def test_counts_are_those_of_all_rows(
    written: list[list[Row]], day: int | None, current: dict[str, str]
) -> None:
    before = None if day is None else START + timedelta(days=day)
    with TemporaryDirectory() as folder:
        write(Path(folder), *written)
        found = audit_table(folder, "silver", stale=Staleness(current, before))
        read: list[Any] = DeltaTable(folder).to_pyarrow_table()["_silver_lineage"].to_pylist()
    stamps = [stamp or {} for stamp in read]
    assert counted(found) == Counter((stamp.get("pipe", ""), stamp.get("version", "")) for stamp in stamps)
    assert found.stale_rows == sum(
        stamp.get("pipe") in current
        and stamp["version"] != current[stamp["pipe"]]
        and (before is None or stamp["timestamp"] < before)
        for stamp in stamps
    )
