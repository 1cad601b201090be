"""The listener without Spark: never waits for a subscriber, drops what is least, hands on everything in order."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from stream_fakes import WAIT, FakeClock, HeardSignals, progress

from kindling_dagster.errors import RunError
from kindling_dagster.streaming.events import SparkEvent
from kindling_dagster.streaming.listener import KindlingStreamingListener


def event(run_id: str = "run", **more: Any) -> SimpleNamespace:
    return SimpleNamespace(id="query", runId=run_id, **more)


def progress_event(batch_id: int, **more: Any) -> SimpleNamespace:
    report = progress(batch_id, id="query", runId="run", name="flights", **more)
    return SimpleNamespace(progress=SimpleNamespace(json=json.dumps(report)))


class Session:
    """A Spark session as far as the listener needs one."""

    def __init__(self, gone: bool = False) -> None:
        self.streams = self
        self.listeners: list[Any] = []
        self.gone = gone

    def addListener(self, listener: Any) -> None:
        self.listeners.append(listener)

    def removeListener(self, listener: Any) -> None:
        if self.gone:
            raise ConnectionRefusedError("the JVM is gone")
        self.listeners.remove(listener)


@pytest.fixture
def heard() -> HeardSignals:
    return HeardSignals(*KindlingStreamingListener.EMITS)


@pytest.fixture
def events() -> list[SparkEvent]:
    return []


@pytest.fixture
def listener(heard: HeardSignals, events: list[SparkEvent]) -> Iterator[KindlingStreamingListener]:
    made = KindlingStreamingListener(heard.provider, events.append, clock=FakeClock())
    made.start()
    yield made
    made.stop()


def test_every_event_becomes_data_and_a_signal(
    listener: KindlingStreamingListener, heard: HeardSignals, events: list[SparkEvent]
) -> None:
    listener.onQueryStarted(event(name="flights"))
    listener.onQueryProgress(progress_event(3, rows=7))
    listener.onQueryIdle(event(timestamp="2026-01-01T00:00:00.000Z"))
    listener.onQueryTerminated(
        event(exception="java.io.IOException: password=hunter22", errorClassOnException="X")
    )
    assert listener.stop(WAIT)
    assert [each.kind for each in events] == ["started", "progress", "idle", "terminated"]
    assert {(each.query_id, each.run_id, each.at) for each in events} == {("query", "run", 1_000.0)}
    assert events[1].progress["numInputRows"] == 7
    assert events[3].error_class == "X"
    assert set(heard.names) == {
        "spark_query_started", "spark_query_progress", "spark_query_idle", "spark_query_terminated",
    }  # fmt: skip
    payload = heard.of("spark_query_progress")[0]
    assert (payload["name"], payload["batch_id"], payload["num_input_rows"]) == ("flights", 3, 7)
    assert (payload["batch_duration"], payload["timestamp"]) == (500.0, 1_000.0)
    assert "hunter22" not in heard.of("spark_query_terminated")[0]["exception"]
    stats = listener.stats()
    assert (stats.received, stats.handled, stats.dropped, stats.failed) == (4, 4, 0, 0)


def test_a_subscriber_that_hangs_holds_up_neither_spark_nor_the_host(heard: HeardSignals) -> None:
    """Kindling calls subscribers on the thread that takes events in: one that hangs stops all that come after."""
    release, hangs, all_in = threading.Event(), threading.Event(), threading.Event()

    def hang(sender: Any, **payload: Any) -> None:
        hangs.set()
        assert release.wait(WAIT)

    heard.provider.create_signal("streaming.spark_query_progress").connect(hang, weak=False)
    seen: list[int] = []

    def take(taken: SparkEvent) -> None:
        seen.append(taken.progress["batchId"])
        if len(seen) == 3_000:
            all_in.set()

    listener = KindlingStreamingListener(heard.provider, take, capacity=10_000)
    listener.start()
    for batch_id in range(3_000):
        listener.onQueryProgress(progress_event(batch_id))
    assert all_in.wait(WAIT)
    assert hangs.wait(WAIT)
    assert seen == list(range(3_000))
    assert listener.stats().dropped == 0
    assert listener.stats().signals_dropped >= 1_000, "the subscriber loses signals, and they are counted"
    release.set()
    listener.stop(WAIT)


def test_a_full_queue_drops_progress_and_never_an_end(heard: HeardSignals) -> None:
    release, busy = threading.Event(), threading.Event()
    kinds: list[str] = []

    def take(taken: SparkEvent) -> None:
        busy.set()
        assert release.wait(WAIT)
        kinds.append(taken.kind)

    listener = KindlingStreamingListener(heard.provider, take, capacity=4)
    listener.start()
    listener.onQueryIdle(event())
    assert busy.wait(WAIT)
    listener.onQueryStarted(event(name=None))
    for batch_id in range(50):
        listener.onQueryProgress(progress_event(batch_id))
    listener.onQueryTerminated(event())
    for _ in range(50):
        listener.onQueryIdle(event())
    release.set()
    assert listener.stop(WAIT)
    assert kinds == ["idle", "started", "terminated", "idle", "idle"]
    stats = listener.stats()
    assert (stats.received, stats.handled, stats.dropped) == (103, 5, 98)


def test_a_queue_full_of_ends_drops_the_oldest(heard: HeardSignals) -> None:
    runs: list[str] = []
    listener = KindlingStreamingListener(heard.provider, lambda taken: runs.append(taken.run_id), capacity=2)
    for number in range(4):
        listener.onQueryTerminated(event(f"run-{number}"))
    listener.start()
    assert listener.stop(WAIT)
    assert runs == ["run-2", "run-3"]


def test_a_receiver_that_raises_costs_one_event(
    listener: KindlingStreamingListener, events: list[SparkEvent]
) -> None:
    listener.onQueryProgress(SimpleNamespace(progress=SimpleNamespace(json="no JSON")))
    listener.onQueryIdle(event())
    assert listener.stop(WAIT)
    assert [each.kind for each in events] == ["idle"]
    assert (listener.stats().failed, listener.stats().handled) == (1, 1)


@pytest.mark.parametrize("gone", [False, True])
def test_it_is_registered_and_removed_by_itself(gone: bool) -> None:
    session = Session()
    with KindlingStreamingListener(session=session) as listener:
        assert session.listeners == [listener]
        session.gone = gone
    assert session.listeners == ([listener] if gone else [])
    assert not any(thread.name == "streaming-listener" for thread in threading.enumerate())


def test_one_listener_serves_one_session() -> None:
    listener = KindlingStreamingListener()
    listener.attach(Session())
    with pytest.raises(RunError, match="registered before"):
        listener.attach(Session())
    assert listener.detach()
    with pytest.raises(RunError, match="no session"), KindlingStreamingListener():
        pass
    with pytest.raises(ValueError, match="capacity"):
        KindlingStreamingListener(capacity=0)
