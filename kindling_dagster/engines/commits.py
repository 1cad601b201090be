"""What a pipe's write did to its table, told from the table's log. Runs in the pipe's own thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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

    from kindling_dagster.runtime import KindlingRuntime

NO_TABLE = -1
"""Stands for the version of a table that does not exist yet."""

# A pipe makes a commit or two; more than these were made by others in the meantime.
_HISTORY_LIMIT = 50


class CommitReader:
    """Reads table versions before and after a pipe, from the log alone where it is within reach.

    Args:
        runtime: The app; knows where Kindling keeps an entity's table, secrets resolved.
        spark: For tables in a catalog and on storage that only Spark has credentials for.
    """

    def __init__(self, runtime: KindlingRuntime, spark: SparkSession) -> None:
        self._runtime = runtime
        self._spark = spark

    def version(self, entity_id: str) -> int | None:
        """The table's latest version before a write; NO_TABLE when there is none, None when not Delta."""
        entity = self._delta_entity(entity_id)
        if entity is None:
            return None
        uri = self._uri(entity)
        if uri is None:
            return NO_TABLE
        if local_path(uri) is not None:
            version = table_version(uri)
            return NO_TABLE if version is None else version
        return self._spark_version(uri)

    def size(self, entity_id: str) -> int | None:
        """Bytes of a Delta entity's table on a local path, from its log; None where not known."""
        try:
            entity = self._delta_entity(entity_id)
            uri = None if entity is None else self._uri(entity)
            state = read_state(uri) if uri is not None and local_path(uri) is not None else None
        except Exception:
            # Only an estimate for advice on caching: the read itself will say what is wrong.
            return None
        return state.bytes if state else None

    def metadata(self, entity_id: str, before: int | None) -> dict[str, Any]:
        """JSON about the commits after version ``before``, and the table's totals.

        Holds ``version``, ``rows``, ``bytes``, ``files``, ``schema``, ``commits`` (newest first) and
        ``uri``; ``unavailable`` says which could not be had and why. Never raises: by now the write
        has succeeded, and a table that cannot be described is no reason to call it failed.
        """
        if before is None:
            return {"unavailable": "only Delta tables tell rows and versions without a scan"}
        try:
            uri = self._uri(self._delta_entity(entity_id))
            if uri is None:
                return {"unavailable": "the table's location is not known"}
            if local_path(uri) is not None:
                state = read_state(uri, since=before)
                return {"uri": uri, **describe(state)} if state else {"unavailable": f"no table at {uri}"}
            return {"uri": uri, **self._spark_metadata(uri, before)}
        except Exception as error:
            return {"unavailable": f"the table's log could not be read: {type(error).__name__}: {error}"}

    def _delta_entity(self, entity_id: str) -> Any:
        """Kindling's definition of a Delta entity; None for other providers."""
        entity = self._runtime.entities.get_entity_definition(entity_id)
        if entity is None or (entity.tags or {}).get("provider_type", "delta") != "delta":
            return None
        return entity

    def _uri(self, entity: Any) -> str | None:
        """Where the entity's table is; None for a catalog table that does not exist yet."""
        path: str
        if self._in_catalog(entity):
            name = self._runtime.table_name(entity)
            if not self._spark.catalog.tableExists(name):
                return None
            path = str(self._spark.sql(f"DESCRIBE DETAIL {name}").first()["location"])
        else:
            path = self._runtime.table_path(entity)
        local = local_path(path)
        # Relative paths count from the working directory, which is the app's while it runs.
        return path if local is None else str(local.absolute())

    def _in_catalog(self, entity: Any) -> bool:
        tags = entity.tags or {}
        mode = tags.get("provider.access_mode") or self._runtime.config.get(
            "kindling.delta.access_mode", None
        )
        return str(mode or "catalog").lower() == "catalog" and not tags.get("provider.path")

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
