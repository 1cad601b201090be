"""The streams of a host without Spark: real manager, recovery and store; queries that do as they are told."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from manifests import manifest, pipe
from stream_fakes import WAIT, FakeClock, FakeQuery, progress

from kindling_dagster.errors import RunError
from kindling_dagster.streaming.events import SparkEvent
from kindling_dagster.streaming.failures import CheckpointError
from kindling_dagster.streaming.health import Verdict
from kindling_dagster.streaming.host_reports import Reporter
from kindling_dagster.streaming.hosted import HostedStreams
from kindling_dagster.streaming.model import (
    Command,
    HostInfo,
    StreamHealth,
    StreamingQueryConfig,
    StreamingQueryState,
)
from kindling_dagster.streaming.queries import StreamingQueryManager
from kindling_dagster.streaming.recovery import StreamingRecoveryManager
from kindling_dagster.streaming.store import StoreUnavailable, StreamStore, default_store_url

STREAM = {"processing_mode": "streaming", "dagster/stream_max_retries": "2"}
APP = manifest(
    pipe("clean", "raw", "silver", tags=STREAM),
    pipe("priced", "silver", "gold", tags=STREAM),
    pipe("told", "raw", "other", tags={**STREAM, "dagster/stream_recovery": "alert"}),
)


class Starts:
    """Starts fake queries, and remembers them in order; ``errors`` are raised instead, once each."""

    def __init__(self) -> None:
        self.queries: list[tuple[str, FakeQuery]] = []
        self.errors: dict[str, list[Exception]] = {}
        self.tried: list[str] = []
        self.before_return: Callable[[str], object] = str

    def builder(self, stream_id: str, config: StreamingQueryConfig) -> Callable[[], Any]:
        def start() -> FakeQuery:
            self.tried.append(stream_id)
            if self.errors.get(stream_id):
                raise self.errors[stream_id].pop(0)
            query = FakeQuery(f"spark-{stream_id}")
            self.queries.append((stream_id, query))
            self.before_return(stream_id)
            return query

        return start

    def of(self, stream_id: str) -> list[FakeQuery]:
        return [query for each, query in self.queries if each == stream_id]


class World:
    """A host's streams over a store, host by host; time goes when ``tick`` is told so."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.starters = 4
        self.stop_timeout = WAIT
        self.store = StreamStore.open(default_store_url(str(folder)), "shop", clock=self.clock)
        self.new_host()

    def new_host(self) -> None:
        """Another host takes over; whatever ran is gone."""
        lease = self.store.acquire_lease(HostInfo(uuid.uuid4().hex, 0), 1e9)
        if lease is None:
            self.store.release(self.lease)
            lease = self.store.acquire_lease(HostInfo(uuid.uuid4().hex, 0), 1e9)
        assert lease is not None
        self.lease = lease
        self.starts = Starts()
        self.broken: Exception | None = None
        before = self.store.statuses()
        self.manager = StreamingQueryManager(clock=self.clock, stop_timeout=self.stop_timeout)
        self.reporter = Reporter(self.store, before, "run-1", 5.0, self.clock)
        recovery = StreamingRecoveryManager(
            states=self.store.recovery_states(), clock=self.clock, rng=lambda: 0.5
        )
        self.streams = HostedStreams(
            APP,
            self.starts,
            self.manager,
            recovery,
            self.reporter,
            before=before,
            check=self._check,
            wake=threading.Event(),
            starters=self.starters,
            clock=self.clock,
        )

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken

    def ask(self, action: Any, *stream_ids: str) -> None:
        self.store.submit([Command(uuid.uuid4().hex, action, each, "asked", "me") for each in stream_ids])

    def tick(self, seconds: float = 0.0, times: int = 1) -> None:
        """Let time pass, look, and wait until what was begun is done."""
        self.clock.now += seconds
        for _ in range(times):
            self.streams.tick(self.store.desired())
            done = threading.Event()
            for _ in range(int(WAIT / 0.005)):
                if not self.streams.busy():
                    break
                done.wait(0.005)
            assert not self.streams.busy()
        self.report()

    def report(self) -> None:
        self.reporter.report(
            self.lease, self.streams.sights(), self.streams.changed_recovery(), self.streams.seen()
        )

    def fail(self, stream_id: str, text: str = "java.io.IOException: gone") -> None:
        """The present query dies."""
        query = self.starts.of(stream_id)[-1]
        query.active = False
        self.streams.observe(SparkEvent("terminated", query.id, query.runId, self.clock(), exception=text))

    def progress(self, stream_id: str, batch_id: int = 0, rows: int = 10) -> None:
        query = self.starts.of(stream_id)[-1]
        report = progress(batch_id, rows)
        self.streams.observe(SparkEvent("progress", query.id, query.runId, self.clock(), progress=report))

    def state(self, stream_id: str) -> str:
        return self.store.statuses()[stream_id].state.value

    def events(self, stream_id: str) -> list[str]:
        return [entry.event for entry in reversed(self.store.history(stream_id))]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_consumer_starts_before_producer_and_both_are_reported(world: World) -> None:
    world.ask("start", "clean", "priced")
    world.tick()
    assert world.starts.tried == ["priced"]
    world.tick()
    assert world.starts.tried == ["priced", "clean"]
    assert {each: world.state(each) for each in ("clean", "priced")} == {
        "clean": "running",
        "priced": "running",
    }
    status = world.store.statuses()["clean"]
    assert (status.restarts, status.host_run_id, status.spark_query_id) == (0, "run-1", "spark-clean")
    assert world.events("clean") == ["started"]


