"""The schema's versions: an ordered list of steps, each written once and never changed afterwards.

The steps use Alembic's operations, but not its scripts: those run through process-wide proxies, which
Dagster's own storages use too, in the same process and from other threads.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.engine import Connection

from kindling_dagster.streaming.store import tables
from kindling_dagster.streaming.store.errors import StoreVersionError

Migration = Callable[[Operations], None]


def _first(op: Operations) -> None:
    def text(name: str, *, primary_key: bool = False) -> sa.Column[str]:
        return sa.Column(name, sa.String, primary_key=primary_key, nullable=False)

    def number(name: str) -> sa.Column[int]:
        return sa.Column(name, sa.BigInteger, nullable=False)

    def seconds(name: str, *, primary_key: bool = False) -> sa.Column[float]:
        return sa.Column(name, sa.Float, primary_key=primary_key, nullable=False)

    def flag(name: str) -> sa.Column[bool]:
        return sa.Column(name, sa.Boolean, nullable=False)

    def key(name: str) -> sa.Column[str]:
        return text(name, primary_key=True)

    def body() -> sa.Column[str]:
        return sa.Column("body", sa.Text, nullable=False)

    p = "kindling_stream_"
    counting = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(p + "schema", sa.Column("version", sa.Integer, nullable=False), text("store_id"))
    op.create_table(
        p + "project",
        *(key("project"), number("token"), text("host_id"), flag("held")),
        *(seconds("ttl"), seconds("heartbeat_at"), seconds("expires_at"), number("commands"), body()),
    )
    op.create_table(
        p + "desired",
        *(key("project"), key("stream_id"), flag("running"), number("generation"), number("revived"), body()),
    )
    for name in ("status", "recovery", "dead_letter"):
        op.create_table(p + name, key("project"), key("stream_id"), body())
    op.create_table(
        p + "history",
        sa.Column("id", counting, primary_key=True, autoincrement=True),
        *(text("project"), text("stream_id"), text("digest"), body()),
        sqlite_autoincrement=True,
    )
    op.create_index(p + "history_by_stream", p + "history", ["project", "stream_id", "id"])
    op.create_index(p + "history_once", p + "history", ["project", "stream_id", "digest"], unique=True)
    op.create_table(
        p + "command",
        *(key("project"), key("id"), number("number"), text("submission"), seconds("received_at"), body()),
    )
    op.create_index(p + "command_by_number", p + "command", ["project", "number"])
    op.create_table(p + "fingerprint", key("project"), key("entity_id"), body())
    op.create_table(
        p + "document", key("project"), key("kind"), key("key"), number("version"), text("writer"), body()
    )
    op.create_table(p + "launch", key("project"), seconds("at", primary_key=True), body())


MIGRATIONS: Sequence[Migration] = (_first,)
"""The n-th makes version n of version n - 1."""


def current_version(connection: Connection) -> int:
    """The schema's version in a database; 0 where there is none."""
    if not sa.inspect(connection).has_table(tables.schema.name):
        return 0
    return int(connection.execute(sa.select(sa.func.max(tables.schema.c.version))).scalar() or 0)


def migrate(connection: Connection, store: str, migrations: Sequence[Migration] | None = None) -> None:
    """Bring the schema to the newest version, in the caller's transaction and under the caller's lock.

    Args:
        connection: In a transaction that no other migration runs beside.
        store: The store as it may be shown.
        migrations: The steps; all there are when left out.

    Raises:
        StoreVersionError: The database is of a newer version.
    """
    migrations = MIGRATIONS if migrations is None else migrations
    version = current_version(connection)
    check_version(version, store, len(migrations))
    if version == len(migrations):
        return
    op = Operations(MigrationContext.configure(connection))
    for step in migrations[version:]:
        step(op)
    if version == 0:
        values = {"version": len(migrations), "store_id": uuid.uuid4().hex}
        connection.execute(tables.schema.insert().values(values))
    else:
        connection.execute(tables.schema.update().values(version=len(migrations)))


def check_version(version: int, store: str, known: int | None = None) -> None:
    """Refuse a database that this version of the package does not know.

    Raises:
        StoreVersionError: It is of a newer version.
    """
    known = len(MIGRATIONS) if known is None else known
    if version > known:
        raise StoreVersionError(
            f"The stream store {store} has schema version {version}; this kindling-dagster knows {known}.",
            "Update kindling-dagster here, or use another store.",
        )


def ensure(connection: Connection, project: str, store: str) -> str:
    """Bring the schema up to date and make the project's row; gives the store's id. In a writing transaction."""
    migrate(connection, store)
    values = {
        "project": project,
        "token": 0,
        "host_id": "",
        "held": False,
        "ttl": 0.0,
        "heartbeat_at": 0.0,
        "expires_at": 0.0,
        "commands": 0,
        "body": "{}",
    }
    found = connection.execute(
        sa.select(tables.project.c.project).where(tables.project.c.project == project)
    ).one_or_none()
    if found is None:
        connection.execute(tables.project.insert().values(values))
    return str(connection.execute(sa.select(tables.schema.c.store_id)).scalar_one())


def known_id(connection: Connection, project: str, store: str) -> str | None:
    """The store's id where schema and project are as ``ensure`` would make them; else None. Only reads."""
    version = current_version(connection)
    check_version(version, store)
    if version < len(MIGRATIONS):
        return None
    return connection.execute(
        sa.select(tables.schema.c.store_id).where(
            sa.exists().where(tables.project.c.project == project),
        )
    ).scalar_one_or_none()
