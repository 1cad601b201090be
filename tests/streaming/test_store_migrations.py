"""The schema: made, raised version by version, refused when newer; whole or not at all."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from store_fixtures import a_command

from kindling_dagster.streaming.store import StoreVersionError, StreamStore, default_store_url
from kindling_dagster.streaming.store import migrations as module
from kindling_dagster.streaming.store.migrations import MIGRATIONS, current_version, migrate
from kindling_dagster.streaming.store.tables import PREFIX, metadata


def add_priority(op: Operations) -> None:
    op.add_column(f"{PREFIX}desired", sa.Column("priority", sa.Integer, server_default="5"))


def fail_late(op: Operations) -> None:
    op.create_table(f"{PREFIX}extra", sa.Column("n", sa.Integer))
    raise RuntimeError("no more")


def test_the_migrations_make_the_tables_that_the_code_uses(store: StreamStore) -> None:
    def compare(connection: sa.Connection) -> list[object]:
        ours = {"include_name": lambda name, kind, _: kind != "table" or name.startswith(PREFIX)}
        return compare_metadata(MigrationContext.configure(connection, opts=ours), metadata)

    assert store._database.read(compare) == []
    assert store._database.read(current_version) == len(MIGRATIONS)


def test_an_older_store_is_raised_and_keeps_what_it_has(
    store: StreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.submit([a_command("start")])

    def raise_version(connection: sa.Connection) -> object:
        migrate(connection, "it", [*MIGRATIONS, add_priority])
        migrate(connection, "it", [*MIGRATIONS, add_priority])
        found = connection.execute(sa.text(f"SELECT priority FROM {PREFIX}desired")).scalar()
        assert current_version(connection) == len(MIGRATIONS) + 1
        connection.rollback()  # the other tests' database is this one
        return found

    with store._database._live_engine().connect() as connection:
        assert raise_version(connection) == 5
    assert set(store.desired()) == {"orders"}


def test_a_migration_that_fails_leaves_nothing(store: StreamStore) -> None:
    with pytest.raises(RuntimeError, match="no more"):
        store._database.write(lambda connection: migrate(connection, "it", [*MIGRATIONS, fail_late]))

    def look(connection: sa.Connection) -> tuple[int, bool]:
        return current_version(connection), sa.inspect(connection).has_table(f"{PREFIX}extra")

    assert store._database.read(look) == (len(MIGRATIONS), False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kindling_streams.db"


def set_version(path: Path, version: int) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE {PREFIX}schema SET version = {version}")
    connection.close()


def test_a_newer_store_is_refused_and_left_alone(path: Path) -> None:
    url = default_store_url(str(path.parent))
    with StreamStore.open(url, "p") as store:
        store.submit([a_command("start")])
        set_version(path, len(MIGRATIONS) + 1)
        with pytest.raises(StoreVersionError, match=r"has schema version 2; this kindling-dagster knows 1\."):
            StreamStore.open(url, "p")
        with pytest.raises(StoreVersionError, match="Update kindling-dagster here"):
            store.submit([a_command("stop")])
        assert store.desired()["orders"].running


def test_an_older_file_is_raised_when_it_is_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = default_store_url(str(path.parent))
    with StreamStore.open(url, "p") as store:
        store.submit([a_command("start")])
    monkeypatch.setattr(module, "MIGRATIONS", (*MIGRATIONS, add_priority))
    with StreamStore.open(url, "p") as store:
        assert store._database.read(current_version) == len(MIGRATIONS) + 1
        assert set(store.desired()) == {"orders"}


def test_a_database_that_has_other_tables_is_shared(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (id)")
    connection.close()
    with StreamStore.open(default_store_url(str(path.parent)), "p") as store:
        store.submit([a_command("start")])
        found = store._database.read(lambda connection: sa.inspect(connection).get_table_names())
    assert "runs" in found
    assert all(name == "runs" or name.startswith((PREFIX, "sqlite_")) for name in found)
