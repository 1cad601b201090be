"""A host's lease: taken, kept, lost, given back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from stream_fakes import WAIT

from kindling_dagster.streaming.fencing import LeaseFence
from kindling_dagster.streaming.host_lease import LeaseKeeper
from kindling_dagster.streaming.host_settings import HostRefusedError
from kindling_dagster.streaming.model import HostInfo
from kindling_dagster.streaming.processes import machine_id
from kindling_dagster.streaming.store import StoreUnavailable, StreamStore, default_store_url


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StreamStore]:
    with StreamStore.open(default_store_url(str(tmp_path)), "shop") as opened:
        yield opened


class Kept:
    """A keeper, its fence, and whether it was told that the lease is lost."""

    def __init__(self, store: StreamStore, ttl: float = 30.0, pid: int | None = None) -> None:
        self.fence = LeaseFence()
        self.lost = threading.Event()
        self.info = HostInfo(uuid.uuid4().hex, 0, pid=pid or os.getpid(), machine=machine_id())
        self.keeper = LeaseKeeper(store, self.info, ttl, self.fence, self.lost.set)

    def acquire(self, wait: float = 0.0) -> bool:
        return self.keeper.acquire(wait, threading.Event())


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_taken_told_and_given_back(store: StreamStore) -> None:
    kept = Kept(store)
    assert kept.acquire()
    assert 29 < kept.fence.seconds_left <= 30
    kept.keeper.tell("running", "all is well")
    deadline = time.monotonic() + WAIT
    while (host := store.host()) is None or host.state != "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kept.keeper.stop(release=True)
    assert store.host().alive() is False
    assert kept.fence.seconds_left == 0
    assert not kept.lost.is_set()
    assert Kept(store).acquire()


def test_a_living_host_is_not_pushed_aside(store: StreamStore) -> None:
    first = Kept(store)
    first.acquire()
    with pytest.raises(HostRefusedError, match=f"process {os.getpid()}"):
        Kept(store).acquire()
    assert first.fence.seconds_left > 0
    first.keeper.stop(release=True)


def test_told_to_stop_while_waiting(store: StreamStore) -> None:
    first, stop = Kept(store), threading.Event()
    first.acquire()
    threading.Timer(0.1, stop.set).start()
    assert Kept(store).keeper.acquire(60, stop) is False
    first.keeper.stop(release=True)


def test_the_lease_of_a_dead_process_is_not_waited_for(store: StreamStore) -> None:
    store.acquire_lease(Kept(store, pid=dead_process()).info, 600)
    assert Kept(store).acquire()


def test_taken_by_another_it_is_lost_at_once(store: StreamStore) -> None:
    first = Kept(store, ttl=0.9)
    first.acquire()
    pushed: list[float] = []
    first.keeper.push_with(pushed.append)
    store.release(first.keeper.lease)  # as a host does that takes this process for dead
    second = Kept(store)
    assert second.acquire()
    assert first.lost.wait(WAIT)
    assert "lease" in first.keeper.lost
    assert first.fence.seconds_left == 0
    first.keeper.stop(release=True)
    assert store.host().host_id == second.info.host_id
    assert store.host().alive()
    second.keeper.stop(release=True)


def test_a_store_that_does_not_answer_is_survived_until_the_lease_is_over(
    store: StreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(store, ttl=1.8)
    kept.acquire()
    tried = []

    def renew(*args: object) -> None:
        tried.append(kept.fence.seconds_left)
        raise StoreUnavailable("It is locked.")

    monkeypatch.setattr(store, "renew", renew)
    assert kept.lost.wait(WAIT)
    assert len([left for left in tried if left > 0]) > 3
    assert tried[-1] == 0
    kept.keeper.stop(release=False)


def test_a_jvm_that_does_not_answer_ends_it(store: StreamStore) -> None:
    kept = Kept(store, ttl=0.9)
    kept.acquire()
    answers = [None, None]

    def push(seconds: float) -> None:
        answers.pop()

    kept.keeper.push_with(push)
    assert kept.lost.wait(WAIT)
    assert "JVM does not answer" in kept.keeper.lost
    kept.keeper.stop(release=True)
