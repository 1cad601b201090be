"""What a pipe's write did to its table, told from the table's log. Runs in the pipe's own thread."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kindling_dagster.delta_log import (
    DeltaCommit,
    DeltaState,
    local_path,
    read_state,
    row_metrics,
    table_version,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NO_TABLE = -1
"""Stands for the version of a table that does not exist yet."""

# A pipe makes a commit or two; more than these were made by others in the meantime.
_HISTORY_LIMIT = 50


class TableLocator(Protocol):
    """Where Kindling keeps an entity's table while it runs."""

    def delta_location(self, entity_id: str) -> tuple[str, str] | None:
        """``("path", path)`` or ``("table", name)`` of a Delta entity, secrets resolved; None for others."""


class CommitReader:
    """Reads table versions before and after a pipe, from the log alone where it is within reach.

    Args:
        locator: Finds an entity's table.
        spark: For tables in a catalog and on storage that only Spark has credentials for.
        working_dir: Where relative paths count from.
    """

    def __init__(self, locator: TableLocator, spark: SparkSession, working_dir: Path | None) -> None:
        self._locator = locator
        self._spark = spark
        self._working_dir = working_dir

    def version(self, entity_id: str) -> int | None:
        """The table's latest version before a write; NO_TABLE when there is none, None when not Delta."""
        location = self._locator.delta_location(entity_id)
        if location is None:
            return None
        uri = self._uri(location)
        if uri is None:
            return NO_TABLE
        if local_path(uri) is not None:
            version = table_version(uri)
            return NO_TABLE if version is None else version
        return self._spark_version(uri)

    def metadata(self, entity_id: str, before: int | None) -> dict[str, Any]:
        """JSON about the commits after version ``before``, and the table's totals.

        Holds ``version``, ``rows``, ``bytes``, ``files``, ``schema``, ``commits`` (newest first) and
        ``uri``; ``unavailable`` says which could not be had and why. Never raises: by now the write
        has succeeded, and a table that cannot be described is no reason to call it failed.
        """
        if before is None:
            return {"unavailable": "only Delta tables tell rows and versions without a scan"}
        try:
            location = self._locator.delta_location(entity_id)
            uri = self._uri(location) if location else None
            if uri is None:
                return {"unavailable": "the table's location is not known"}
            if local_path(uri) is not None:
                state = read_state(uri, since=before)
                return {"uri": uri, **describe(state)} if state else {"unavailable": f"no table at {uri}"}
            return {"uri": uri, **self._spark_metadata(uri, before)}
        except Exception as error:
            return {"unavailable": f"the table's log could not be read: {type(error).__name__}: {error}"}

    def _uri(self, location: tuple[str, str]) -> str | None:
        kind, value = location
        if kind == "table":
            if not self._spark.catalog.tableExists(value):
                return None
            value = str(self._spark.sql(f"DESCRIBE DETAIL {value}").first()["location"])
        path = local_path(value)
        if path is not None and not path.is_absolute() and self._working_dir is not None:
            return str(self._working_dir / path)
        return str(path) if path is not None else value

    def _spark_version(self, uri: str) -> int:
        from delta.tables import DeltaTable

        if not DeltaTable.isDeltaTable(self._spark, uri):
            return NO_TABLE
        return int(DeltaTable.forPath(self._spark, uri).history(1).first()["version"])

    def _spark_metadata(self, uri: str, before: int) -> dict[str, Any]:
        from delta.tables import DeltaTable

        table = DeltaTable.forPath(self._spark, uri)
        rows = table.history(_HISTORY_LIMIT).filter(f"version > {before}").collect()
        detail = table.detail().first()
        commits = [
            {
                "version": row["version"],
                "operation": row["operation"],
                "timestamp": row["timestamp"].timestamp(),
                "metrics": row_metrics(row["operationMetrics"] or {}),
            }
            for row in rows
        ]
        return {
            "version": commits[0]["version"] if commits else before,
            "bytes": int(detail["sizeInBytes"]),
            "files": int(detail["numFiles"]),
            "schema": list(table.toDF().schema.jsonValue()["fields"]),
            "commits": commits,
            "unavailable": "the total of rows needs a scan here: the log is read through Spark",
        }


def describe(state: DeltaState) -> dict[str, Any]:
    """A table state as JSON."""
    described: dict[str, Any] = {
        "version": state.version,
        "bytes": state.bytes,
        "files": state.files,
        "schema": [dict(column) for column in state.schema],
        "commits": [_describe_commit(commit) for commit in state.commits],
    }
    if state.rows is not None:
        described["rows"] = state.rows
    if state.unavailable:
        described["unavailable"] = state.unavailable
    return described


def _describe_commit(commit: DeltaCommit) -> Mapping[str, Any]:
    return {
        "version": commit.version,
        "operation": commit.operation,
        "timestamp": commit.timestamp,
        "metrics": dict(commit.metrics),
    }
