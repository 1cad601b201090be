"""A look at a Delta table: from its log alone where that suffices, from its rows where the method asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from kindling_dagster.streaming.dimensions.current_rows import changed_rows, current_rows_digest
from kindling_dagster.streaming.dimensions.fingerprint import (
    Fingerprint,
    chosen,
    method_text,
    schema_difference,
)
from kindling_dagster.streaming.dimensions.log import (
    Commit,
    LogFiles,
    Versions,
    commit_name,
    mark_of,
    open_log,
    read_commits,
    versions_in,
)
from kindling_dagster.streaming.dimensions.model import Change, ChangedKeys, Dimension, DimensionLook
from kindling_dagster.streaming.dimensions.values import Snapshot

_READ_SINGLY = 200
"""Up to how many new commits are read to spare looking at the rows; ``version`` reads them all."""


class MissingTableError(FileNotFoundError):
    """There is no Delta table: not there yet, dropped, or something else lies at its place."""


def look_at_delta(
    dimension: Dimension, location: str, previous: Fingerprint | None, log: LogFiles | None = None
) -> DimensionLook:
    """Look at a Delta table.

    Args:
        dimension: What to look for; the method is one that Delta has.
        location: Its path or URI.
        previous: What the last look has left, of the same method; None at the first.
        log: Its log, when the caller has it.

    Raises:
        MissingTableError: There is no table.
        CorruptLogError: A commit cannot be read.
        ColumnError: A column of the dimension is not there.
        Exception: Whatever storage or delta-rs raise.
    """
    log = log or open_log(location, dimension.storage_options)
    if previous is not None and _untouched(log, previous):
        return _unchanged(dimension, previous)
    versions = versions_in(log.names())
    if versions.latest is None:
        raise MissingTableError("no Delta log")
    look = _Look(dimension, location, log, versions, versions.latest)
    return look.first() if previous is None else look.since(previous)


def _untouched(log: LogFiles, previous: Fingerprint) -> bool:
    """Whether the newest commit is still the one that was seen: two file marks, whatever the table's size.

    A version that had no commit's file (a checkpoint alone) has to be looked up in the listing.
    """
    if previous.version is None or previous.commit.size < 0:
        return False
    seen, following = log.marks([commit_name(previous.version), commit_name(previous.version + 1)])
    return (
        following is None
        and seen is not None
        and (seen.size, seen.modified) == (previous.commit.size, previous.commit.modified)
    )


def _unchanged(dimension: Dimension, fingerprint: Fingerprint) -> DimensionLook:
    return DimensionLook(
        dimension.entity_id,
        dimension.method,
        fingerprint=fingerprint.to_text(),
        version=fingerprint.version,
        rows=fingerprint.rows,
        commits=0,
    )


@dataclass
class _Value:
    """The method's answer for one version, and the rows it knows of by the way."""

    value: Any
    rows: int | None = None


