"""What a host reports, under its lease: statuses, recovery states, history and dead letters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Table, delete, select
from sqlalchemy.engine import Connection

from kindling_dagster.streaming.model import DeadLetter, HistoryEntry, Lease, RecoveryState, StreamStatus
from kindling_dagster.streaming.store import commands, leases, tables
from kindling_dagster.streaming.store.codec import from_text, to_text
from kindling_dagster.streaming.store.sql import Scope, insert_new, upsert

HISTORY_KEPT = 200
"""Entries of each stream that are kept."""

T = TypeVar("T")
_history = tables.history


@dataclass(frozen=True)
class Report:
    """All that one report says; ``seen`` as ``StreamStore.report`` has it."""

    statuses: Sequence[StreamStatus] = ()
    recovery: Mapping[str, RecoveryState] = field(default_factory=dict)
    history: Sequence[HistoryEntry] = ()
    dead_letters: Sequence[DeadLetter] = ()
    seen: Mapping[str, int] = field(default_factory=dict)


def write(connection: Connection, scope: Scope, lease: Lease, report: Report) -> None:
    """Write a report if the lease is the newest.

    Raises:
        LeaseLost: It is not.
    """
    leases.check(connection, scope, lease)
    outdated = _outdated(connection, scope, report)
    upsert(connection, tables.status, [_row(scope, s.stream_id, s) for s in report.statuses])
    upsert(
        connection,
        tables.recovery,
        [_row(scope, key, state) for key, state in report.recovery.items() if key not in outdated],
    )
    upsert(
        connection,
        tables.dead_letter,
        [_row(scope, d.stream_id, d) for d in report.dead_letters if d.stream_id not in outdated],
    )
    _write_history(connection, scope, report.history)


def _outdated(connection: Connection, scope: Scope, report: Report) -> set[str]:
    """Streams that were revived since the host looked."""
    if not report.seen or not (report.recovery or report.dead_letters):
        return set()
    revived = commands.revived_generations(connection, scope)
    return {stream_id for stream_id, seen in report.seen.items() if seen < revived.get(stream_id, 0)}


def by_stream(connection: Connection, scope: Scope, table: Table, kind: type[T]) -> dict[str, T]:
    """The rows of a table that has one body a stream."""
    rows = connection.execute(
        select(table.c.stream_id, table.c.body)
        .where(table.c.project == scope.project)
        .order_by(table.c.stream_id)
    )
    return {
        row.stream_id: from_text(row.body, kind, f"{table.name} of stream {row.stream_id}") for row in rows
    }


def history(
    connection: Connection, scope: Scope, stream_id: str | None, limit: int
) -> tuple[HistoryEntry, ...]:
    """The last entries of one stream, or of all, newest first."""
    query = select(_history.c.stream_id, _history.c.body).where(_history.c.project == scope.project)
    if stream_id is not None:
        query = query.where(_history.c.stream_id == stream_id)
    rows = connection.execute(query.order_by(_history.c.id.desc()).limit(limit))
    return tuple(from_text(row.body, HistoryEntry, f"history of stream {row.stream_id}") for row in rows)


def _write_history(connection: Connection, scope: Scope, entries: Sequence[HistoryEntry]) -> None:
    rows = []
    for entry in entries:
        row = _row(scope, entry.stream_id, entry)
        # What was written by a report whose answer was lost is recognised when it is reported again.
        rows.append({**row, "digest": hashlib.sha256(row["body"].encode()).hexdigest()[:32]})
    insert_new(connection, _history, rows)
    for stream_id in dict.fromkeys(entry.stream_id for entry in entries):
        mine = (_history.c.project == scope.project, _history.c.stream_id == stream_id)
        oldest_kept = (
            select(_history.c.id).where(*mine).order_by(_history.c.id.desc()).limit(1).offset(HISTORY_KEPT)
        )
        connection.execute(delete(_history).where(*mine, _history.c.id <= oldest_kept.scalar_subquery()))


def _row(scope: Scope, stream_id: str, item: Any) -> dict[str, Any]:
    return {"project": scope.project, "stream_id": stream_id, "body": to_text(item)}
