"""Hosts that are killed, frozen, doubled and stopped: the tables are exact afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from faults.harness import Flow, flow, wait_for

from kindling_dagster.streaming.model import StreamingQueryState as State

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Flow]:
    """A flow all of whose streams are wanted."""
    with flow(tmp_path) as made:
        made.ask("start")
        yield made


def land_until(running: Flow, what: str, look: object, seconds: float = 60) -> None:
    """Land orders until ``look`` gives something true."""

    def landed() -> bool:
        running.land(3)
        return bool(look())  # type: ignore[operator]

    wait_for(what, landed, seconds, pause=0.02)


def test_host_killed_in_a_batch_then_a_second_and_a_third_one(running: Flow) -> None:
    """SIGKILL in the middle of a batch; a new host at once; a third is refused; SIGTERM drains the second."""
    first = running.host()
    running.await_state(State.RUNNING)
    running.await_exact()
    land_until(running, "a batch under way", lambda: running.mid_batch("priced"))
    first.signal(signal.SIGKILL)
    first.wait()
    running.land(5)

    second = running.host()
    # The lease of a process that has died is not waited for: it would hold 20 s more.
    wait_for("a second host", lambda: running.store.host().pid == second.process.pid, 15)
    running.await_exact()
    running.await_state(State.RUNNING)

    third = running.host(lease_wait=1.0)
    assert third.wait() == 3
    assert f"process {second.process.pid}" in third.text()

    running.land(5)
    second.signal(signal.SIGTERM)
    assert second.wait() == 0, second.text()
    assert "ended: it was told to end" in second.text()
    running.await_state(State.STOPPED, seconds=1)
    host = running.store.host()
    assert host is not None
    assert not host.alive()
    statuses = running.store.statuses()
    assert {each: statuses[each].restarts for each in statuses} == {"clean": 1, "priced": 1, "history": 1}


@pytest.mark.faults
def test_host_frozen_past_its_lease_writes_nothing_when_it_goes_on(running: Flow) -> None:
    """Only the Python process is frozen: its JVM must end by itself before the next host begins."""
    first = running.host(lease=6.0)
    running.await_state(State.RUNNING)
    running.await_exact()
    jvm = first.jvm()
    land_until(running, "a batch under way", lambda: running.mid_batch("history"))
    first.signal(signal.SIGSTOP)
    # Its frozen parent cannot ask how it ended.
    wait_for("the JVM's end", lambda: jvm.status() == psutil.STATUS_ZOMBIE, 15)
    second = running.host()
    running.land(5)
    running.await_exact()
    first.signal(signal.SIGCONT)
    assert first.wait() == 4, first.text()
    assert "lost" in first.text()
    running.land(5)
    running.await_exact()
    host = running.store.host()
    assert host is not None
    assert host.pid == second.process.pid


@pytest.mark.faults
def test_host_frozen_with_its_jvm_then_continued_beside_another(running: Flow) -> None:
    """The whole machine, as it were, stands still and comes back in the middle of its batch."""
    first = running.host(lease=6.0)
    running.await_state(State.RUNNING)
    running.await_exact()
    jvm = first.jvm()
    land_until(running, "a batch under way", lambda: running.mid_batch("history"))
    first.signal(signal.SIGSTOP)
    jvm.suspend()
    time.sleep(6)  # its lease ends by the clock
    second = running.host()
    running.land(5)
    running.await_exact()
    running.land(5)
    jvm.resume()
    first.signal(signal.SIGCONT)
    assert first.wait() == 4, first.text()
    running.await_exact()
    assert second.process.poll() is None


@pytest.mark.faults
def test_jvm_killed_alone_ends_the_host_and_blames_no_stream(running: Flow) -> None:
    first = running.host()
    running.await_state(State.RUNNING)
    running.await_exact()
    land_until(running, "a batch under way", lambda: running.mid_batch("priced"))
    first.jvm().kill()
    assert first.wait(30) == 4, first.text()
    assert "Spark's JVM has ended" in first.text()
    assert all(state.failures == 0 for state in running.store.recovery_states().values())
    running.host()
    running.await_exact()


LOCK = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("PRAGMA busy_timeout = 20000")
store.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""
LOCKED_SECONDS = 30.0


@contextmanager
def locked_store(running: Flow) -> Iterator[None]:
    """Another process holds the store locked, and is then killed."""
    command = [sys.executable, "-c", LOCK, str(running.folder / "streams.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as locking:
        assert locking.stdout is not None
        assert locking.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            locking.kill()


@pytest.mark.faults
@pytest.mark.parametrize("lease", [45.0, 12.0], ids=["as long as by default", "shorter than the lock"])
def test_store_locked_for_half_a_minute_by_another_process(running: Flow, lease: float) -> None:
    """Streams go on as long as the lease holds; a host whose lease ends under the lock ends, and the next goes on."""
    first = running.host(lease=lease)
    running.await_state(State.RUNNING)
    running.await_exact()
    token, before = running.store.host().token, len(running.orders)
    with locked_store(running):
        until = time.monotonic() + LOCKED_SECONDS
        while time.monotonic() < until:
            running.land(2)
            time.sleep(1)
        arrived = running.rows("silver/orders", "id").total()
    assert arrived > before
    if lease < LOCKED_SECONDS:
        assert first.wait() == 4, first.text()
        assert "its lease is lost" in first.text()
        running.host()
    running.land(2)
    running.await_exact()
    running.await_state(State.RUNNING)
    if lease > LOCKED_SECONDS:
        assert first.process.poll() is None
        assert running.store.host().token == token
        assert all(status.restarts == 0 for status in running.store.statuses().values())
        every = len(running.orders)
        wait_for("all rows told", lambda: running.store.statuses()["clean"].rows_committed == every, 20)