@dataclass
class _Look:
    """One look at a table that is new or has new commits."""

    dimension: Dimension
    location: str
    log: LogFiles
    versions: Versions
    latest: int

    @cached_property
    def snapshot(self) -> Snapshot:
        return Snapshot(self.location, self.latest, self.dimension.storage_options)

    def first(self) -> DimensionLook:
        fingerprint = self._measured()
        return DimensionLook(
            self.dimension.entity_id,
            self.dimension.method,
            fingerprint=fingerprint.to_text(),
            first=True,
            version=self.latest,
            rows=fingerprint.rows,
        )

    def since(self, previous: Fingerprint) -> DimensionLook:
        assert previous.version is not None
        replaced = self._replaced(previous)
        if replaced:
            return self._look(self._measured(), "replaced", replaced)
        new = range(previous.version + 1, self.latest + 1)
        gone = [version for version in new if version not in self.versions.commits]
        if gone or (len(new) > _READ_SINGLY and self.dimension.method != "version"):
            return self._compared(previous, self._measured(), gone)
        commits = read_commits(self.log, new)
        other = next((commit for commit in commits if commit.table not in ("", previous.table)), None)
        if other is not None:
            reason = f"version {other.version} made it another table"
            return self._look(self._measured(), "replaced", reason, commits)
        return self._by_commits(previous, commits)

    def _replaced(self, previous: Fingerprint) -> str:
        """Why this is not a later state of the table that was seen; empty when it is one."""
        assert previous.version is not None
        if self.latest < previous.version:
            if self.snapshot.table != previous.table:
                return "the table was created anew"
            return f"its log went back from version {previous.version} to {self.latest}"
        seen = previous.commit.digest
        if previous.version in self.versions.commits and seen:
            if mark_of(self.log, previous.version).digest == seen:
                return ""
            if self.snapshot.table == previous.table:
                return f"its log was rewritten: version {previous.version} is another commit now"
        # Else the commit was cleaned up, as old ones are, and a checkpoint has taken its place.
        return "" if self.snapshot.table == previous.table else "the table was created anew"

    def _by_commits(self, previous: Fingerprint, commits: Sequence[Commit]) -> DimensionLook:
        schema = previous.schema
        for commit in commits:
            schema = commit.schema if commit.schema is not None else schema
        touched = any(commit.data_change for commit in commits) or schema != previous.schema
        digest = commits[-1].digest if commits else ""
        mark = mark_of(self.log, self.latest, digest)
        if touched and self.dimension.method not in ("version", "schema"):
            current = replace(self._measured(), schema=schema, commit=mark)
        else:
            value = previous.value
            if self.dimension.method == "version":
                value = max([value, *(commit.version for commit in commits if commit.data_change)])
            current = replace(previous, version=self.latest, commit=mark, schema=schema, value=value)
        return self._compared(previous, current, (), commits)

    def _compared(
        self,
        previous: Fingerprint,
        current: Fingerprint,
        gone: Sequence[int],
        commits: Sequence[Commit] | None = None,
    ) -> DimensionLook:
        """The look that follows from two fingerprints of the same table."""
        columns = self.dimension.columns if self.dimension.method in ("hash", "scd2") else ()
        before, after = (chosen(item.schema or (), columns) for item in (previous, current))
        change: Change | None = None
        reason = ""
        if current.value != previous.value:
            change, reason = "data", self._data_reason(previous, current, gone, commits)
        look = self._look(current, change, reason, commits)
        if change and self.dimension.method == "scd2":
            look = self._with_rows(look, previous)
        if before != after:
            difference = schema_difference(before, after)
            reason = f"{difference}; {look.reason}" if change else str(difference)
            look = replace(look, change="schema", schema=difference, reason=reason)
        return look

    def _data_reason(
        self,
        previous: Fingerprint,
        current: Fingerprint,
        gone: Sequence[int],
        commits: Sequence[Commit] | None,
    ) -> str:
        method = self.dimension.method
        if method == "version":
            if commits is None:
                return f"commits {gone[0]} to {gone[-1]} were cleaned up before they were seen"
            count = sum(commit.data_change for commit in commits)
            return f"{count} data-changing commit{'s' if count != 1 else ''}"
        if method == "watermark":
            return f"the maximum of {self.dimension.columns[0]} went from {previous.value} to {current.value}"
        if method == "row_count":
            return f"rows went from {previous.value} to {current.value}"
        return "current rows differ" if method == "scd2" else "rows differ"

    def _with_rows(self, look: DimensionLook, previous: Fingerprint) -> DimensionLook:
        assert previous.version is not None
        try:
            changes = changed_rows(self.dimension, self.location, previous.version, self.snapshot)
        except Exception as error:  # the old version's files may be gone, which delta-rs tells in many ways
            why = f"which ones is not known: version {previous.version} can no longer be read"
            return replace(look, reason=f"{look.reason}; {why} ({type(error).__name__})")
        return replace(
            look,
            reason=str(changes),
            new_count=len(changes.new),
            closed_count=len(changes.closed),
            changed_count=len(changes.changed),
            keys=changes.capped() if self.dimension.keys else ChangedKeys(),
        )

    def _measured(self) -> Fingerprint:
        """The table's fingerprint by looking at its latest version as a whole."""
        snapshot = self.snapshot
        measured = self._value(snapshot)
        return Fingerprint(
            method=method_text(self.dimension),
            value=measured.value,
            table=snapshot.table,
            version=self.latest,
            commit=mark_of(self.log, self.latest),
            schema=snapshot.schema,
            rows=measured.rows,
        )

    def _value(self, snapshot: Snapshot) -> _Value:
        method = self.dimension.method
        if method == "version":
            return _Value(self.latest)
        if method == "row_count":
            rows = snapshot.rows()
            return _Value(rows, rows)
        if method == "watermark":
            return _Value(snapshot.maximum(self.dimension.columns[0]))
        if method == "hash":
            digest = snapshot.digest(self.dimension.columns)
            return _Value(digest.to_value(), digest.rows)
        if method == "scd2":
            digest = current_rows_digest(self.dimension, snapshot)
            return _Value(digest.to_value(), digest.rows)
        return _Value(None)

    def _look(
        self,
        current: Fingerprint,
        change: Change | None,
        reason: str,
        commits: Sequence[Commit] | None = None,
    ) -> DimensionLook:
        telling = [commit for commit in commits or () if commit.data_change or commit.schema is not None]
        return DimensionLook(
            self.dimension.entity_id,
            self.dimension.method,
            fingerprint=current.to_text(),
            change=change,
            reason=reason,
            version=self.latest,
            rows=current.rows,
            commits=None if commits is None else sum(commit.data_change for commit in commits),
            operations=tuple(dict.fromkeys(commit.operation for commit in telling if commit.operation)),
            changed_at=telling[-1].timestamp if telling else None,
        )
