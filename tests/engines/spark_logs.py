"""Logs of Delta tables as Spark writes them, without Spark and without rows."""

from __future__ import annotations

import json
from pathlib import Path

Commit = tuple[str, str, dict[str, str]]
"""Operation, userMetadata, metrics."""

FILLED_METRICS = {"numFiles": "1", "numOutputRows": "3", "numOutputBytes": "900"}

COLUMN = {"name": "id", "type": "long", "nullable": True, "metadata": {}}
TABLE = (
    {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
    {
        "metaData": {
            "id": "7f3a9d51-0000-4000-8000-000000000000",
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps({"type": "struct", "fields": [COLUMN]}),
            "partitionColumns": [],
            "configuration": {},
            "createdTime": 0,
        }
    },
)


def write_log(table: Path, commits: list[Commit]) -> None:
    """Write the log of a table that is not there yet."""
    log = table / "_delta_log"
    log.mkdir(parents=True)
    for version, (operation, text, metrics) in enumerate(commits):
        info = {
            "timestamp": 1_700_000_000_000 + version,
            "operation": operation,
            "operationParameters": {},
            "operationMetrics": metrics,
            "userMetadata": text,
        }
        actions = [{"commitInfo": info}, *(TABLE if version == 0 else ())]
        (log / f"{version:020}.json").write_text("".join(f"{json.dumps(action)}\n" for action in actions))
