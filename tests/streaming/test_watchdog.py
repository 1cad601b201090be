"""The watchdog: verdicts from fake queries, signals on changes only, and calls that hang marking only their query."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from stream_fakes import IN_ORDER, WAIT, FakeClock, FakeQuery, HeardSignals, progress

from kindling_dagster.streaming.events import SparkEvent
from kindling_dagster.streaming.health import Verdict
from kindling_dagster.streaming.model import StreamHealth, StreamingQueryConfig, StreamingQueryState
from kindling_dagster.streaming.queries import StreamingQueryManager
from kindling_dagster.streaming.watchdog import PROBE_THREADS, StreamingWatchdog, stall_error


class Watched:
    """A manager, its watchdog, and what both tell."""

    def __init__(self, **more: Any) -> None:
        self.heard = HeardSignals(*StreamingWatchdog.EMITS)
        self.clock = FakeClock()
        self.manager = StreamingQueryManager(clock=self.clock)
        self.changes: list[tuple[str, StreamHealth]] = []
        self.watchdog = StreamingWatchdog(
            self.manager,
            signals=self.heard.provider,
            settings=IN_ORDER,
            clock=self.clock,
            on_verdict=lambda query_id, verdict: self.changes.append((query_id, verdict.health)),
            **more,
        )

    def start(self, query_id: str, config: StreamingQueryConfig | None = None) -> FakeQuery:
        query = FakeQuery()
        self.manager.start_query(query_id, lambda: query, config)
        return query

    def check(self, query_id: str = "flights") -> Verdict:
        return self.watchdog.check_now(WAIT)[query_id]

    def told(self) -> list[str]:
        return [
            name
            for name in self.heard.names
            if name not in ("query_started", "query_failed", "query_stopped")
        ]


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.watchdog.stop()


def working(query: FakeQuery, batch_id: int, **more: Any) -> None:
    query.state = {"isDataAvailable": True, "isTriggerActive": True, "message": "Processing new data"}
    query.progress = progress(batch_id, **more)


def test_idle_is_healthy(watched: Watched) -> None:
    """Kindling calls a query stalled that has nothing to read for 300 s, and restarts it."""
    query = watched.start("flights")
    query.progress = progress(0)
    for _ in range(4):
        watched.clock.now += 400
        watched.manager.observe(SparkEvent("idle", query.id, query.runId, watched.clock.now))
        assert watched.check().health is StreamHealth.IDLE
    assert watched.told() == ["query_healthy"]
    assert watched.heard.of("query_healthy")[0]["health_status"] == "idle"


def test_between_idle_and_healthy_nothing_is_told(watched: Watched) -> None:
    query = watched.start("flights")
    for batch_id in range(3):
        working(query, batch_id)
        assert watched.check().health is StreamHealth.HEALTHY
        query.state = {
            "isDataAvailable": False,
            "isTriggerActive": False,
            "message": "Waiting for data to arrive",
        }
        assert watched.check().health is StreamHealth.IDLE
    assert watched.told() == ["query_healthy"]
    assert len(watched.changes) == 6


def test_stalled_when_data_waits_and_no_batch_ends(watched: Watched) -> None:
    query = watched.start("flights", StreamingQueryConfig(query_name="silver flights", stall_threshold=100))
    working(query, 0)
    assert watched.check().health is StreamHealth.HEALTHY
    watched.clock.now += 99
    assert watched.check().health is StreamHealth.HEALTHY
    watched.clock.now += 1
    verdict = watched.check()
    assert verdict.health is StreamHealth.STALLED
    assert "100 s (Processing new data)" in verdict.reason
    working(query, 1)
    assert watched.check().health is StreamHealth.HEALTHY
    assert watched.told() == ["query_healthy", "query_stalled", "query_healthy"]
    stalled = watched.heard.of("query_stalled")[0]
    assert (stalled["query_name"], stalled["seconds_since_progress"]) == ("silver flights", 100.0)
    assert stall_error(verdict, 5.0).kind == "transient"


def test_a_query_found_dead_is_reported_to_the_manager(watched: Watched) -> None:
    query = watched.start("flights")
    query.die(FileNotFoundError("/lake/bronze is not there"))
    verdict = watched.check()
    assert verdict.health is StreamHealth.EXCEPTION
    info = watched.manager.get_query_status("flights")
    assert info.state is StreamingQueryState.FAILED
    assert info.last_error is not None
    assert info.last_error.kind == "transient"
    assert watched.check().health is StreamHealth.EXCEPTION, "it stays until the next start"
    assert watched.told() == ["query_exception"]
    assert watched.heard.of("query_exception")[0]["error_type"] == "FileNotFoundError"


def test_a_death_that_spark_told_first_is_noted_too(watched: Watched) -> None:
    query = watched.start("flights")
    watched.check()
    watched.manager.query_ended("flights", query.runId, ValueError("poison"))
    assert watched.check().health is StreamHealth.EXCEPTION
    assert watched.told()[-1] == "query_exception"


def test_a_query_that_ended_without_an_error_is_stopped(watched: Watched) -> None:
    query = watched.start("flights")
    query.die()
    watched.watchdog.check_now(WAIT)
    assert watched.manager.get_query_status("flights").state is StreamingQueryState.STOPPED
    assert watched.watchdog.check_now(WAIT) == {}


def test_a_restart_begins_with_a_clean_sheet(watched: Watched) -> None:
    query = watched.start("flights")
    working(query, 0)
    watched.clock.now += 400
    watched.check()
    watched.clock.now += 400
    assert watched.check().health is StreamHealth.STALLED
    fresh = FakeQuery()
    watched.manager.restart_query("flights", query_builder=lambda: fresh)
    working(fresh, 0)
    assert watched.check().health is StreamHealth.HEALTHY


def test_a_dead_jvm_is_an_exception_of_each_query(watched: Watched) -> None:
    for query_id in ("a", "b"):
        watched.start(query_id).broken = ConnectionRefusedError("no JVM")
    verdicts = watched.watchdog.check_now(WAIT)
    assert {verdict.health for verdict in verdicts.values()} == {StreamHealth.EXCEPTION}
    assert {info.state for info in watched.manager.list_queries()} == {StreamingQueryState.FAILED}


@pytest.mark.parametrize("member", ["isActive", "status", "lastProgress"])
def test_a_call_that_hangs_marks_its_query_only(member: str) -> None:
    watched = Watched(answer_seconds=0.02)
    hanging = [watched.start(f"hangs-{number}") for number in range(PROBE_THREADS * 2)]
    for query in hanging:
        query.hang.add(member)
    others = [watched.start(f"works-{number}") for number in range(20)]
    for query in others:
        working(query, 3)
    watched.watchdog.start()
    for query in hanging:
        assert query.called.wait(WAIT)
    answered = threading.Event()
    while not answered.is_set():
        healths = {query_id: verdict.health for query_id, verdict in watched.watchdog.verdicts().items()}
        works = [health for query_id, health in healths.items() if query_id.startswith("works")]
        hangs = [health for query_id, health in healths.items() if query_id.startswith("hangs")]
        if works.count(StreamHealth.HEALTHY) == 20 and hangs.count(StreamHealth.UNHEALTHY) == len(hanging):
            break
        assert not answered.wait(0.01)
    assert "has not answered" in watched.watchdog.verdicts()["hangs-0"].reason
    for query in hanging:
        query.release.set()
    assert watched.watchdog.stop(WAIT)


def test_a_check_at_once_does_not_wait_for_calls_that_hang() -> None:
    watched = Watched(answer_seconds=0.02)
    hanging = [watched.start(f"hangs-{number}") for number in range(PROBE_THREADS * 2)]
    for query in hanging:
        query.hang.add("status")
    working(watched.start("works"), 0)
    began = time.monotonic()
    verdicts = watched.watchdog.check_now(WAIT)
    assert time.monotonic() - began < WAIT / 2
    assert verdicts.pop("works").health is StreamHealth.HEALTHY
    assert {verdict.health for verdict in verdicts.values()} == {StreamHealth.UNHEALTHY}
    for query in hanging:
        query.release.set()
    watched.watchdog.stop()


def test_a_call_that_hangs_for_long_is_a_stall() -> None:
    watched = Watched(answer_seconds=0.0)
    query = watched.start("flights", StreamingQueryConfig(stall_threshold=300))
    query.hang.add("status")
    watched.watchdog.poll()
    assert query.called.wait(WAIT)
    watched.watchdog.poll()
    assert watched.watchdog.verdicts()["flights"].health is StreamHealth.UNHEALTHY
    watched.clock.now += 300
    watched.watchdog._watches["flights"].due = 0.0  # the poll interval is over
    watched.watchdog.poll()
    assert watched.watchdog.verdicts()["flights"].health is StreamHealth.STALLED
    query.hang.clear()
    working(query, 1)
    query.release.set()
    assert watched.watchdog._wake.wait(WAIT), "the call that hung has come back"
    assert watched.check().health is StreamHealth.HEALTHY
    watched.watchdog.stop()


def test_each_stream_has_its_own_rhythm(watched: Watched) -> None:
    watched.start("often", StreamingQueryConfig(poll_interval=5))
    watched.start("seldom", StreamingQueryConfig(poll_interval=50))
    watched.start("default")
    watched.watchdog.poll()
    assert watched.watchdog._watches["default"].due > watched.watchdog._watches["often"].due + 20
    assert watched.watchdog._watches["seldom"].due > watched.watchdog._watches["default"].due + 15


def test_a_receiver_that_raises_does_not_end_the_watch() -> None:
    watched = Watched()
    watched.watchdog._on_verdict = lambda query_id, verdict: 1 / 0
    working(watched.start("flights"), 0)
    assert watched.check().health is StreamHealth.HEALTHY
    watched.watchdog.stop()


def test_the_thread_sees_new_queries_and_ends(watched: Watched) -> None:
    seen = threading.Event()
    watched.watchdog._on_verdict = lambda query_id, verdict: seen.set()
    watched.watchdog.start()
    working(watched.start("flights"), 0)
    assert seen.wait(WAIT)
    assert watched.watchdog.stop(WAIT)
