"""The store's tables, as the newest schema has them. Bodies are JSON text; columns only what is asked for in SQL."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

PREFIX = "kindling_stream_"
"""Before every table's name: the store may share a PostgreSQL database with Dagster and others."""

metadata = MetaData()

_Id = BigInteger().with_variant(Integer, "sqlite")  # only a plain INTEGER counts up by itself on SQLite


def _project() -> Column[str]:
    return Column("project", String, primary_key=True)


def _by_stream(name: str) -> Table:
    return Table(
        PREFIX + name,
        metadata,
        _project(),
        Column("stream_id", String, primary_key=True),
        Column("body", Text, nullable=False),
    )


schema = Table(
    PREFIX + "schema",
    metadata,
    Column("version", Integer, nullable=False),
    Column("store_id", String, nullable=False),
)

project = Table(
    PREFIX + "project",
    metadata,
    _project(),
    Column("token", BigInteger, nullable=False),
    Column("host_id", String, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("ttl", Float, nullable=False),
    Column("heartbeat_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("commands", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)
"""One row a project: its lease, and the lock that every writing transaction of the project takes first."""

desired = Table(
    PREFIX + "desired",
    metadata,
    _project(),
    Column("stream_id", String, primary_key=True),
    Column("running", Boolean, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("revived", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)
"""``revived``: the generation that the last ``revive`` made; what hosts report of older ones is outdated."""

status = _by_stream("status")
recovery = _by_stream("recovery")
dead_letter = _by_stream("dead_letter")

history = Table(
    PREFIX + "history",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("project", String, nullable=False),
    Column("stream_id", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("body", Text, nullable=False),
    Index(PREFIX + "history_by_stream", "project", "stream_id", "id"),
    Index(PREFIX + "history_once", "project", "stream_id", "digest", unique=True),
    sqlite_autoincrement=True,
)

command = Table(
    PREFIX + "command",
    metadata,
    _project(),
    Column("id", String, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("submission", String, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("body", Text, nullable=False),
    Index(PREFIX + "command_by_number", "project", "number"),
)

fingerprint = Table(
    PREFIX + "fingerprint",
    metadata,
    _project(),
    Column("entity_id", String, primary_key=True),
    Column("body", Text, nullable=False),
)

document = Table(
    PREFIX + "document",
    metadata,
    _project(),
    Column("kind", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("writer", String, nullable=False),
    Column("body", Text, nullable=False),
)

launch = Table(
    PREFIX + "launch",
    metadata,
    _project(),
    Column("at", Float, primary_key=True),
    Column("body", Text, nullable=False),
)
