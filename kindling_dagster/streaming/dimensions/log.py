"""A Delta table's log, read file by file: which commits there are, and what each of them did.

delta-rs tells a commit's operation but not whether its actions change data, and an operation's name does not
decide it (a RESTORE may touch nothing, a program may rearrange files under any name). The protocol does: each
action that adds or removes a file carries ``dataChange``. So the commits' JSON files themselves are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kindling_dagster.delta_log import local_path
from kindling_dagster.streaming.dimensions.fingerprint import CommitMark, digest_of, schema_columns

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*parquet|(\d{20})\.checkpoint\..*json")
_READERS = 16
"""Commits read at the same time from remote storage, where each costs a round trip."""


class CorruptLogError(Exception):
    """A commit's file is there and makes no sense."""


@dataclass(frozen=True)
class FileMark:
    """A file's size in bytes and when it was written (Unix seconds)."""

    size: int
    modified: float


class LogFiles(Protocol):
    """The files of one table's ``_delta_log``."""

    def marks(self, names: Sequence[str]) -> list[FileMark | None]:
        """Size and time of each file; None where there is none."""

    def names(self) -> list[str]:
        """All files there are, in any order; empty when there is no log."""

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The files' contents; FileNotFoundError when one is not there."""


class LocalLog:
    """The log of a table in the local file system."""

    def __init__(self, table: Path) -> None:
        self._folder = table / "_delta_log"

    def marks(self, names: Sequence[str]) -> list[FileMark | None]:
        """Size and time of each file."""
        found: list[FileMark | None] = []
        for name in names:
            try:
                status = (self._folder / name).stat()
                found.append(FileMark(status.st_size, status.st_mtime))
            except (FileNotFoundError, NotADirectoryError):
                found.append(None)
        return found

    def names(self) -> list[str]:
        """All files there are."""
        try:
            return [entry.name for entry in self._folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The files' contents."""
        return [(self._folder / name).read_bytes() for name in names]


class RemoteLog:
    """The log of a table in any storage that delta-rs reaches, with the same options."""

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        from deltalake.fs import DeltaStorageHandler
        from pyarrow.fs import PyFileSystem

        self._files = PyFileSystem(DeltaStorageHandler(uri, dict(storage_options or {})))

    def marks(self, names: Sequence[str]) -> list[FileMark | None]:
        """Size and time of each file."""
        from pyarrow.fs import FileType

        return [
            FileMark(info.size, info.mtime_ns / 1e9 if info.mtime_ns else 0.0)
            if info.type == FileType.File
            else None
            for info in self._files.get_file_info([f"_delta_log/{name}" for name in names])
        ]

    def names(self) -> list[str]:
        """All files there are."""
        from pyarrow.fs import FileSelector

        found = self._files.get_file_info(FileSelector("_delta_log", allow_not_found=True))
        return [info.path.rpartition("/")[2] for info in found]

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The files' contents."""

        def one(name: str) -> bytes:
            with self._files.open_input_file(f"_delta_log/{name}") as file:
                content: bytes = file.read()
                return content

        with ThreadPoolExecutor(min(_READERS, max(1, len(names)))) as pool:
            return list(pool.map(one, names))


def open_log(uri: str, storage_options: Mapping[str, str] | None = None) -> LogFiles:
    """The log of the table at a path or URI."""
    path = local_path(uri)
    return LocalLog(path) if path is not None else RemoteLog(uri, storage_options)


def commit_name(version: int) -> str:
    """The file name of a version's commit."""
    return f"{version:020d}.json"


@dataclass(frozen=True)
class Versions:
    """Which versions a log tells of.

    Args:
        latest: The newest version, by a commit or a checkpoint; None when there is no table.
        commits: The versions whose commit is still there.
    """

    latest: int | None
    commits: frozenset[int]


def versions_in(names: Iterable[str]) -> Versions:
    """The versions in a log's file names."""
    commits = set()
    known = set()
    for name in names:
        if found := _COMMIT.fullmatch(name):
            commits.add(int(found.group(1)))
        elif found := _CHECKPOINT.fullmatch(name):
            known.add(int(found.group(1) or found.group(2)))
    return Versions(max(commits | known, default=None), frozenset(commits))


@dataclass(frozen=True)
class Commit:
    """What one commit did.

    Args:
        version: The version it made.
        operation: As its writer names it: ``WRITE``, ``MERGE``, ``OPTIMIZE`` …
        timestamp: When, as Unix seconds.
        data_change: Whether rows came, went or changed: a file with ``dataChange`` was added (and is not
            known to be empty) or removed.
        table: The table's id, where the commit sets the table's metadata.
        schema: The columns, likewise.
        mark: The commit's file.
    """

    version: int
    operation: str = ""
    timestamp: float | None = None
    data_change: bool = False
    table: str = ""
    schema: tuple[str, ...] | None = None
    digest: str = ""


def read_commits(log: LogFiles, versions: Sequence[int]) -> list[Commit]:
    """What these commits did, in the same order.

    Raises:
        CorruptLogError: One of them is not a commit's JSON.
        OSError: Storage says so.
    """
    texts = log.read([commit_name(version) for version in versions])
    return [parse_commit(version, text) for version, text in zip(versions, texts, strict=True)]


def parse_commit(version: int, text: bytes) -> Commit:
    """What the commit with this text did; raises CorruptLogError when it makes no sense."""
    info: Mapping[str, Any] = {}
    metadata: Mapping[str, Any] = {}
    changed = False
    actions = 0
    try:
        for line in text.splitlines():
            if not line.strip():
                continue
            action = json.loads(line)
            actions += 1
            info = action.get("commitInfo") or info
            metadata = action.get("metaData") or metadata
            changed = changed or _changes_data(action)
        schema = schema_columns(json.loads(metadata["schemaString"])["fields"]) if metadata else None
        timestamp = info.get("inCommitTimestamp", info.get("timestamp"))
        when = None if timestamp is None else float(timestamp) / 1000
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptLogError(f"commit {version} of the log cannot be read ({error})") from error
    if not actions:  # a commit that is still being written looks like this too
        raise CorruptLogError(f"commit {version} of the log is empty")
    operation = str(info.get("operation", ""))
    return Commit(version, operation, when, changed, str(metadata.get("id") or ""), schema, digest_of(text))


def _changes_data(action: Mapping[str, Any]) -> bool:
    removed = action.get("remove")
    if removed is not None:
        return bool(removed.get("dataChange", True))
    added = action.get("add")
    if added is None or not added.get("dataChange", True):
        return False
    stats = added.get("stats")
    # Spark adds a file without rows when an empty frame is written: nothing changed.
    return not (isinstance(stats, str) and json.loads(stats or "{}").get("numRecords") == 0)


def mark_of(log: LogFiles, version: int, digest: str = "") -> CommitMark:
    """What to remember of a version's commit; an empty mark when only a checkpoint is left of it."""
    (file,) = log.marks([commit_name(version)])
    if file is None:
        return CommitMark()
    if not digest:
        digest = digest_of(log.read([commit_name(version)])[0])
    return CommitMark(file.size, file.modified, digest)
