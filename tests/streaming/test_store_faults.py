"""A SQLite store that is locked, deleted, damaged, full, forked, or whose writer is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from fork_server import FORK_SERVER
from sqlalchemy import text
from sqlalchemy.engine import Connection
from store_fixtures import a_command, a_host

from kindling_dagster.streaming.model import HistoryEntry, Lease, StreamingQueryState, StreamStatus
from kindling_dagster.streaming.store import (
    StoreCorrupted,
    StoreError,
    StoreReplaced,
    StoreUnavailable,
    StreamStore,
    default_store_url,
)

STATUS = StreamStatus("orders", StreamingQueryState.RUNNING)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kindling_streams.db"


@pytest.fixture
def store(path: Path) -> Iterator[StreamStore]:
    with open_store(path) as opened:
        yield opened


def open_store(path: Path, wait: float = 5.0) -> StreamStore:
    return StreamStore.open(default_store_url(str(path.parent)), "p", wait=wait)


def acquire(store: StreamStore) -> Lease:
    lease = store.acquire_lease(a_host(), 30)
    assert lease is not None
    return lease


@contextlib.contextmanager
def locked(path: Path, readers_too: bool = False) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        if readers_too:
            other.execute("PRAGMA locking_mode=EXCLUSIVE")
            other.execute("PRAGMA journal_mode=DELETE")
        other.execute("BEGIN EXCLUSIVE")
        yield other


def test_a_locked_store_is_waited_for(store: StreamStore, path: Path) -> None:
    with locked(path) as other:
        timer = threading.Timer(0.6, lambda: other.execute("COMMIT"))
        timer.start()
        started = time.monotonic()
        assert store.submit([a_command("start", id_="1")]) == ("1",)
        assert time.monotonic() - started >= 0.5
        timer.join()


def test_a_store_that_stays_locked_is_unavailable_to_writers_only(path: Path) -> None:
    store = open_store(path, wait=0.4)
    with locked(path):
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"streams\.db was locked by another process for 0\.4 sec"):
            store.submit([a_command("start")])
        assert 0.3 <= time.monotonic() - started < 5
        assert store.desired() == {}
        assert open_store(path, wait=0.4).statuses() == {}
    assert store.submit([a_command("start", id_="1")]) == ("1",)


def test_a_store_locked_whole_keeps_everyone_waiting_up_to_the_limit(store: StreamStore, path: Path) -> None:
    store.submit([a_command("start")])
    store.close()
    with locked(path, readers_too=True), pytest.raises(StoreUnavailable, match="locked"):
        open_store(path, wait=0.3)
    assert set(store.desired()) == {"orders"}


def test_a_deleted_store_takes_no_write_and_no_read(store: StreamStore, path: Path) -> None:
    store.submit([a_command("start")])
    lease = acquire(store)
    path.unlink()
    for use in (
        lambda: store.submit([a_command("stop")]),
        lambda: store.report(lease, [STATUS]),
        store.desired,
        store.host,
    ):
        with pytest.raises(StoreReplaced, match=r"deleted or replaced .* the desired states"):
            use()
    assert not path.exists()


def test_a_deleted_store_is_made_anew_by_the_next_one_who_opens_it(store: StreamStore, path: Path) -> None:
    store.submit([a_command("start")])
    lease = acquire(store)
    path.unlink()  # the log beside it stays and must not be replayed into the new store
    with open_store(path) as new:
        assert (new.desired(), new.host()) == ({}, None)
        assert new.identity != store.identity
        new.submit([a_command("start", "clicks")])
        with pytest.raises(StoreReplaced):
            store.report(lease, [STATUS])
        store.close()
        with pytest.raises(StoreReplaced):
            store.desired()
        assert acquire(new).token == 1
    with open_store(path) as again:
        assert set(again.desired()) == {"clicks"}


def test_deleted_in_the_middle_of_a_write(store: StreamStore, path: Path) -> None:
    with pytest.raises(StoreReplaced):
        store._database.write(lambda connection: path.unlink())


def test_a_token_of_a_deleted_store_is_no_good_in_the_next(store: StreamStore, path: Path) -> None:
    old = acquire(store)
    path.unlink()
    with open_store(path) as new:
        other = new.acquire_lease(a_host("host-2"), 30)
        assert other is not None
        assert other.token == old.token
        with pytest.raises(StoreError, match="no longer holds the lease"):
            new.report(old, [STATUS])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "it has 0 bytes"),
        (lambda data: data[:100], "it has 100 bytes"),
        (lambda data: b"no store at all, but a long text " * 200, "not a database"),
        (lambda data: b"\x00" * len(data), "not a database"),
        (lambda data: data[:2048] + os.urandom(len(data) - 2048), "malformed"),
        (lambda data: data[:8192], "malformed"),
    ],
    ids=["empty", "cut short", "a text", "zeros", "pages overwritten", "pages missing"],
)
def test_a_damaged_store_is_named_and_left_as_it_is(path: Path, damage: object, reason: str) -> None:
    with open_store(path) as store:
        store.submit([a_command("start")])
    path.write_bytes(damaged := damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(StoreCorrupted) as caught:
        open_store(path).desired()
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)
    assert "sqlite3 kindling_streams.db .recover" in caught.value.suggestion
    assert path.read_bytes() == damaged


def test_damaged_while_it_is_open(store: StreamStore, path: Path) -> None:
    store.submit([a_command("start")])
    with path.open("r+b") as file:
        file.truncate(0)
    with pytest.raises(StoreCorrupted, match="it has 0 bytes"):
        store.submit([a_command("stop")])


def test_a_full_database_changes_nothing(store: StreamStore) -> None:
    lease = acquire(store)
    store.report(lease, [STATUS])
    with store._database._live_engine().connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
    entries = [HistoryEntry("orders", "failed", float(n), "x" * 4_000) for n in range(50)]
    failed = StreamStatus("orders", StreamingQueryState.FAILED)
    with pytest.raises(StoreUnavailable, match="its disk is full; nothing was changed"):
        store.report(lease, [failed], history=entries)
    assert (store.statuses(), store.history()) == ({"orders": STATUS}, ())
    with store._database._live_engine().connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=100000")
    store.report(lease, [failed], history=entries)
    assert (store.statuses(), len(store.history())) == ({"orders": failed}, 50)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root may mount a small disk, and not in every container")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_disk_that_runs_full_and_is_cleared(small_disk: Path) -> None:
    store = open_store(small_disk / "kindling_streams.db")
    lease = acquire(store)
    store.report(lease, [STATUS])
    ballast = small_disk / "ballast"
    fill_up(ballast)
    entries = [HistoryEntry("orders", "failed", float(n), "x" * 4_000) for n in range(20)]
    with pytest.raises(StoreUnavailable, match=r"full|I/O error"):
        store.report(lease, [StreamStatus("orders", StreamingQueryState.FAILED)], history=entries)
    assert (store.statuses(), store.history()) == ({"orders": STATUS}, ())
    ballast.unlink()
    store.report(lease, history=entries)
    assert len(store.history()) == 20
    store.close()


def test_a_disk_that_is_full_from_the_start(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x" * 600 * 1024)
    path = small_disk / "kindling_streams.db"
    with pytest.raises(StoreUnavailable, match=r"cannot be made: .*(full|I/O error)"):
        open_store(path)
    assert not path.exists()
    (small_disk / "ballast").unlink()
    open_store(path).close()


def write_and_wait(path: Path, written: Event) -> None:
    def work(connection: Connection) -> None:
        connection.execute(text("UPDATE kindling_stream_project SET token = 99"))
        connection.execute(text("DELETE FROM kindling_stream_desired"))
        written.set()
        time.sleep(600)

    open_store(path)._database.write(work)


def test_a_writer_killed_in_mid_transaction_leaves_nothing(store: StreamStore, path: Path) -> None:
    store.submit([a_command("start")])
    written = FORK_SERVER.Event()
    writer = FORK_SERVER.Process(target=write_and_wait, args=(path, written), daemon=True)
    writer.start()
    assert written.wait(60)
    assert set(store.desired()) == {"orders"}
    writer.kill()
    writer.join()
    assert acquire(store).token == 1
    assert set(store.desired()) == {"orders"}


def test_a_forked_process_uses_its_own_connections(store: StreamStore) -> None:
    store.submit([a_command("start", "before")])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            store.submit([a_command("start", "child")])
            status = 0 if {"before", "child"} <= set(store.desired()) else 2
            store.close()
        finally:
            os._exit(status)
    store.submit([a_command("start", "parent")])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert set(store.desired()) == {"before", "child", "parent"}
    assert store._database.read(lambda c: c.execute(text("PRAGMA integrity_check")).scalar_one()) == "ok"


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match=r"cannot be made: .*(File exists|Not a directory)"):
        open_store(tmp_path / "file" / "kindling_streams.db")


def test_the_folder_is_made_and_nothing_is_left_but_the_store(tmp_path: Path) -> None:
    open_store(tmp_path / "a" / "b" / "kindling_streams.db").close()
    names = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
    assert names == [".kindling_streams.db.lock", "kindling_streams.db"]
