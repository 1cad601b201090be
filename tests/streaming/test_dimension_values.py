"""Rows and maxima from the log, and from the rows where the log cannot say."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from kindling_dagster.streaming.dimensions.values import ColumnError, Snapshot

DAY = datetime(2024, 1, 1, tzinfo=timezone.utc)


def at(microseconds: int) -> datetime:
    return DAY.replace(microsecond=microseconds)


CASES: dict[str, tuple[pa.DataType, list[list[Any]], Any]] = {
    "integers": (pa.int32(), [[3, 1], [2]], "3"),
    "longs below zero": (pa.int64(), [[-3], [-2]], "-2"),
    "dates": (pa.date32(), [[date(2024, 1, 2)], [date(2023, 1, 1)]], "2024-01-02"),
    "within a millisecond": (
        pa.timestamp("us", "UTC"),
        [[at(1_100)], [at(1_900)], [at(5)]],
        at(1_900).isoformat(),
    ),
    "strings alike at first": (
        pa.string(),
        [["x" * 40 + "1"], ["x" * 40 + "3", "x" * 40 + "2"]],
        "x" * 40 + "3",
    ),
    "decimals": (
        pa.decimal128(30, 2),
        [[Decimal("9007199254740993.25")], [Decimal("1.00")]],
        "9007199254740993.25",
    ),
    "floats with NaN": (pa.float64(), [[1.5, float("nan")], [0.5]], "1.5"),
    "booleans": (pa.bool_(), [[False], [True]], "1"),
    "nulls beside": (pa.int64(), [[None, 4], [None]], "4"),
    "only nulls": (pa.int64(), [[None], [None, None]], None),
    "no rows": (pa.int64(), [[]], None),
}


@pytest.mark.parametrize(("kind", "files", "expected"), CASES.values(), ids=CASES)
def test_maximum(tmp_path: Path, kind: pa.DataType, files: list[list[Any]], expected: Any) -> None:
    for values in files:
        write_deltalake(str(tmp_path), pa.table({"v": pa.array(values, kind)}), mode="append")
    assert Snapshot(str(tmp_path)).maximum("v") == expected


@pytest.mark.parametrize(
    ("kind", "reads"), [("int64", False), ("date32", False), ("string", True), ("timestamp", True)]
)
def test_reads_the_column_only_where_statistics_are_not_exact(
    tmp_path: Path, kind: str, reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "int64": pa.array([1]),
        "date32": pa.array([DAY.date()]),
        "string": pa.array(["a"]),
        "timestamp": pa.array([DAY]),
    }
    write_deltalake(str(tmp_path), pa.table({"v": values[kind]}))
    asked: list[tuple[Any, ...]] = []
    scan = Snapshot.scan

    def counting(self: Snapshot, *arguments: Any) -> Iterator[pa.RecordBatch]:
        asked.append(arguments)
        return scan(self, *arguments)

    monkeypatch.setattr(Snapshot, "scan", counting)
    Snapshot(str(tmp_path)).maximum("v")
    assert bool(asked) == reads


@pytest.mark.parametrize("column", ["a b", 'with "quotes"', "Größe", "select", "CamelCase"])
def test_any_name(tmp_path: Path, column: str) -> None:
    write_deltalake(str(tmp_path), pa.table({column: pa.array([at(1_100), at(1_200)])}))
    assert Snapshot(str(tmp_path)).maximum(column) == at(1_200).isoformat()


def test_files_without_statistics_are_counted_and_read(tmp_path: Path) -> None:
    configuration = {"delta.dataSkippingNumIndexedCols": "0"}
    for values in ([1, 2], [7]):
        write_deltalake(str(tmp_path), pa.table({"v": values}), mode="append", configuration=configuration)
    assert Snapshot(str(tmp_path)).maximum("v") == "7"
    assert Snapshot(str(tmp_path)).rows() == 3


def test_rows_without_any_count_in_the_log(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path), pa.table({"v": [1, 2, 3]}))
    commit = tmp_path / "_delta_log" / f"{0:020d}.json"
    text = commit.read_text()
    start = text.index('"stats":')
    commit.write_text(text[:start] + '"stats":null' + text[text.index('}"', start) + 2 :])
    assert DeltaTable(str(tmp_path)).get_add_actions().num_rows == 1
    assert Snapshot(str(tmp_path)).rows() == 3


Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def deletion_vector(rows: list[int]) -> dict[str, Any]:
    """A deletion vector as a commit holds it: a 64-bit roaring bitmap of one array container, in Z85."""
    array = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *rows)
    data = struct.pack("<IQI", 1681511377, 1, 0) + array
    text = ""
    for start in range(0, len(data), 4):
        value = int.from_bytes(data[start : start + 4].ljust(4, b"\0"), "big")
        text += "".join(Z85[value // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(rows)}


def test_rows_that_deletion_vectors_mark_do_not_count(tmp_path: Path) -> None:
    """As Spark deletes, and delta-rs does not."""
    write_deltalake(str(tmp_path), pa.table({"v": [1, 2, 3], "at": [at(1), at(2), at(3)]}))
    log = tmp_path / "_delta_log"
    actions = map(json.loads, (log / f"{0:020d}.json").read_text().splitlines())
    (added,) = (action["add"] for action in actions if "add" in action)
    feature = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    commit = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **feature}},
        {"remove": {"path": added["path"], "dataChange": True, "deletionTimestamp": 1}},
        {"add": {**added, "deletionVector": deletion_vector([2])}},
    ]
    (log / f"{1:020d}.json").write_text("\n".join(map(json.dumps, commit)))
    before, after = Snapshot(str(tmp_path), 0), Snapshot(str(tmp_path))
    assert (before.rows(), before.maximum("v"), before.maximum("at")) == (3, "3", at(3).isoformat())
    assert (after.rows(), after.maximum("v"), after.maximum("at")) == (2, "2", at(2).isoformat())
    assert after.digest().rows == 2
    assert after.digest() != before.digest()


def test_statistics_of_a_column_that_was_renamed_are_not_those_of_its_name(tmp_path: Path) -> None:
    """With column mapping, as Spark renames: the new ``v`` has no data, the old one is ``w`` now."""
    write_deltalake(str(tmp_path), pa.table({"v": [1, 2, 3]}))
    log = tmp_path / "_delta_log"
    actions = map(json.loads, (log / f"{0:020d}.json").read_text().splitlines())
    (metadata,) = (action["metaData"] for action in actions if "metaData" in action)
    fields = [
        {
            "name": name,
            "type": "long",
            "nullable": True,
            "metadata": {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": physical},
        }
        for number, (name, physical) in enumerate([("w", "v"), ("v", "col-2")], 1)
    ]
    metadata["schemaString"] = json.dumps({"type": "struct", "fields": fields})
    metadata["configuration"] = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "2"}
    commit = [{"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}, {"metaData": metadata}]
    (log / f"{1:020d}.json").write_text("\n".join(map(json.dumps, commit)))
    snapshot = Snapshot(str(tmp_path))
    assert (snapshot.maximum("v"), snapshot.maximum("w"), snapshot.rows()) == (None, "3", 3)
    assert snapshot.schema == ("w: long", "v: long")


@pytest.mark.parametrize("ask", ["maximum", "digest"])
def test_no_such_column(tmp_path: Path, ask: str) -> None:
    write_deltalake(str(tmp_path), pa.table({"v": [1]}))
    snapshot = Snapshot(str(tmp_path))
    with pytest.raises(ColumnError, match="there is no column w; there are v"):
        snapshot.maximum("w") if ask == "maximum" else snapshot.digest(["w"])
