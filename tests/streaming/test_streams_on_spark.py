"""Queries, listener, watchdog and recovery on a real Spark session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from stream_fakes import HeardSignals

from kindling_dagster.spark import build_session
from kindling_dagster.streaming.events import SparkEvent
from kindling_dagster.streaming.listener import KindlingStreamingListener
from kindling_dagster.streaming.model import RecoveryPolicy, StreamHealth
from kindling_dagster.streaming.model import StreamingQueryState as State
from kindling_dagster.streaming.queries import StreamingQueryManager
from kindling_dagster.streaming.recovery import RecoveryStep, StreamingRecoveryManager
from kindling_dagster.streaming.watchdog import StreamingWatchdog

pytestmark = pytest.mark.spark

WAIT = 60.0


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    session = build_session(
        {"spark.master": "local[2]", "spark.sql.streaming.noDataProgressEventInterval": "300"}
    )
    yield session
    session.stop()


class Streams:
    """A manager that hears of Spark's events, and a way to wait for them."""

    def __init__(self, spark: Any) -> None:
        self.spark = spark
        self.heard = HeardSignals(*KindlingStreamingListener.EMITS, *StreamingQueryManager.EMITS)
        self.manager = StreamingQueryManager(self.heard.provider)
        self.changed = threading.Condition()
        self.events: list[SparkEvent] = []
        self.listener = KindlingStreamingListener(self.heard.provider, self.take, session=spark)

    def take(self, event: SparkEvent) -> None:
        self.manager.observe(event)
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def wait(self, true: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(true, WAIT), [event.kind for event in self.events]

    def wait_for(self, *kinds: str) -> None:
        self.wait(lambda: set(kinds) <= {event.kind for event in self.events})


@pytest.fixture
def streams(spark: Any) -> Iterator[Streams]:
    made = Streams(spark)
    with made.listener:
        yield made
        for info in made.manager.list_active_queries():
            made.manager.stop_query(info.query_id, timeout=WAIT)


def rate(spark: Any, folder: Path, sink: Callable[[Any], Any] | None = None) -> Callable[[], Any]:
    def build() -> Any:
        frame = spark.readStream.format("rate").option("rowsPerSecond", 10).load()
        writer = frame.writeStream.option("checkpointLocation", str(folder / "checkpoint"))
        return (writer.format("noop") if sink is None else writer.foreachBatch(sink)).start()

    return build


def delta(spark: Any, source: Path, folder: Path) -> Callable[[], Any]:
    def build() -> Any:
        writer = spark.readStream.format("delta").load(str(source)).writeStream.format("delta")
        return writer.option("checkpointLocation", str(folder / "checkpoint")).start(str(folder / "out"))

    return build


def test_from_start_to_stop(streams: Streams, tmp_path: Path) -> None:
    info = streams.manager.start_query("rate", rate(streams.spark, tmp_path))
    assert info.state is State.RUNNING
    streams.wait(lambda: streams.manager.get_query_status("rate").metrics.rows_total > 0)
    metrics = streams.manager.get_query_status("rate").metrics
    assert metrics.batch_id is not None
    assert metrics.batch_seconds is not None
    assert metrics.batch_seconds > 0
    assert metrics.last_progress_at is not None
    again = streams.manager.restart_query("rate", "a test")
    assert (again.restart_count, again.spark_query_id) == (1, info.spark_query_id)
    assert again.spark_run_id != info.spark_run_id
    assert streams.manager.stop_query("rate").state is State.STOPPED
    streams.wait_for("started", "progress", "terminated")
    started = streams.heard.wait_for("spark_query_started", 2)
    assert {payload["query_id"] for payload in started} == {info.spark_query_id}
    assert streams.heard.wait_for("spark_query_progress")[0]["num_input_rows"] is not None
    assert "exception" not in streams.heard.wait_for("spark_query_terminated")[0]


def test_idle_by_sparks_own_event(streams: Streams, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_deltalake(source, pa.table({"id": [1, 2, 3]}))
    streams.manager.start_query("delta", delta(streams.spark, source, tmp_path))
    streams.wait_for("idle")
    assert streams.manager.get_query_status("delta").metrics.rows_total == 3
    watchdog = StreamingWatchdog(streams.manager)
    try:
        verdict = watchdog.check_now(WAIT)["delta"]
    finally:
        watchdog.stop()
    assert verdict.health is StreamHealth.IDLE, verdict
    assert streams.heard.wait_for("spark_query_idle")[0]["run_id"]


def test_what_dies_in_its_first_batch_exhausts(streams: Streams, tmp_path: Path) -> None:
    """As the host does it: start, hear of the end, ask recovery, start again when it is due."""

    def poison(frame: Any, batch_id: int) -> None:
        raise ValueError("poison row 17")

    recovery = StreamingRecoveryManager(
        policies={"rate": RecoveryPolicy(max_retries=2, initial_backoff=0.0, stable_after=0.0)}
    )
    build = rate(streams.spark, tmp_path, poison)
    for number in range(3):
        streams.manager.start_query("rate", build)
        recovery.started("rate")
        streams.wait(lambda: streams.manager.get_query_status("rate").state is State.FAILED)
        error = streams.manager.get_query_status("rate").last_error
        assert error is not None
        assert (error.type, error.message, error.kind) == ("ValueError", "poison row 17", "unknown")
        assert recovery.due() == {}, "a start is no success"
        action = recovery.failed("rate", error)
        if number < 2:
            assert action.step is RecoveryStep.WAIT
            assert recovery.due()["rate"].step is RecoveryStep.RESTART
    assert action.step is RecoveryStep.DEAD_LETTER
    assert not action.permanent
    assert recovery.dead_letters() == ("rate",)
    assert streams.manager.get_query_status("rate").restart_count == 2


def test_the_watchdog_finds_the_dead_without_the_listener(spark: Any, tmp_path: Path) -> None:
    ended = threading.Event()

    def poison(frame: Any, batch_id: int) -> None:
        frame.select("no_such_column")

    manager = StreamingQueryManager()
    manager.start_query("rate", rate(spark, tmp_path, poison))
    watchdog = StreamingWatchdog(
        manager, poll_interval=0.1, on_verdict=lambda _, verdict: verdict.health is StreamHealth.EXCEPTION and ended.set()
    )  # fmt: skip
    watchdog.start()
    try:
        assert ended.wait(WAIT)
    finally:
        assert watchdog.stop(WAIT)
    info = manager.get_query_status("rate")
    assert info.state is State.FAILED
    assert info.last_error is not None
    assert (info.last_error.type, info.last_error.kind) == ("AnalysisException", "permanent")
    assert "no_such_column" in info.last_error.message


def test_a_start_that_fails(streams: Streams, tmp_path: Path) -> None:
    info = streams.manager.start_query("delta", delta(streams.spark, tmp_path / "nowhere", tmp_path))
    assert info.state is State.FAILED
    assert info.last_error is not None
    assert (info.last_error.type, info.last_error.kind) == ("AnalysisException", "transient")


def test_a_subscriber_that_hangs_holds_up_no_query(streams: Streams, tmp_path: Path) -> None:
    """``start()`` waits for the listeners: one that called its subscribers would hang here."""
    release, hangs = threading.Event(), threading.Event()

    def hang(sender: Any, **payload: Any) -> None:
        hangs.set()
        assert release.wait(WAIT)

    streams.heard.provider.create_signal("streaming.spark_query_started").connect(hang, weak=False)
    streams.manager.start_query("first", rate(streams.spark, tmp_path / "first"))
    assert hangs.wait(WAIT)
    info = streams.manager.start_query("second", rate(streams.spark, tmp_path / "second"))
    assert info.state is State.RUNNING
    streams.wait(lambda: streams.manager.get_query_status("second").metrics.rows_total > 0)
    assert not release.is_set()
    release.set()


def test_a_removed_listener_hears_nothing(spark: Any, tmp_path: Path) -> None:
    streams = Streams(spark)
    with streams.listener:
        pass
    query = rate(spark, tmp_path)()
    query.processAllAvailable()
    query.stop()
    assert streams.listener.stats() == replace(streams.listener.stats(), received=0, handled=0)


def test_the_session_may_be_stopped_meanwhile(spark: Any, tmp_path: Path) -> None:
    """Last of all: it ends the session."""
    streams = Streams(spark)
    with streams.listener:
        streams.manager.start_query("rate", rate(spark, tmp_path))
        streams.wait_for("started")
        spark.stop()
    assert not any(thread.name == "streaming-listener" for thread in threading.enumerate())
    assert streams.manager.stop_query("rate", timeout=WAIT).state is State.STOPPED