def test_failure_waits_its_backoff_and_counts_the_restart(world: World) -> None:
    world.ask("start", "clean")
    world.tick()
    world.fail("clean")
    world.tick()
    assert world.state("clean") == "waiting"
    assert world.store.statuses()["clean"].next_start_at == world.clock() + 1.0
    world.tick(0.9)
    assert len(world.starts.of("clean")) == 1
    world.tick(0.2)
    assert world.state("clean") == "running"
    assert world.store.statuses()["clean"].restarts == 1
    assert world.events("clean") == ["started", "failed", "waiting", "restarted"]


def test_a_failure_is_not_told_as_the_end_before_it_is_judged(world: World) -> None:
    """A run that waits for the stream would fail over it."""
    world.ask("start", "clean", "told")
    world.tick()
    for each in ("clean", "told"):
        world.fail(each)
    world.report()
    assert (world.state("clean"), world.state("told")) == ("waiting", "failed")


def test_query_that_dies_after_each_start_exhausts_and_is_revived(world: World) -> None:
    world.ask("start", "clean")
    world.tick()
    for wait in (1.1, 2.2):
        world.fail("clean")
        world.tick()
        world.tick(wait)
    world.fail("clean")
    world.tick()
    assert world.state("clean") == "dead_letter"
    assert world.store.dead_letters()["clean"].failures == 3
    world.tick(1000)
    world.ask("restart", "clean")
    world.tick(1000)
    assert len(world.starts.of("clean")) == 3
    world.ask("revive", "clean")
    world.tick()
    assert world.state("clean") == "running"
    assert world.store.dead_letters() == {}
    assert world.store.recovery_states()["clean"].failures == 0
    assert world.events("clean")[-2:] == ["revived", "restarted"]


def test_a_restart_is_no_revival_although_the_store_knows_of_no_failure_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("The store is locked.")

    world.ask("start", "clean")
    with monkeypatch.context() as patch:
        patch.setattr(StreamStore, "report", locked)
        world.tick()
        world.fail("clean")
        world.tick()
    world.ask("restart", "clean")
    world.tick()
    assert world.events("clean") == ["started", "failed", "waiting", "restarted"]
    assert world.store.recovery_states()["clean"].failures == 1


@pytest.mark.parametrize("idle", [False, True])
def test_failures_are_forgotten_after_progress_and_a_stable_time(world: World, idle: bool) -> None:
    """A query that finds nothing to read has read all there was, also what failed before."""
    world.ask("start", "clean")
    world.tick()
    world.fail("clean")
    world.tick()
    world.tick(1.1)
    world.tick(100)
    assert world.store.recovery_states()["clean"].failures == 1
    if idle:
        query = world.starts.of("clean")[-1]
        world.streams.observe(SparkEvent("idle", query.id, query.runId, world.clock()))
    else:
        world.progress("clean")
    world.tick()
    assert world.store.recovery_states()["clean"].failures == 0
    assert world.events("clean")[-1] == "recovered"


