"""The query manager: legal transitions, failures as data, stops with a limit, counts, and no waiting for others."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from stream_fakes import IN_ORDER, WAIT, FakeClock, FakeQuery, HeardSignals, progress

from kindling_dagster.streaming.events import SparkEvent
from kindling_dagster.streaming.model import StreamError, StreamingQueryConfig
from kindling_dagster.streaming.model import StreamingQueryState as State
from kindling_dagster.streaming.queries import StreamingQueryManager
from kindling_dagster.streaming.transitions import (
    TRANSITIONS,
    QueryBusyError,
    QueryStateError,
    QueryStopTimeoutError,
    UnknownQueryError,
    check_transition,
)

ERROR = StreamError("ValueError", "poison", 1.0)


@pytest.fixture
def heard() -> HeardSignals:
    return HeardSignals(*StreamingQueryManager.EMITS)


@pytest.fixture
def manager(heard: HeardSignals) -> StreamingQueryManager:
    return StreamingQueryManager(heard.provider, settings=IN_ORDER, clock=FakeClock(), stop_timeout=WAIT)


@pytest.mark.parametrize(("before", "after"), itertools.product(State, State))
def test_transitions(before: State, after: State) -> None:
    if after in TRANSITIONS[before]:
        check_transition("flights", before, after)
    else:
        with pytest.raises(
            QueryStateError, match=f"flights is {before.value} and cannot become {after.value}"
        ):
            check_transition("flights", before, after)


def test_every_state_can_be_left_and_reached() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(TRANSITIONS.values())
    assert set().union(*TRANSITIONS.values()) == set(State)
    assert TRANSITIONS[State.DEAD_LETTER] == {State.STOPPED}, "only a person revives one"


def test_a_query_is_started_and_stopped(manager: StreamingQueryManager, heard: HeardSignals) -> None:
    query = FakeQuery()
    config = StreamingQueryConfig(query_name="silver flights", checkpoint_root="/lake/_checkpoints/")
    info = manager.start_query("flights", lambda: query, config)
    assert (info.state, info.query_name) == (State.RUNNING, "silver flights")
    assert (info.spark_query_id, info.spark_run_id) == ("spark-id", query.runId)
    assert (info.start_time, info.restart_count) == (1_000.0, 0)
    assert info.checkpoint_path == "/lake/_checkpoints/flights"
    assert manager.list_active_queries() == (info,)
    assert manager.handle("flights") is query
    stopped = manager.stop_query("flights")
    assert (stopped.state, query.stops) == (State.STOPPED, 1)
    assert manager.list_active_queries() == ()
    assert manager.list_queries() == (stopped,)
    assert manager.handle("flights") is None
    assert heard.names == ["query_started", "query_stopped"]


def test_a_start_that_fails_is_a_failed_query(manager: StreamingQueryManager, heard: HeardSignals) -> None:
    def build() -> Any:
        raise ConnectionRefusedError("password=hunter22 was refused")

    info = manager.start_query("flights", build)
    assert info.state is State.FAILED
    assert info.last_error is not None
    assert (info.last_error.type, info.last_error.kind) == ("ConnectionRefusedError", "transient")
    assert "hunter22" not in info.last_error.message
    assert heard.names == ["query_failed"]
    assert heard.of("query_failed")[0]["error_type"] == "ConnectionRefusedError"


def test_a_builder_that_gives_no_query_says_so(manager: StreamingQueryManager) -> None:
    info = manager.start_query("flights", lambda: None)
    assert info.state is State.FAILED
    assert info.last_error is not None
    assert "flights gave NoneType" in info.last_error.message


def test_a_restart_counts_and_keeps_builder_and_config(
    manager: StreamingQueryManager, heard: HeardSignals
) -> None:
    queries: list[FakeQuery] = []

    def build() -> FakeQuery:
        queries.append(FakeQuery())
        return queries[-1]

    config = StreamingQueryConfig(poll_interval=7)
    manager.start_query("flights", build, config)
    info = manager.restart_query("flights", "new column")
    assert (info.state, info.restart_count, info.spark_run_id) == (State.RUNNING, 1, queries[1].runId)
    assert not queries[0].active
    assert manager.config("flights") == config
    queries[1].die()
    manager.query_ended("flights", queries[1].runId, ValueError("poison"))
    assert manager.start_query("flights").restart_count == 2
    manager.stop_query("flights")
    assert manager.start_query("flights").restart_count == 3
    names = heard.names
    assert names.count("query_restarted") == 1
    assert heard.of("query_restarted")[0]["reason"] == "new column"
    assert names.count("query_started") == 4


def test_a_query_that_is_up_is_not_started_twice(manager: StreamingQueryManager) -> None:
    query = FakeQuery()
    manager.start_query("flights", lambda: query)
    with pytest.raises(QueryStateError, match="running and cannot become starting"):
        manager.start_query("flights", FakeQuery)
    assert manager.handle("flights") is query


def test_a_dead_letter_starts_only_when_revived(manager: StreamingQueryManager) -> None:
    manager.register_query("flights", FakeQuery, state=State.DEAD_LETTER)
    for start in (manager.start_query, manager.restart_query):
        with pytest.raises(QueryStateError, match="revive"):
            start("flights")
    assert manager.stop_query("flights").state is State.DEAD_LETTER
    assert manager.revive("flights").state is State.STOPPED
    assert manager.start_query("flights").state is State.RUNNING
    assert manager.revive("flights").state is State.RUNNING


@pytest.mark.parametrize(
    ("error", "state", "signal"),
    [
        (ValueError("poison"), State.FAILED, "query_failed"),
        ("java.net.ConnectException: refused", State.FAILED, "query_failed"),
        (None, State.STOPPED, "query_stopped"),
    ],
)
def test_a_query_that_ends_by_itself(
    manager: StreamingQueryManager, heard: HeardSignals, error: Any, state: State, signal: str
) -> None:
    query = FakeQuery()
    manager.start_query("flights", lambda: query)
    info = manager.query_ended("flights", query.runId, error)
    assert info.state is state
    assert manager.query_ended("flights", query.runId, RuntimeError("seen twice")) == info
    assert heard.names == ["query_started", signal]


def test_the_end_of_an_older_start_is_ignored(manager: StreamingQueryManager) -> None:
    first = FakeQuery()
    manager.start_query("flights", lambda: first)
    manager.restart_query("flights", query_builder=FakeQuery)
    assert manager.query_ended("flights", first.runId, ValueError("late")).state is State.RUNNING
    assert manager.observe(SparkEvent("terminated", "spark-id", first.runId, 1.0, exception="late")) is None


def test_what_is_down_can_be_marked(manager: StreamingQueryManager) -> None:
    manager.register_query("flights", FakeQuery, state=State.FAILED)
    assert manager.mark("flights", State.WAITING, ERROR).last_error == ERROR
    assert manager.mark("flights", State.WAITING).state is State.WAITING
    assert manager.mark("flights", State.DEAD_LETTER).state is State.DEAD_LETTER
    with pytest.raises(QueryStateError):
        manager.mark("flights", State.WAITING)
    with pytest.raises(QueryStateError):
        manager.mark("flights", State.RUNNING)
    manager.start_query("other", FakeQuery)
    with pytest.raises(QueryStateError):
        manager.mark("other", State.STOPPED)


@pytest.mark.parametrize(("state", "after"), [(State.WAITING, State.STOPPED), (State.FAILED, State.STOPPED)])
def test_stopping_what_is_down_ends_its_waiting(
    manager: StreamingQueryManager, heard: HeardSignals, state: State, after: State
) -> None:
    manager.register_query("flights", FakeQuery, state=state)
    assert manager.stop_query("flights").state is after
    assert manager.stop_query("flights").state is after
    assert heard.names == ["query_registered", "query_stopped"]


def test_unknown_queries(manager: StreamingQueryManager) -> None:
    calls: list[Callable[[str], Any]] = [
        manager.start_query, manager.stop_query, manager.restart_query, manager.get_query_status, manager.config,
        manager.handle, manager.revive, lambda query_id: manager.mark(query_id, State.WAITING),
        lambda query_id: manager.query_ended(query_id, "run"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(UnknownQueryError, match="nobody"):
            call("nobody")
    manager.forget("nobody")


def test_forgetting(manager: StreamingQueryManager) -> None:
    manager.start_query("flights", FakeQuery)
    with pytest.raises(QueryStateError):
        manager.forget("flights")
    manager.stop_query("flights")
    manager.forget("flights")
    assert manager.list_queries() == ()


def test_registering(manager: StreamingQueryManager, heard: HeardSignals) -> None:
    assert manager.register_query("flights", FakeQuery).state is State.STOPPED
    with pytest.raises(QueryStateError, match="registered already"):
        manager.register_query("flights", FakeQuery)
    with pytest.raises(QueryStateError, match="cannot be registered"):
        manager.register_query("other", FakeQuery, state=State.RUNNING)
    assert heard.names == ["query_registered"]


def test_a_stop_that_hangs_gives_up_and_can_be_tried_again(
    manager: StreamingQueryManager, heard: HeardSignals
) -> None:
    query = FakeQuery(hang=("stop",))
    manager.start_query("flights", lambda: query)
    with pytest.raises(QueryStopTimeoutError, match="flights was asked to stop"):
        manager.stop_query("flights", timeout=0.05)
    assert manager.get_query_status("flights").state is State.STOPPING
    with pytest.raises(QueryStopTimeoutError):
        manager.stop_query("flights", timeout=0.05)
    assert query.stops == 1, "the first one is still under way"
    with pytest.raises(QueryStateError):
        manager.start_query("flights", FakeQuery)
    query.release.set()
    assert manager.stop_query("flights").state is State.STOPPED
    assert heard.names == ["query_started", "query_stopped"]


def test_a_stop_without_waiting_ends_by_itself(manager: StreamingQueryManager, heard: HeardSignals) -> None:
    query = FakeQuery(hang=("stop",))
    manager.start_query("flights", lambda: query)
    assert manager.stop_query("flights", await_termination=False).state is State.STOPPING
    assert manager.query_ended("flights", query.runId, ValueError("interrupted")).state is State.STOPPING
    query.release.set()
    heard.wait_for("query_stopped")
    assert manager.get_query_status("flights").state is State.STOPPED


def test_an_interrupted_query_that_has_ended_is_stopped(manager: StreamingQueryManager) -> None:
    query = FakeQuery()
    query.stop_error = InterruptedError("while it wrote its checkpoint")
    query.active = False
    manager.start_query("flights", lambda: query)
    info = manager.stop_query("flights")
    assert (info.state, info.last_error) == (State.STOPPED, None)


def test_a_query_that_refuses_to_stop_stays_stopping(
    manager: StreamingQueryManager, heard: HeardSignals
) -> None:
    query = FakeQuery()
    query.stop_error = RuntimeError("cannot be interrupted")
    manager.start_query("flights", lambda: query)
    with pytest.raises(QueryStopTimeoutError, match="cannot be interrupted"):
        manager.stop_query("flights")
    with pytest.raises(QueryStopTimeoutError):
        manager.restart_query("flights")
    assert manager.get_query_status("flights").state is State.STOPPING
    query.stop_error = None
    assert manager.restart_query("flights", query_builder=FakeQuery).state is State.RUNNING
    assert heard.names.count("query_failed") == 2


def test_a_query_whose_jvm_is_gone_counts_as_stopped(manager: StreamingQueryManager) -> None:
    query = FakeQuery()
    manager.start_query("flights", lambda: query)
    query.broken = ConnectionRefusedError("no JVM")
    assert manager.stop_query("flights").state is State.STOPPED


def test_a_start_that_hangs_delays_nobody_else(manager: StreamingQueryManager) -> None:
    begun, release = threading.Event(), threading.Event()

    def build() -> FakeQuery:
        begun.set()
        assert release.wait(WAIT)
        return FakeQuery()

    thread = threading.Thread(target=manager.start_query, args=("slow", build))
    thread.start()
    assert begun.wait(WAIT)
    assert manager.get_query_status("slow").state is State.STARTING
    assert manager.start_query("fast", FakeQuery).state is State.RUNNING
    assert manager.stop_query("fast").state is State.STOPPED
    with pytest.raises(QueryBusyError, match="slow is starting"):
        manager.stop_query("slow", timeout=0.05)
    release.set()
    thread.join(WAIT)
    assert manager.stop_query("slow").state is State.STOPPED


def test_many_threads_leave_one_query(manager: StreamingQueryManager) -> None:
    """Whoever comes first starts it; everybody else is refused, and nothing is started twice."""
    built: list[FakeQuery] = []
    together = threading.Barrier(8)
    results: list[object] = []

    def build() -> FakeQuery:
        built.append(FakeQuery())
        return built[-1]

    def start() -> None:
        together.wait(WAIT)
        try:
            results.append(manager.start_query("flights", build).state)
        except QueryStateError as error:
            results.append(type(error))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert sorted(map(str, results)) == sorted([str(State.RUNNING)] + [str(QueryStateError)] * 7)
    assert len(built) == 1


def test_sparks_events_become_metrics(manager: StreamingQueryManager) -> None:
    query = FakeQuery()
    manager.start_query("flights", lambda: query)
    outstanding = [
        {"metrics": {"numBytesOutstanding": "1200", "numFilesOutstanding": "3"}},
        {"metrics": None},
    ]
    for batch_id, rows in ((0, 10), (1, 5)):
        report = progress(batch_id, rows, sources=outstanding, stateOperators=[{"numRowsTotal": 7}])
        event = SparkEvent("progress", query.id, query.runId, 100.0 + batch_id, progress=report)
        assert manager.observe(event) == "flights"
    metrics = manager.get_query_status("flights").metrics
    assert (metrics.batch_id, metrics.input_rows, metrics.rows_total) == (1, 5, 15)
    assert (metrics.backlog_bytes, metrics.backlog_files, metrics.state_rows) == (1200, 3, 7)
    assert (metrics.batch_seconds, metrics.last_progress_at, metrics.last_event_at) == (0.5, 101.0, 101.0)
    manager.observe(SparkEvent("idle", query.id, query.runId, 110.0))
    metrics = manager.get_query_status("flights").metrics
    assert (metrics.backlog_bytes, metrics.rows_total) == (0, 15)
    assert (metrics.last_progress_at, metrics.last_event_at) == (101.0, 110.0)
    assert (
        manager.observe(SparkEvent("terminated", query.id, query.runId, 111.0, exception="boom")) == "flights"
    )
    assert manager.get_query_status("flights").state is State.FAILED


def test_events_before_the_builder_returns_are_not_lost(manager: StreamingQueryManager) -> None:
    """A query may read rows, or die, before ``start()`` has given its handle."""
    query = FakeQuery()

    def build() -> FakeQuery:
        manager.observe(SparkEvent("progress", query.id, query.runId, 1.0, progress=progress(0, 10)))
        manager.observe(SparkEvent("terminated", query.id, query.runId, 2.0, exception="died at once"))
        return query

    info = manager.start_query("flights", build)
    assert info.metrics.rows_total == 10
    assert info.state is State.FAILED
    assert info.last_error is not None
    assert "died at once" in info.last_error.message


def test_events_that_nobody_claims_are_not_kept(manager: StreamingQueryManager) -> None:
    def fail() -> Any:
        manager.observe(SparkEvent("progress", "theirs", "their-run", 1.0, progress=progress(0)))
        raise ValueError("no")

    for start in (fail, FakeQuery):
        manager.start_query("flights", start)
        assert manager._early == []


def test_queries_of_somebody_else_are_left_alone(manager: StreamingQueryManager) -> None:
    assert manager.observe(SparkEvent("progress", "theirs", "their-run", 1.0, progress=progress(0))) is None
    assert manager.list_queries() == ()
