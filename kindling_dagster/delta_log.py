"""What a Delta table's log says of its last commits: versions, rows, bytes, files, schema. No JVM, no scan."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from deltalake import DeltaTable

# How the operation metrics of a commit name rows, by operation family; from Delta's protocol and
# `DeltaOperations.scala`: writes count what they put out, merges what they did to the target.
_ROW_METRICS = {
    "rows_inserted": ("numTargetRowsInserted",),
    "rows_updated": ("numTargetRowsUpdated", "numUpdatedRows"),
    "rows_deleted": ("numTargetRowsDeleted", "numDeletedRows"),
    "rows_written": ("numOutputRows",),
}

# What deltalake's errors have for people at a terminal, over many lines.
_DECORATION = re.compile(r"\x1b\[\d+m|\u21b3")
_LONGEST_LINE = 600


def in_a_line(error: Exception, *, secret: str = "") -> str:
    """An error of deltalake, or of the storage below it, in one line of 600 characters at most.

    Args:
        error: The error.
        secret: Id of the entity, where its location is a secret: then the kind of error alone is told, for storages
            spell a place in ways that no mask knows.
    """
    kind = type(error).__name__
    if secret:
        return f"{kind} (the rest is left out: the location of {secret} is a secret)"
    return one_line(f"{kind}: {error}")


def one_line(text: str) -> str:
    """A text without what is for terminals, in one line of 600 characters at most."""
    return " ".join(_DECORATION.sub(" ", text).split())[:_LONGEST_LINE]


@dataclass(frozen=True)
class DeltaCommit:
    """One commit: table version, operation (``WRITE``, ``MERGE`` …), Unix seconds, its metrics in rows."""

    version: int
    operation: str
    timestamp: float
    metrics: Mapping[str, int] = field(default_factory=dict)
    user_metadata: str = ""


@dataclass(frozen=True)
class DeltaState:
    """A table as its log tells: latest version, totals and schema.

    ``rows`` is None where some file carries no row count; ``unavailable`` says why then. ``schema``
    holds Spark's JSON fields, ``commits`` those asked for, newest first.
    """

    version: int
    rows: int | None
    bytes: int
    files: int
    schema: tuple[Mapping[str, Any], ...]
    commits: tuple[DeltaCommit, ...] = ()
    unavailable: str = ""


def local_path(uri: str) -> Path | None:
    """The local path behind a URI or path; None for remote storage."""
    scheme = urlsplit(uri).scheme
    if scheme == "file":
        return Path(urlsplit(uri).path)
    # A single letter is a Windows drive, not a scheme.
    return None if len(scheme) > 1 else Path(uri)


def table_version(uri: str, storage_options: Mapping[str, str] | None = None) -> int | None:
    """The latest version of the Delta table at ``uri``; None when there is no table yet.

    Raises:
        Exception: Whatever deltalake raises when the log is there but cannot be read.
    """
    table = open_table(uri, storage_options)
    return None if table is None else table.version()


def last_commits(
    uri: str, limit: int | None, storage_options: Mapping[str, str] | None = None
) -> tuple[DeltaCommit, ...]:
    """The last ``limit`` commits (all when None) of the table at ``uri``, newest first; none where there is no table.

    Raises:
        Exception: Whatever deltalake raises when the log is there but cannot be read.
    """
    table = open_table(uri, storage_options)
    return () if table is None else tuple(map(_commit, table.history(limit)))


def read_state(
    uri: str, *, since: int | None = None, storage_options: Mapping[str, str] | None = None
) -> DeltaState | None:
    """The table's state, with the commits after version ``since`` (none when it is None).

    Args:
        uri: Path or URI of the table.
        since: The version before the write one is asking about; -1 for a table that did not exist.
        storage_options: As deltalake takes them.

    Returns:
        None when there is no Delta table at ``uri``.

    Raises:
        Exception: Whatever deltalake raises when the log is there but cannot be read.
    """
    table = open_table(uri, storage_options)
    if table is None:
        return None
    version = table.version()
    commits: tuple[DeltaCommit, ...] = ()
    if since is not None and version > since:
        commits = tuple(_commit(entry) for entry in table.history(version - since))
    rows, size, files, why = _totals(table)
    schema = tuple(json.loads(table.schema().to_json())["fields"])
    return DeltaState(version, rows, size, files, schema, commits, why)


def open_table(uri: str, storage_options: Mapping[str, str] | None = None) -> DeltaTable | None:
    """The Delta table at a path or URI, opened by deltalake; None when there is none.

    Raises:
        Exception: Whatever deltalake raises when the log is there but cannot be read.
    """
    from deltalake import DeltaTable

    path = local_path(uri)
    target = str(path.absolute()) if path is not None else uri
    options = dict(storage_options) if storage_options else None
    if not DeltaTable.is_deltatable(target, options):
        return None
    return DeltaTable(target, storage_options=options)


def row_metrics(operation_metrics: Mapping[str, Any]) -> dict[str, int]:
    """Row counts from a commit's operation metrics: ``rows_inserted``, ``_updated``, ``_deleted``, ``_written``."""
    metrics = {
        name: int(operation_metrics[key])
        for name, keys in _ROW_METRICS.items()
        for key in keys
        if _is_count(operation_metrics.get(key))
    }
    if "rows_inserted" in metrics:
        # A merge's numOutputRows also counts rows it only copied into rewritten files.
        metrics.pop("rows_written", None)
    return metrics


def _commit(entry: Mapping[str, Any]) -> DeltaCommit:
    return DeltaCommit(
        version=int(entry["version"]),
        operation=str(entry.get("operation", "")),
        timestamp=float(entry.get("timestamp", 0)) / 1000,
        metrics=row_metrics(entry.get("operationMetrics") or {}),
        user_metadata=str(entry.get("userMetadata") or ""),
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and value.isdigit())


def may_hide_rows(table: DeltaTable) -> bool:
    """Whether deletion vectors may mark rows of files as deleted: the actions deltalake gives do not tell of them."""
    return "deletionVectors" in (table.protocol().reader_features or ())


def _totals(table: DeltaTable) -> tuple[int | None, int, int, str]:
    """Rows, bytes and files of the latest version, and why there are no rows if there are none."""
    actions = table.get_add_actions(flatten=True)
    names = list(actions.schema.names)
    size = sum(actions.column("size_bytes").to_pylist())
    counts = actions.column("num_records").to_pylist() if "num_records" in names else []
    if actions.num_rows and (not counts or any(count is None for count in counts)):
        return None, size, actions.num_rows, "some files of the table carry no row statistics"
    if may_hide_rows(table):
        return (
            None,
            size,
            actions.num_rows,
            "deletion vectors may mark rows as deleted, and only Spark counts them",
        )
    return sum(counts), size, actions.num_rows, ""
