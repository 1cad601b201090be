"""Whatever hosts, clients and clocks do, in whatever order: one holder, growing tokens, effects once."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from store_fixtures import Clock, a_host

from kindling_dagster.streaming.model import Command, Lease, StreamingQueryState, StreamStatus
from kindling_dagster.streaming.store import LeaseLost, StreamStore, default_store_url

TTL = 30.0
MEMORY_DISK = Path("/dev/shm")  # nothing here is about what survives a power cut
hosts = st.sampled_from(["a", "b", "c"])
handles = st.sampled_from([0, 1])
seconds = st.floats(0.5, 40.0)


class Leases(RuleBasedStateMachine):
    """Three hosts and any number of clients over two handles; ``elapsed`` is the time that truly passed."""

    leases = Bundle("leases")
    folder = tempfile.TemporaryDirectory(dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        url, project = default_store_url(self.folder.name), uuid.uuid4().hex
        self.stores = [StreamStore.open(url, project, clock=self.clock) for _ in range(2)]
        self.elapsed = 0.0
        self.newest: Lease | None = None  # as given out, whether or not it has ended
        self.given_back = False
        self.safe_until = 0.0  # elapsed time until which the holder cannot be displaced
        self.refused_since: float | None = None  # when others were first told to wait for an unheard holder
        self.written: dict[str, int] = {}
        self.obeyed: set[str] = set()
        self.running: dict[str, bool] = {}
        self.generation: dict[str, int] = {}
        self.count = 0

    def teardown(self) -> None:
        for store in self.stores:
            store.close()

    @rule(by=seconds)
    def time_passes(self, by: float) -> None:
        self.clock.now += by
        self.elapsed += by

    @rule(by=st.floats(0.0, 10_000.0))
    def clock_is_set_back(self, by: float) -> None:
        self.clock.now -= by
        self.refused_since = None

    @rule(by=st.floats(0.0, 100.0))
    def clock_is_set_forward(self, by: float) -> None:
        self.clock.now += by
        self.safe_until = 0.0  # nobody can tell that from time that passed
        self.refused_since = None

    @rule(target=leases, host_id=hosts, handle=handles, set_back=st.sampled_from([0.0, 0.0, 5.0, 1000.0]))
    def acquire(self, host_id: str, handle: int, set_back: float) -> object:
        if set_back:
            self.clock_is_set_back(set_back)
        return self._ask(host_id, handle)

    @rule(target=leases, host_id=hosts, handle=handles)
    def wait_for_the_lease(self, host_id: str, handle: int) -> object:
        for _ in range(4):  # longer than a lease lasts
            if isinstance(lease := self._ask(host_id, handle), Lease):
                return lease
            self.time_passes(TTL / 2)
        raise AssertionError("nobody renewed the lease, and yet it did not end")

    def _ask(self, host_id: str, handle: int) -> object:
        lease = self.stores[handle].acquire_lease(a_host(host_id), TTL)
        foreign = self.newest is not None and not self.given_back and self.newest.host_id != host_id
        if lease is None:
            assert foreign, "refused although nobody else holds it"
            if self.refused_since is None:
                self.refused_since = self.elapsed
            assert self.elapsed - self.refused_since <= TTL + 1e-6, "locked out for longer than a lease lasts"
            return multiple()
        if foreign:
            assert self.elapsed >= self.safe_until - 1e-6, "taken from a host whose lease was live"
        assert lease.token == (self.newest.token if self.newest else 0) + 1
        self._holds(lease)
        return lease

    @rule(lease=leases, handle=handles)
    def renew(self, lease: Lease, handle: int) -> None:
        if self._is_newest(lease):
            renewed = self.stores[handle].renew(lease, TTL)
            assert renewed.token == lease.token
            self._holds(renewed)
        else:
            self._must_be_lost(lambda: self.stores[handle].renew(lease, TTL))

    @rule(lease=leases, handle=handles, stream_id=st.sampled_from(["x", "y"]))
    def report(self, lease: Lease, handle: int, stream_id: str) -> None:
        self.count += 1
        status = StreamStatus(stream_id, StreamingQueryState.RUNNING, restarts=self.count)
        if self._is_newest(lease):
            self.stores[handle].report(lease, [status])
            self.written[stream_id] = self.count
        else:
            self._must_be_lost(lambda: self.stores[handle].report(lease, [status]))

    @rule(lease=consumes(leases), handle=handles)
    def release(self, lease: Lease, handle: int) -> None:
        self.stores[handle].release(lease)
        if self._is_newest(lease):
            self.given_back = True

    @rule(
        sent=st.lists(
            st.builds(
                Command,
                st.sampled_from([f"id-{n}" for n in range(12)]),
                st.sampled_from(["start", "stop", "restart", "revive"]),
                st.sampled_from(["x", "y"]),
            ),
            min_size=1,
            max_size=4,
        ),
        handle=handles,
    )
    def submit(self, sent: list[Command], handle: int) -> None:
        expected = []
        for command in sent:
            if command.id not in self.obeyed:
                self.obeyed.add(command.id)
                expected.append(command.id)
                self.running[command.stream_id] = command.action != "stop"
                raised = command.action in ("restart", "revive")
                self.generation[command.stream_id] = self.generation.get(command.stream_id, 0) + raised
        assert self.stores[handle].submit(sent) == tuple(expected)

    @rule(handle=handles)
    def look_at_the_host(self, handle: int) -> None:
        host = self.stores[handle].host()
        if self.newest is None:
            assert host is None
            return
        assert host is not None
        assert (host.host_id, host.token) == (self.newest.host_id, self.newest.token)
        assert host.expires_at <= self.clock.now + TTL + 1e-6
        if not self.given_back and self.elapsed < self.safe_until - 1e-6:
            assert host.alive(self.clock.now), "a host that renewed in time is shown as dead"

    @invariant()
    def what_is_stored_is_what_was_written(self) -> None:
        statuses = self.stores[0].statuses()
        assert {key: status.restarts for key, status in statuses.items()} == self.written
        desired = self.stores[1].desired()
        assert {key: wanted.running for key, wanted in desired.items()} == self.running
        assert {key: wanted.generation for key, wanted in desired.items()} == self.generation

    def _holds(self, lease: Lease) -> None:
        self.newest, self.given_back, self.refused_since = lease, False, None
        self.safe_until = self.elapsed + TTL

    def _is_newest(self, lease: Lease) -> bool:
        newest = self.newest
        return newest is not None and lease.token == newest.token and not self.given_back

    def _must_be_lost(self, write: object) -> None:
        try:
            write()  # type: ignore[operator]
        except LeaseLost:
            return
        raise AssertionError("a write with an outdated token went through")


TestLeases = Leases.TestCase
TestLeases.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
