"""Small Delta tables for checks, made without Spark."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

# Z85, in which Delta writes a deletion vector that stands in the log itself.
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_MAGIC = 1681511377


def write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema, **options: Any) -> None:
    """Write a commit of these rows."""
    write_deltalake(str(path), pa.Table.from_pylist(rows, schema=schema), **options)


def delete_rows(path: Path, positions: list[int]) -> None:
    """Mark rows of a table of one file and one commit as deleted by a deletion vector, as Spark does."""
    log = path / "_delta_log" / "00000000000000000000.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    vector = _vector(positions)
    for action in actions:
        if "protocol" in action:
            feature = ["deletionVectors"]
            action["protocol"] = {
                "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": feature, "writerFeatures": feature,
            }  # fmt: skip
        if "add" in action:
            action["add"]["deletionVector"] = {
                "storageType": "i",
                "pathOrInlineDv": _z85(vector),
                "sizeInBytes": len(vector),
                "cardinality": len(positions),
            }
    log.write_text("\n".join(map(json.dumps, actions)))


def backdate(path: Path, version: int, hours: float) -> None:
    """Have a commit be made that long ago."""
    log = path / "_delta_log" / f"{version:020d}.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "commitInfo" in action:
            action["commitInfo"]["timestamp"] = int((time.time() - hours * 3600) * 1000)
    log.write_text("\n".join(map(json.dumps, actions)))


def _vector(positions: list[int]) -> bytes:
    """A roaring bitmap with one array container, in the portable form that Delta's protocol describes."""
    head = struct.pack("<IQI", _MAGIC, 1, 0)
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(positions) - 1, 16)
    return head + bitmap + struct.pack(f"<{len(positions)}H", *sorted(positions))


def _z85(data: bytes) -> str:
    data += b"\0" * (-len(data) % 4)
    text = ""
    for start in range(0, len(data), 4):
        number = int.from_bytes(data[start : start + 4], "big")
        digits = ""
        for _ in range(5):
            number, digit = divmod(number, 85)
            digits = _Z85[digit] + digits
        text += digits
    return text
