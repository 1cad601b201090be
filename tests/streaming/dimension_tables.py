"""Small Delta tables and dimensions over them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from kindling_dagster.streaming.dimensions.log import commit_name
from kindling_dagster.streaming.dimensions.model import Dimension, Method

ROWS = pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]})
DELTA_METHODS: dict[Method, tuple[str, ...]] = {
    "version": (),
    "row_count": (),
    "hash": (),
    "watermark": ("id",),
    "schema": (),
}


def dimension(table: Path, method: Method = "version", **changes: object) -> Dimension:
    made = Dimension("ref.planes", location=str(table), method=method, columns=DELTA_METHODS.get(method, ()))
    return replace(made, **changes)  # type: ignore[arg-type]


def append(table: Path, first: int = 10) -> None:
    write_deltalake(str(table), pa.table({"id": [first], "name": ["new"]}), mode="append")


def commit(table: Path, version: int, *actions: dict[str, object]) -> None:
    """Write a commit by hand."""
    text = "\n".join(json.dumps(action) for action in actions)
    (table / "_delta_log" / commit_name(version)).write_text(text)
