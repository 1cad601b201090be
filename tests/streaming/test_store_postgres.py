"""A PostgreSQL store whose server crashes, refuses, hangs or loses its tables."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from postgres_server import PostgresServer, postgres_server
from store_fixtures import a_command, a_host

from kindling_dagster.streaming.model import HistoryEntry, Lease, StreamingQueryState, StreamStatus
from kindling_dagster.streaming.store import StoreError, StoreReplaced, StoreUnavailable, StreamStore

STATUS = StreamStatus("orders", StreamingQueryState.RUNNING)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One of this file's own, which may be crashed."""
    with postgres_server() as running:
        yield running


@pytest.fixture
def store(server: PostgresServer, project: str) -> Iterator[StreamStore]:
    with StreamStore.open(server.url(), project, wait=15.0) as opened:
        yield opened


def acquire(store: StreamStore) -> Lease:
    lease = store.acquire_lease(a_host(), 60)
    assert lease is not None
    return lease


def connect(server: PostgresServer) -> psycopg.Connection:
    return psycopg.connect(server.url(), autocommit=True)


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_server_that_restarts_in_between_is_not_noticed(
    server: PostgresServer, store: StreamStore, mode: str
) -> None:
    lease = acquire(store)
    store.submit([a_command("start")])
    server.stop(mode)
    server.start()
    assert set(store.desired()) == {"orders"}
    store.report(lease, [STATUS])
    assert store.statuses() == {"orders": STATUS}


def test_calls_wait_for_a_server_that_is_starting(server: PostgresServer, store: StreamStore) -> None:
    lease = acquire(store)
    server.stop()
    starting = threading.Timer(0.5, server.start)
    starting.start()
    try:
        assert store.submit([a_command("restart", id_="1")]) == ("1",)
        store.report(lease, history=[HistoryEntry("orders", "restarted", 1.0)])
    finally:
        starting.join()
    assert store.submit([a_command("restart", id_="1")]) == ()
    assert store.desired()["orders"].generation == 1


def test_a_server_that_stays_away_is_unavailable(
    server: PostgresServer, store: StreamStore, project: str
) -> None:
    hasty = StreamStore.open(server.url(), project, wait=1.0)
    server.stop()
    try:
        started = time.monotonic()
        for use in (hasty.desired, lambda: hasty.submit([a_command("start")])):
            with pytest.raises(
                StoreUnavailable, match=r"did not answer within 1 seconds: .*refused"
            ) as caught:
                use()
            assert server.url() not in str(caught.value)
        assert 1.0 <= time.monotonic() - started < 10
    finally:
        server.start()
    assert store.desired() == {}


def test_connections_that_the_server_closed_are_replaced(server: PostgresServer, store: StreamStore) -> None:
    lease = acquire(store)
    with connect(server) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    store.report(lease, [STATUS])
    assert store.statuses() == {"orders": STATUS}


def test_a_connection_cut_in_mid_transaction_is_tried_again_whole(
    server: PostgresServer, store: StreamStore
) -> None:
    tries = []

    def work(connection: object) -> None:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS tried (n int)")  # type: ignore[attr-defined]
        connection.exec_driver_sql("INSERT INTO tried VALUES (1)")  # type: ignore[attr-defined]
        tries.append(1)
        if len(tries) == 1:
            own = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()  # type: ignore[attr-defined]
            with connect(server) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (own,))

    store._database.write(work)
    assert len(tries) == 2
    with connect(server) as other:
        assert other.execute("SELECT count(*) FROM tried").fetchone() == (1,)
        other.execute("DROP TABLE tried")


def test_a_project_that_is_locked_is_waited_for_up_to_the_limit(
    server: PostgresServer, store: StreamStore, project: str
) -> None:
    hasty = StreamStore.open(server.url(), project, wait=1.0)
    with connect(server) as other:
        other.execute("BEGIN")
        other.execute("SELECT 1 FROM kindling_stream_project WHERE project = %s FOR UPDATE", (project,))
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"was locked for 1 seconds"):
            hasty.submit([a_command("start")])
        assert 0.9 <= time.monotonic() - started < 10
        assert store.desired() == {}
        with StreamStore.open(server.url(), f"{project}-2") as neighbour:
            assert neighbour.submit([a_command("start", id_="1")]) == ("1",)
    assert store.submit([a_command("start", id_="1")]) == ("1",)


def test_a_process_frozen_in_mid_transaction_does_not_keep_the_others_out(
    server: PostgresServer, store: StreamStore, project: str
) -> None:
    frozen = StreamStore.open(server.url(), project, wait=0.5)
    held, go_on = threading.Event(), threading.Event()

    def freeze(connection: object) -> None:
        connection.exec_driver_sql("UPDATE kindling_stream_project SET token = 99")  # type: ignore[attr-defined]
        if not held.is_set():
            held.set()
            go_on.wait(20)

    outcome: list[StoreUnavailable] = []

    def be_frozen() -> None:
        try:
            frozen._database.write(freeze)
        except StoreUnavailable as error:
            outcome.append(error)

    thread = threading.Thread(target=be_frozen)
    thread.start()
    held.wait(20)
    assert acquire(store).token == 1
    go_on.set()
    thread.join()
    assert "idle-in-transaction timeout" in str(outcome)


def test_tables_that_were_dropped(server: PostgresServer, project: str) -> None:
    with connect(server) as other:
        other.execute("CREATE DATABASE dropped")
    url = server.url(database="dropped")
    store = StreamStore.open(url, project)
    lease = acquire(store)
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    for use in (store.desired, lambda: store.report(lease, [STATUS])):
        with pytest.raises(StoreReplaced, match="were dropped while it was in use"):
            use()
    with StreamStore.open(url, project) as new:
        assert (new.desired(), new.host()) == ({}, None)
        with pytest.raises(StoreReplaced):
            store.report(lease, [STATUS])


@pytest.mark.parametrize(
    ("password", "database", "reason"),
    [("wr0ng-p@ss", "postgres", "authentication failed"), (None, "nowhere", '"nowhere" does not exist')],
)
def test_a_refusal_is_told_at_once(
    server: PostgresServer, password: str | None, database: str, reason: str
) -> None:
    url = server.url(database=database) if password is None else server.url(password, database)
    started = time.monotonic()
    with pytest.raises(StoreError, match=reason) as caught:
        StreamStore.open(url, "p", wait=30.0)
    assert not isinstance(caught.value, StoreUnavailable)
    assert time.monotonic() - started < 10