def test_error_that_cannot_heal_is_given_up_at_once_and_over_hosts(world: World) -> None:
    world.starts.errors["clean"] = [CheckpointError("The checkpoint is gone.", "Put it back.")]
    world.ask("start", "clean")
    world.tick(times=2)
    assert world.state("clean") == "dead_letter"
    letter = world.store.dead_letters()["clean"]
    assert (letter.suggestion, letter.errors[0].kind) == ("Put it back.", "permanent")
    world.new_host()
    world.tick(1000, times=2)
    assert world.starts.tried == []
    assert world.state("clean") == "dead_letter"
    world.ask("revive", "clean")
    world.tick()
    assert world.state("clean") == "running"


def test_new_host_obeys_the_backoff_of_the_one_before(world: World) -> None:
    world.ask("start", "clean")
    world.tick()
    world.fail("clean")
    world.tick()
    world.new_host()
    world.tick(0.5)
    assert world.starts.tried == []
    assert world.state("clean") == "waiting"
    world.tick(0.6)
    assert world.state("clean") == "running"


def test_restart_asked_while_no_host_lives_is_one_start(world: World) -> None:
    world.ask("start", "clean")
    world.tick()
    world.ask("restart", "clean")
    world.new_host()
    world.tick(times=3)
    assert world.starts.tried == ["clean"]
    assert world.store.statuses()["clean"].generation == 1


def test_restart_replaces_the_query_once(world: World) -> None:
    world.ask("start", "clean")
    world.tick()
    world.ask("restart", "clean")
    world.tick(times=3)
    first, second = world.starts.of("clean")
    assert (first.stops, second.stops) == (1, 0)
    assert world.events("clean") == ["started", "restarted"]
    assert world.store.recovery_states()["clean"].failures == 0


def test_a_restart_that_waits_for_its_turn_is_not_told_as_done(world: World) -> None:
    """With one starter, and a first query that is slow to end."""
    world.starters = 1
    world.new_host()
    world.ask("start", "clean", "told")
    world.tick(times=2)
    slow = world.starts.of("clean")[0]
    slow.hang.add("stop")
    world.ask("restart", "clean")
    world.streams.tick(world.store.desired())
    assert slow.called.wait(WAIT)
    world.ask("restart", "told")
    world.streams.tick(world.store.desired())
    world.report()
    assert (world.state("told"), world.starts.of("told")[0].stops) == ("starting", 0)
    slow.release.set()
    world.tick()
    assert {each: world.state(each) for each in ("clean", "told")} == {"clean": "running", "told": "running"}
    assert [world.store.statuses()[each].generation for each in ("clean", "told")] == [1, 1]


def test_a_restart_whose_old_query_does_not_end_is_not_counted(world: World) -> None:
    world.stop_timeout = 0.05
    world.new_host()
    world.ask("start", "clean")
    world.tick()
    stuck = world.starts.of("clean")[0]
    stuck.hang.add("stop")
    world.ask("restart", "clean")
    world.tick()
    assert (world.state("clean"), world.events("clean")[-1]) == ("stopping", "error")
    assert world.store.statuses()["clean"].restarts == 0
    stuck.release.set()
    for _ in range(int(WAIT / 0.005)):
        if world.manager.get_query_status("clean").state is not StreamingQueryState.STOPPING:
            break
        threading.Event().wait(0.005)
    world.tick()
    assert (world.state("clean"), world.store.statuses()["clean"].restarts) == ("running", 1)


def test_stop_then_nothing_brings_it_back(world: World) -> None:
    world.ask("start", "clean")
    world.tick()
    world.ask("stop", "clean")
    world.tick(times=2)
    world.tick(1000, times=2)
    assert world.state("clean") == "stopped"
    assert world.starts.tried == ["clean"]
    assert world.events("clean") == ["started", "stopped"]


def test_stop_while_it_waits(world: World) -> None:
    world.ask("start", "clean")
    world.tick()
    world.fail("clean")
    world.tick()
    world.ask("stop", "clean")
    world.tick()
    world.tick(1000, times=2)
    assert world.state("clean") == "stopped"
    assert world.starts.tried == ["clean"]


