"""Small states of others: documents with a version, fingerprints of entities, launches of hosts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.engine import Connection

from kindling_dagster.streaming.model import HostLaunch
from kindling_dagster.streaming.store import tables
from kindling_dagster.streaming.store.codec import document_text, document_value, from_text, to_text
from kindling_dagster.streaming.store.errors import ConflictError
from kindling_dagster.streaming.store.sql import Scope, lock_project, upsert

LAUNCHES_KEPT = 100
"""Launches of a project that are kept."""

_document = tables.document
_fingerprint = tables.fingerprint
_launch = tables.launch


def read(connection: Connection, scope: Scope, kind: str, key: str) -> tuple[Any, int]:
    """A document and its version; ``(None, 0)`` where there is none."""
    row = connection.execute(
        select(_document.c.body, _document.c.version).where(*_one(scope, kind, key))
    ).one_or_none()
    return (None, 0) if row is None else (document_value(row.body, f"{kind}/{key}"), row.version)


def version(connection: Connection, scope: Scope, kind: str, key: str) -> int:
    """A document's version; 0 where there is none."""
    found = connection.execute(
        select(_document.c.version).where(*_one(scope, kind, key))
    ).scalar_one_or_none()
    return 0 if found is None else int(found)


def write(
    connection: Connection, scope: Scope, kind: str, key: str, value: Any, expected: int, writer: str
) -> int:
    """Write a document whose version is still ``expected``; gives the new one.

    Args:
        connection: In a writing transaction.
        scope: Whose.
        kind: What kind of state.
        key: Which one.
        value: JSON.
        expected: The version that ``value`` was made from; 0 where there was none.
        writer: The same for each try of one call: a try whose answer was lost is recognised by it.

    Raises:
        ConflictError: It has another version by now.
    """
    body = document_text(value, f"{kind}/{key}")
    lock_project(connection, scope)
    row = connection.execute(
        select(_document.c.version, _document.c.writer).where(*_one(scope, kind, key))
    ).one_or_none()
    version = row.version if row is not None else 0
    if row is not None and row.writer == writer:
        return version
    if version != expected:
        raise ConflictError(
            f"The document {kind}/{key} has version {version} by now, not {expected}.",
            version,
            "Read it again and decide again.",
        )
    keys = {"project": scope.project, "kind": kind, "key": key}
    upsert(connection, _document, [{**keys, "version": version + 1, "writer": writer, "body": body}])
    return version + 1


def fingerprints(connection: Connection, scope: Scope) -> dict[str, str]:
    """The fingerprint of each entity."""
    rows = connection.execute(
        select(_fingerprint.c.entity_id, _fingerprint.c.body).where(_fingerprint.c.project == scope.project)
    )
    return {row.entity_id: document_value(row.body, f"fingerprint/{row.entity_id}") for row in rows}


def write_fingerprint(connection: Connection, scope: Scope, entity_id: str, text: str) -> None:
    """Remember an entity's fingerprint."""
    lock_project(connection, scope)
    body = document_text(text, f"fingerprint/{entity_id}")
    upsert(connection, _fingerprint, [{"project": scope.project, "entity_id": entity_id, "body": body}])


def write_launch(connection: Connection, scope: Scope, launch: HostLaunch) -> None:
    """Remember a launch, and forget those beyond the last ``LAUNCHES_KEPT``.

    Also those that were before it and are dated after it: the clock was set back since, and they would count
    as the last ones until the old time comes again.
    """
    lock_project(connection, scope)
    mine = _launch.c.project == scope.project
    for row in connection.execute(select(_launch).where(mine, _launch.c.at > launch.at)).all():
        if from_text(row.body, HostLaunch, "launch of a host").attempt <= launch.attempt:
            connection.execute(delete(_launch).where(mine, _launch.c.at == row.at))
    upsert(connection, _launch, [{"project": scope.project, "at": launch.at, "body": to_text(launch)}])
    oldest = select(_launch.c.at).where(mine).order_by(_launch.c.at.desc()).limit(1).offset(LAUNCHES_KEPT)
    connection.execute(delete(_launch).where(mine, _launch.c.at <= oldest.scalar_subquery()))


def launches(connection: Connection, scope: Scope, limit: int) -> tuple[HostLaunch, ...]:
    """The last launches, newest first."""
    rows = connection.execute(
        select(_launch.c.body)
        .where(_launch.c.project == scope.project)
        .order_by(_launch.c.at.desc())
        .limit(limit)
    )
    return tuple(from_text(row.body, HostLaunch, "launch of a host") for row in rows)


def _one(scope: Scope, kind: str, key: str) -> tuple[Any, ...]:
    return (_document.c.project == scope.project, _document.c.kind == kind, _document.c.key == key)
