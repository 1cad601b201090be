"""Tables with lineage, made without Spark, and a manifest that declares them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, write_deltalake

from kindling_dagster.lineage.commits import CommitLineage, user_metadata
from kindling_dagster.manifest import AppRef, EntitySpec, Location, Manifest, PipeSpec

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
TYPE = pa.struct(
    [
        ("pipe", pa.string()),
        ("package", pa.string()),
        ("version", pa.string()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("run_id", pa.string()),
    ]
)
Row = tuple[str, str, int] | None
"""Pipe, version and the day it was written; None for a row without lineage."""


def write(uri: Path, *files: list[Row], entity: str = "", layer: str = "silver") -> None:
    """Append files of rows; with an entity, each commit says who wrote it, by the file's last row."""
    for rows in files:
        stamps = [None if row is None else stamp(*row) for row in rows]
        table = pa.table({"id": list(range(len(rows))), f"_{layer}_lineage": pa.array(stamps, TYPE)})
        last = rows[-1]
        said = (
            user_metadata([CommitLineage(last[0], entity, "acme", last[1], "run")]) if entity and last else ""
        )
        properties = CommitProperties(custom_metadata={"userMetadata": said}) if said else None
        write_deltalake(str(uri), table, mode="append", commit_properties=properties)


def stamp(pipe: str, version: str, day: int) -> dict[str, object]:
    return {
        "pipe": pipe,
        "package": "acme",
        "version": version,
        "timestamp": START + timedelta(days=day),
        "run_id": "run",
    }


def app_manifest(tables: Path | str) -> Manifest:
    """Two tables with lineage, one without."""
    return Manifest(
        AppRef("acme", "local", "scaffold", "recorder"),
        (
            EntitySpec(
                "silver.orders",
                "orders",
                "delta",
                Location("path", f"{tables}/orders"),
                layer="silver",
                merge_columns=("id",),
            ),
            EntitySpec("gold.totals", "totals", "delta", Location("path", f"{tables}/totals"), layer="gold"),
            EntitySpec("other", "other", "delta", Location("path", f"{tables}/other")),
        ),
        (
            PipeSpec("silver.clean", "clean", ("other",), "silver.orders"),
            PipeSpec("gold.total", "total", ("silver.orders",), "gold.totals"),
        ),
        settings={"kindling.lineage.enabled": True},
    )