def test_stall_stops_the_query_and_starts_it_again(world: World) -> None:
    world.ask("start", "clean")
    world.tick()
    world.streams.judged("clean", Verdict(StreamHealth.STALLED, "no batch for 300 s"))
    world.tick()
    assert world.starts.of("clean")[0].stops == 1
    assert world.state("clean") == "waiting"
    world.tick(1.1, times=3)
    assert world.state("clean") == "running"
    assert world.store.recovery_states()["clean"].failures == 1


def test_query_that_somebody_else_stopped_is_started_again_with_a_backoff(world: World) -> None:
    world.ask("start", "clean")
    world.tick()
    world.fail("clean", "")
    world.tick()
    assert world.state("clean") == "waiting"
    assert "QueryEnded" in world.store.history("clean")[1].detail
    world.tick(1.1, times=2)
    assert world.state("clean") == "running"


def test_alert_leaves_it_down_until_somebody_asks_anew(world: World) -> None:
    world.ask("start", "told")
    world.tick()
    world.fail("told")
    world.tick(times=3)
    world.new_host()
    world.tick(1000, times=3)
    assert world.state("told") == "failed"
    assert world.starts.tried == []
    world.ask("restart", "told")
    world.tick()
    assert world.state("told") == "running"


def test_stream_the_app_does_not_have_hides_no_other(world: World) -> None:
    world.ask("start", "stranger", "clean")
    world.tick()
    assert world.state("stranger") == "failed"
    assert world.state("clean") == "running"
    error = world.store.statuses()["stranger"].last_error
    assert error is not None
    assert "'stranger'" in error.message
    world.ask("stop", "stranger")
    world.tick()
    assert world.state("stranger") == "stopped"


def test_no_stream_is_blamed_when_the_host_is_at_its_end(world: World) -> None:
    world.ask("start", "clean")
    world.tick()
    world.fail("clean", "py4j.protocol.Py4JNetworkError: Answer from Java side is empty")
    world.broken = RunError("Spark's JVM has ended")
    with pytest.raises(RunError, match="JVM"):
        world.streams.tick(world.store.desired())
    world.report()
    assert world.store.recovery_states()["clean"].failures == 0


def test_a_batch_that_ends_before_the_start_has_come_back_counts(world: World) -> None:
    world.ask("start", "clean")
    world.starts.errors["clean"] = [RunError("not yet")]
    world.starts.before_return = world.progress
    world.tick(times=2)
    world.tick(1.1)
    world.tick(100)
    assert world.store.statuses()["clean"].rows_committed == 10
    assert world.events("clean")[-1] == "recovered"


def test_rows_and_restarts_are_counted_on_over_hosts(world: World) -> None:
    world.ask("start", "clean")
    world.tick()
    world.progress("clean", 0, 10)
    world.progress("clean", 1, 5)
    world.tick(6)
    world.new_host()
    world.tick()
    world.progress("clean", 2, 7)
    world.tick(6)
    status = world.store.statuses()["clean"]
    assert (status.rows_committed, status.restarts, status.metrics.rows_total) == (22, 1, 7)


def test_statuses_are_told_by_the_lease_also_when_the_clock_is_set_back(world: World) -> None:
    world.ask("start", "clean")
    for host in range(2):
        world.tick()
        for batch_id in range(3):
            world.progress("clean", batch_id)
            world.tick(-300 if batch_id == 0 else 6)
            status = world.store.statuses()["clean"]
            assert status.token == world.lease.token
            assert status.rows_committed == 30 * host + 10 * (batch_id + 1)
        world.new_host()


def test_drain_stops_all_and_starts_nothing_more(world: World) -> None:
    world.ask("start", "clean", "priced")
    world.tick(times=2)
    assert world.streams.drain(1.0, 1.0) == 2
    world.report()
    assert {world.state(each) for each in ("clean", "priced")} == {"stopped"}
    assert world.events("clean")[-1] == "stopped"


def test_drain_waits_for_the_batch_under_way(world: World) -> None:
    world.ask("start", "clean")
    world.tick()
    query = world.starts.of("clean")[0]
    query.state["isTriggerActive"] = True
    thread = threading.Thread(target=world.streams.drain, args=(WAIT, 1.0))
    thread.start()
    assert not query.called.wait(0.2)
    assert query.stops == 0
    query.progress = progress(1)
    thread.join(WAIT)
    assert query.stops == 1
