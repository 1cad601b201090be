"""Leases: one holder at a time, tokens that grow, clocks that jump."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from store_fixtures import Clock, a_host

from kindling_dagster.streaming.model import Lease, RecoveryState, StreamingQueryState, StreamStatus
from kindling_dagster.streaming.store import LeaseLost, StoreError, StreamStore, default_store_url
from kindling_dagster.streaming.store.leases import Holding

TTL = 30.0
HOUR = 3600.0
STATUS = StreamStatus("orders", StreamingQueryState.RUNNING)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> StreamStore:
    return StreamStore.open(default_store_url(str(tmp_path)), "p", clock=clock)


def acquire(store: StreamStore, host_id: str, ttl: float = TTL) -> Lease:
    lease = store.acquire_lease(a_host(host_id), ttl)
    assert lease is not None
    return lease


@pytest.mark.parametrize(
    ("holding", "host_id", "now", "free"),
    [
        (Holding("", 0, False, 0.0, 0.0), "b", 100.0, True),
        (Holding("a", 1, True, 30.0, 130.0), "b", 100.0, False),
        (Holding("a", 1, True, 30.0, 130.0), "b", 129.9, False),
        (Holding("a", 1, True, 30.0, 130.0), "b", 130.0, True),
        (Holding("a", 1, True, 30.0, 130.0), "a", 100.0, True),
        (Holding("a", 1, False, 30.0, 130.0), "b", 100.0, True),
        (Holding("a", 1, True, 30.0, 130.0), "b", 10.0, False),
    ],
    ids=["never held", "held", "just held", "ended", "its own", "given back", "clock set back"],
)
def test_who_may_take_it(holding: Holding, host_id: str, now: float, free: bool) -> None:
    assert holding.free_for(host_id, now) is free


@pytest.mark.parametrize(("now", "end"), [(100.0, 130.0), (120.0, 130.0), (200.0, 130.0), (40.0, 70.0)])
def test_a_lease_never_ends_further_away_than_it_lasts(now: float, end: float) -> None:
    assert Holding("a", 1, True, 30.0, 130.0).ends_at(now) == end


def test_one_holder_at_a_time(store: StreamStore, clock: Clock) -> None:
    first = acquire(store, "a")
    assert first == Lease("a", 1, clock.now + TTL)
    clock.now += TTL - 1
    assert store.acquire_lease(a_host("b"), TTL) is None
    assert store.renew(first, TTL) == Lease("a", 1, clock.now + TTL)
    clock.now += TTL - 1
    assert store.acquire_lease(a_host("b"), TTL) is None
    clock.now += 1
    assert acquire(store, "b").token == 2


def test_a_host_that_wakes_up_can_write_nothing(store: StreamStore, clock: Clock) -> None:
    old = acquire(store, "a")
    clock.now += 2 * TTL
    new = acquire(store, "b")
    store.report(new, [STATUS])
    for write in (
        lambda: store.renew(old, TTL),
        lambda: store.report(old, [StreamStatus("orders", StreamingQueryState.FAILED)]),
        lambda: store.report(old, recovery={"orders": RecoveryState(dead=True)}),
    ):
        with pytest.raises(LeaseLost, match="its token is 1, the newest is 2 of host b"):
            write()
    store.release(old)
    assert store.statuses() == {"orders": STATUS}
    assert store.recovery_states() == {}
    host = store.host()
    assert host is not None
    assert (host.host_id, host.token, host.alive(clock.now)) == ("b", 2, True)


def test_a_lease_that_ended_but_was_not_taken_is_renewed(store: StreamStore, clock: Clock) -> None:
    lease = acquire(store, "a")
    clock.now += 10 * TTL
    store.report(lease, [STATUS])
    renewed = store.renew(lease, TTL)
    assert store.acquire_lease(a_host("b"), TTL) is None
    assert (renewed.token, renewed.expires_at) == (1, clock.now + TTL)


def test_a_host_that_asks_again_gets_a_newer_token(store: StreamStore) -> None:
    first, second = acquire(store, "a"), acquire(store, "a")
    assert second.token == first.token + 1
    with pytest.raises(LeaseLost):
        store.report(first, [STATUS])
    store.report(second, [STATUS])


def test_what_is_said_of_the_host(store: StreamStore, clock: Clock) -> None:
    assert store.host() is None
    asked = a_host("a", run_id="run", pid=7, hostname="box", code_version="c", detail="hello")
    lease = store.acquire_lease(asked, TTL)
    assert lease is not None
    clock.now += 5
    store.renew(lease, TTL, "draining", "two streams left")
    host = store.host()
    assert host is not None
    assert (host.run_id, host.pid, host.hostname, host.code_version) == ("run", 7, "box", "c")
    assert (host.state, host.detail, host.token) == ("draining", "two streams left", 1)
    times = (host.started_at, host.heartbeat_at, host.expires_at)
    assert times == (clock.now - 5, clock.now, clock.now + TTL)
    store.release(lease)
    host = store.host()
    assert host is not None
    assert (host.state, host.alive(clock.now)) == ("ended", False)
    assert acquire(store, "b").token == 2


def test_a_dead_host_does_not_lock_out_when_the_clock_was_set_back(store: StreamStore, clock: Clock) -> None:
    acquire(store, "dead")
    clock.now -= HOUR
    assert store.acquire_lease(a_host("b"), TTL) is None  # it may live, and its time is not over
    clock.now += TTL - 1
    assert store.acquire_lease(a_host("b"), TTL) is None
    clock.now += 1
    assert acquire(store, "b").token == 2


def test_asking_who_it_is_is_enough_to_end_it(store: StreamStore, clock: Clock) -> None:
    acquire(store, "dead")
    clock.now -= HOUR
    host = store.host()
    assert host is not None
    assert host.expires_at == clock.now + TTL
    clock.now += TTL
    host = store.host()
    assert host is not None
    assert not host.alive(clock.now)


def test_a_live_host_keeps_the_lease_when_the_clock_was_set_back(store: StreamStore, clock: Clock) -> None:
    lease = acquire(store, "a")
    clock.now -= HOUR
    for _ in range(5):
        assert store.acquire_lease(a_host("b"), TTL) is None
        clock.now += TTL / 3
        lease = store.renew(lease, TTL)
    assert lease.expires_at == clock.now + TTL


def test_of_many_that_ask_at_once_one_gets_it(url: str, project: str) -> None:
    store = StreamStore.open(url, project)
    got: list[Lease] = []
    ready = threading.Barrier(8)

    def ask(host_id: str) -> None:
        ready.wait()
        lease = store.acquire_lease(a_host(host_id), TTL)
        if lease is not None:
            got.append(lease)

    threads = [threading.Thread(target=ask, args=(f"host-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [lease.token for lease in got] == [1]


def test_a_lease_ends_by_itself(url: str, project: str) -> None:
    store = StreamStore.open(url, project)
    acquire(store, "a", ttl=0.4)
    asked = time.monotonic()
    while (lease := store.acquire_lease(a_host("b"), 30)) is None:
        assert time.monotonic() < asked + 10
    assert lease.token == 2
    assert time.monotonic() >= asked + 0.3


def test_on_postgresql_the_server_s_clock_decides(postgres: PostgresServer, project: str) -> None:
    early, late = Clock(time.time() - HOUR), Clock(time.time() + HOUR)
    first = StreamStore.open(postgres.url(), project, clock=early)
    second = StreamStore.open(postgres.url(), project, clock=late)
    lease = acquire(first, "a")
    assert lease.expires_at == early.now + TTL
    assert second.acquire_lease(a_host("b"), TTL) is None
    for store, clock in ((first, early), (second, late)):
        host = store.host()
        assert host is not None
        assert host.alive(clock.now)
        assert clock.now + TTL - 5 < host.expires_at <= clock.now + TTL + 0.01
        assert not host.alive(clock.now + TTL + 1)


@pytest.mark.parametrize(("host_id", "ttl"), [("", 30.0), ("a", 0.0), ("a", -1.0)])
def test_a_lease_needs_a_host_and_a_time(store: StreamStore, host_id: str, ttl: float) -> None:
    with pytest.raises(StoreError, match="needs a host's id and a time to live above 0"):
        store.acquire_lease(a_host(host_id), ttl)
