"""What a pipe's write did to its table, told from the table's log. Runs in the pipe's own thread."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kindling_dagster.delta_log import (
    DeltaCommit,
    DeltaState,
    in_a_line,
    last_commits,
    local_path,
    read_state,
    row_metrics,
    table_version,
)
from kindling_dagster.jvm import default_filesystem, qualified
from kindling_dagster.lineage.commits import CommitLineage, commit_lineage, names_writer

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from kindling_dagster.runtime import KindlingRuntime

NO_TABLE = -1
"""Stands for the version of a table that does not exist yet."""

# A pipe makes a commit or two; more than these were made by others in the meantime.
_HISTORY_LIMIT = 50

# How far back to look for the commit of a pipe behind those of maintenance.
_LINEAGE_COMMITS = 10

# Where both Spark and deltalake read, by scheme.
_OBJECT_STORES = ("s3", "s3a", "abfs", "abfss", "gs")
# deltalake's own three minutes would hold up every pipe, since it keeps Python's lock while it waits.
PATIENCE = {"max_retries": "2", "timeout": "10s", "connect_timeout": "5s"}


class CommitReader:
    """Reads table versions before and after a pipe, from the log alone where it is within reach.

    Args:
        runtime: The app; knows where Kindling keeps an entity's table, secrets resolved.
        spark: For tables in a catalog and on storage that only Spark has credentials for.
        storage_options: Credentials for reading logs on object storage without Spark, as deltalake
            takes them; without any, Spark reads them.
        secret_places: Entities whose location is a secret: of what goes wrong there, only the kind is told.
    """

    def __init__(
        self,
        runtime: KindlingRuntime,
        spark: SparkSession,
        storage_options: Mapping[str, str] | None = None,
        secret_places: Collection[str] = (),
    ) -> None:
        self._runtime = runtime
        self._secret_places = frozenset(secret_places)
        self._spark = spark
        self._storage_options = {**PATIENCE, **storage_options} if storage_options else {}
        # By scheme and host: why logs there cannot be read without Spark, although there are options.
        self._unreadable: dict[str, str] = {}
        self._default_filesystem = ""
        # By entity: where its table was when ``version`` asked, which takes Spark jobs for those of a catalog.
        self._asked: dict[str, str | None] = {}
        # By URI: the last commits' userMetadata, where Spark has told it along with the version.
        self._told_by_spark: dict[str, list[str]] = {}

    def version(self, entity_id: str) -> int | None:
        """The table's latest version before a write; NO_TABLE when there is none, None when not Delta."""
        entity = self._delta_entity(entity_id)
        if entity is None:
            return None
        uri = self._asked[entity_id] = self._uri(entity)
        if uri is None:
            return NO_TABLE
        if self._within_reach(uri):
            try:
                version = table_version(uri, self._options_for(uri))
                return NO_TABLE if version is None else version
            except Exception as error:
                self._give_up(entity_id, uri, error)
        return self._spark_version(uri)

    def user_metadata(self, entity_id: str, version: int | None) -> list[str]:
        """What the table's last commits carry as ``userMetadata``, newest first.

        Args:
            entity_id: The entity.
            version: What ``version`` has just told of it.
        """
        if version is None or version == NO_TABLE:
            return []
        uri = self._asked.get(entity_id)
        if uri is None:
            return []
        if self._within_reach(uri):
            try:
                found = last_commits(uri, _LINEAGE_COMMITS, self._options_for(uri))
                return [commit.user_metadata for commit in found]
            except Exception as error:
                self._give_up(entity_id, uri, error)
        return self._told_by_spark.get(uri, [])

    def size(self, entity_id: str) -> int | None:
        """Bytes of a Delta entity's table, from its log; None where that needs Spark."""
        try:
            entity = self._delta_entity(entity_id)
            uri = None if entity is None else self._uri(entity)
            if uri is None or not self._within_reach(uri):
                return None
            state = read_state(uri, storage_options=self._options_for(uri))
        except Exception:
            # Only an estimate for advice on caching: the read itself will say what is wrong.
            return None
        return state.bytes if state else None

    def metadata(
        self, entity_id: str, before: int | None, writer: CommitLineage | None = None
    ) -> dict[str, Any]:
        """JSON about the writer's commits after version ``before``, and the table's totals.

        Holds ``version``, ``rows``, ``bytes``, ``files``, ``schema``, ``commits`` (newest first) and
        ``uri``; ``unavailable`` says which could not be had and why. Never raises: by now the write
        has succeeded, and a table that cannot be described is no reason to call it failed.

        Args:
            entity_id: The entity.
            before: What ``version`` told before the write.
            writer: Whose commits are meant; those of all when None.
        """
        if before is None:
            return {"unavailable": "only Delta tables tell rows and versions without a scan"}
        try:
            uri = self._uri(self._delta_entity(entity_id))
            if uri is None:
                return {"unavailable": "the table's location is not known"}
            if self._within_reach(uri):
                state = read_state(uri, since=before, storage_options=self._options_for(uri))
                if state is None:
                    return {"unavailable": f"no table at {uri}"}
                return {"uri": uri, **describe(state, writer)}
            return {"uri": uri, **self._spark_metadata(uri, before, writer)}
        except Exception as error:
            return {"unavailable": f"the table's log could not be read: {self._in_a_line(entity_id, error)}"}

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
        if local is None:
            return path
        if not urlsplit(path).scheme and not self._paths_are_local():
            return qualified(self._spark, path)
        # Relative paths count from the working directory, which is the app's while it runs.
        return str(local.absolute())

    def _paths_are_local(self) -> bool:
        """Whether a path without a scheme is one of this machine; on Hadoop clusters it is one of HDFS."""
        self._default_filesystem = self._default_filesystem or default_filesystem(self._spark)
        return self._default_filesystem.startswith("file:")

    def _within_reach(self, uri: str) -> bool:
        """Whether the log at ``uri`` can be read without Spark."""
        if local_path(uri) is not None:
            return True
        on_a_store = urlsplit(uri).scheme in _OBJECT_STORES
        return on_a_store and bool(self._storage_options) and _storage(uri) not in self._unreadable

    def _give_up(self, entity_id: str, uri: str, error: Exception) -> None:
        """Leave the logs of a store to Spark, and remember why; where Spark would fare no better, raise."""
        if local_path(uri) is not None:
            raise error
        self._unreadable[_storage(uri)] = self._in_a_line(entity_id, error)

    def _in_a_line(self, entity_id: str, error: Exception) -> str:
        return in_a_line(error, secret=entity_id if entity_id in self._secret_places else "")

    def _options_for(self, uri: str) -> Mapping[str, str] | None:
        return None if local_path(uri) is not None else self._storage_options

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
        rows = DeltaTable.forPath(self._spark, uri).history(_LINEAGE_COMMITS).collect()
        self._told_by_spark[uri] = [row["userMetadata"] or "" for row in rows]
        return int(rows[0]["version"])

    def _spark_metadata(self, uri: str, before: int, writer: CommitLineage | None) -> dict[str, Any]:
        from delta.tables import DeltaTable

        table = DeltaTable.forPath(self._spark, uri)
        rows = table.history(_HISTORY_LIMIT).filter(f"version > {before}").collect()
        detail = table.detail().first()
        commits = [
            DeltaCommit(
                row["version"],
                row["operation"],
                row["timestamp"].timestamp(),
                row_metrics(row["operationMetrics"] or {}),
                row["userMetadata"] or "",
            )
            for row in rows
        ]
        return {
            "version": commits[0].version if commits else before,
            "bytes": int(detail["sizeInBytes"]),
            "files": int(detail["numFiles"]),
            "schema": list(table.toDF().schema.jsonValue()["fields"]),
            "commits": [_describe_commit(commit) for commit in commits_of(writer, commits)],
            "unavailable": f"the total of rows needs a scan here: {self._why_spark(uri)}",
        }

    def _why_spark(self, uri: str) -> str:
        why = self._unreadable.get(_storage(uri))
        if why is not None:
            return f"the log is read through Spark, since the resource's storage_options did not do ({why})"
        if urlsplit(uri).scheme in _OBJECT_STORES:
            return "the log is read through Spark; storage_options on the resource make it readable without"
        return "the log is read through Spark"


def _storage(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"


def commits_of(writer: CommitLineage | None, commits: Iterable[DeltaCommit]) -> tuple[DeltaCommit, ...]:
    """Those of the commits that a writer made: others may have written the same table at the same time.

    They are known by what they carry as ``userMetadata``. Where none carries the writer's, because the app's
    settings or the user's own text leave it out, all those count that carry no other writer's.
    """
    if writer is None:
        return tuple(commits)
    found = tuple(commits)
    mine = tuple(item for item in found if names_writer(item.user_metadata, writer))
    return mine or tuple(item for item in found if commit_lineage(item.user_metadata, writer.entity) is None)


def describe(state: DeltaState, writer: CommitLineage | None = None) -> dict[str, Any]:
    """A table state as JSON, with the commits of a writer alone where one is given."""
    described: dict[str, Any] = {
        "version": state.version,
        "bytes": state.bytes,
        "files": state.files,
        "schema": [dict(column) for column in state.schema],
        "commits": [_describe_commit(commit) for commit in commits_of(writer, state.commits)],
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
