"""What several parts of the store say in SQL: take the project's lock, write rows that may be there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Table, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Row

from kindling_dagster.streaming.store import tables
from kindling_dagster.streaming.store.errors import StoreReplaced
from kindling_dagster.streaming.store.migrations import check_version

_LOCK = (
    select(
        tables.project,
        select(tables.schema.c.version).scalar_subquery().label("schema_version"),
        select(tables.schema.c.store_id).scalar_subquery().label("store_id"),
    )
    .where(tables.project.c.project == bindparam("project_"))
    .with_for_update(of=tables.project)
)


@dataclass(frozen=True)
class Scope:
    """Whose rows a transaction is about, and in which store.

    Args:
        project: The project.
        store_id: Given to a store when it is made: tells it from one that was put in its place.
        shown: The store as it may be shown.
    """

    project: str
    store_id: str
    shown: str


def lock_project(connection: Connection, scope: Scope) -> Row[Any]:
    """The project's row, which no other transaction changes before this one ends. First in every writing one.

    Raises:
        StoreReplaced: The store is another than the one that was opened.
        StoreVersionError: A newer version has changed its schema since.
    """
    row = connection.execute(_LOCK, {"project_": scope.project}).one_or_none()
    if row is None or row.store_id != scope.store_id:
        raise StoreReplaced(
            f"The stream store {scope.shown} was replaced while it was in use: the desired states, dead letters "
            "and history it held are lost.",
            "Open it again, then start the streams that should run.",
        )
    check_version(row.schema_version, scope.shown)
    return row


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows; those whose primary key is there already are replaced."""
    if rows:
        connection.execute(_upsert(table, connection.dialect.name), [dict(row) for row in rows])


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows; those that any unique index knows already are left as they are."""
    if rows:
        statement = _insert(table, connection.dialect.name).on_conflict_do_nothing()
        connection.execute(statement, [dict(row) for row in rows])


def _insert(table: Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


@lru_cache
def _upsert(table: Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    insert = _insert(table, dialect)
    keys = [column.name for column in table.primary_key]
    others = [column.name for column in table.columns if column.name not in keys]
    changed = {name: insert.excluded[name] for name in others}
    return insert.on_conflict_do_update(index_elements=keys, set_=changed)
