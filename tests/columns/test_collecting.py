"""What keeps a frame from being traced is told in its place, and holds up nothing."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from manifests import manifest, pipe

from kindling_dagster.columns.collecting import ColumnLineageCollector


class Signals:
    """A provider of signals that only keeps who listens."""

    def __init__(self) -> None:
        self.receivers: dict[str, list[Any]] = {}

    def create_signal(self, name: str) -> Signals:
        self.name = name
        return self

    def connect(self, receiver: Any, weak: bool) -> None:
        self.receivers.setdefault(self.name, []).append(receiver)

    def disconnect(self, receiver: Any) -> None:
        for known in self.receivers.values():
            if receiver in known:
                known.remove(receiver)

    def send(self, name: str, **payload: Any) -> list[Any]:
        return [receive(None, **payload) for receive in self.receivers.get(name, ())]


class Frame:
    """A frame whose plan is out of reach, once it is let go."""

    columns = ("id", "name")

    def __init__(self, wait: threading.Event | None = None) -> None:
        self._wait = wait

    @property
    def _jdf(self) -> Any:
        if self._wait is not None:
            self._wait.wait(10)
        raise ConnectionError("no JVM")


def write(collector: ColumnLineageCollector, frame: Frame) -> dict[str, Any]:
    signals = Signals()
    collector.connect(signals)
    with collector.watching("clean"):
        told = signals.send("read.after_read", df=frame, pipe_id="clean", entity_id="raw.orders")
        told += signals.send("persist.before_persist", df=frame, pipe_id="clean")
        # Of a pipe that nobody watches nothing is kept.
        told += signals.send("persist.before_persist", df=frame, pipe_id="other")
    assert set(told) <= {None}, "a receiver that gives something would replace the frame"
    collector.close()
    assert not any(signals.receivers.values())
    return collector.take("clean")


def test_a_plan_that_cannot_be_read_costs_its_lineage_alone() -> None:
    found = write(ColumnLineageCollector(manifest(pipe("clean", "raw.orders", "silver.orders"))), Frame())
    reason = "the plan cannot be read (ConnectionError: no JVM)"
    assert found["column_lineage"]["gaps"] == {"id": reason, "name": reason}
    assert found["column_lineage"]["columns"] == {}


def test_a_plan_that_takes_long_is_left_behind() -> None:
    let_go = threading.Event()
    declared = manifest(pipe("clean", "raw.orders", "silver.orders"))
    found = write(ColumnLineageCollector(declared, seconds=0.05), Frame(let_go))
    let_go.set()
    assert found["column_lineage"]["gaps"]["id"] == "tracing it took longer than 0.05 s"


@pytest.mark.parametrize(
    ("settings", "tags"),
    [({"kindling.dagster.column_lineage": False}, {}), ({}, {"dagster/column_lineage": "false"})],
)
def test_it_can_be_switched_off(settings: dict[str, Any], tags: dict[str, str]) -> None:
    declared = manifest(pipe("clean", "raw.orders", "silver.orders", tags=tags), settings=settings)
    assert write(ColumnLineageCollector(declared), Frame()) == {}


def test_a_pipe_that_fails_leaves_nothing() -> None:
    collector = ColumnLineageCollector(manifest(pipe("clean", "raw.orders", "silver.orders")))
    with pytest.raises(ValueError, match="broken"), collector.watching("clean"):
        raise ValueError("broken")
    assert collector.take("clean") == {}
