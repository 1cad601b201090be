"""What sensors decide reaches the app's subscribers by the stream host: each thing once, whatever dies. No Spark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kindling.signaling import BlinkerSignalProvider
from manifests import manifest, pipe

from kindling_dagster.streaming import restart_news
from kindling_dagster.streaming.dependencies import StreamDependencies
from kindling_dagster.streaming.dimensions.model import DimensionLook
from kindling_dagster.streaming.model import Command, HostInfo, StreamingQueryState, StreamStatus
from kindling_dagster.streaming.restart_news import RESTART_SIGNALS
from kindling_dagster.streaming.restart_signals import RestartSignals
from kindling_dagster.streaming.restart_ticks import DOCUMENT, RestartTick, tick_restarts
from kindling_dagster.streaming.restarts import RestartConfig, StreamOrder
from kindling_dagster.streaming.store import ConflictError, StoreUnavailable, StreamStore

CHANGED, TRIGGERED, STARTED, COMPLETED = RESTART_SIGNALS
APP = manifest(pipe("by_files", "bronze.x ref.rates", "silver.y", tags={"processing_mode": "streaming"}))


def change(before: str, after: str) -> DimensionLook:
    return DimensionLook("ref.rates", "hash", after, before, "data", f"{before} became {after}")


class World:
    """A sensor that ticks, and hosts that tell an app's subscriber."""

    def __init__(self, folder: Path) -> None:
        self.store = StreamStore.open(f"sqlite:///{folder / 'store.db'}", "shop")
        self.now = 1_000.0
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.provider = BlinkerSignalProvider()
        for name in RESTART_SIGNALS:
            self.provider.create_signal(name).connect(self._hearing(name), weak=False)
        lease = self.store.acquire_lease(HostInfo("host", 0), 3_600)
        assert lease is not None
        self.lease = lease
        self.dependencies = StreamDependencies(APP, policy="always")
        self.store.submit([Command("start", "start", "by_files")])
        self.up()

    def _hearing(self, name: str) -> Any:
        def hear(_sender: object, **arguments: Any) -> None:
            self.heard.append((name, arguments))

        return hear

    def host(self) -> RestartSignals:
        return RestartSignals(self.store, self.provider)

    def tick(self, *looks: DimensionLook) -> RestartTick:
        config = RestartConfig(delay=1, min_interval=0)
        order = StreamOrder({"by_files": ()})
        done = tick_restarts(self.store, self.dependencies, order, config, looks, clock=lambda: self.now)
        self.now += 2
        return done

    def up(self) -> None:
        generation = self.store.desired()["by_files"].generation
        status = StreamStatus("by_files", StreamingQueryState.RUNNING, generation=generation)
        self.store.report(self.lease, statuses=[status])

    def restart(self) -> None:
        """Tick until the restart that waits is over."""
        while self.tick().busy:
            self.up()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.heard]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_a_subscriber_hears_each_thing_once_and_in_order(world: World) -> None:
    host = world.host()
    assert host.tell() == 0
    world.tick(change("a", "b"))
    assert (host.tell(), host.tell()) == (1, 0)
    world.restart()
    assert (host.tell(), host.tell()) == (3, 0)
    assert world.names == [CHANGED, STARTED, TRIGGERED, COMPLETED]
    changed, started, triggered, completed = (arguments for _, arguments in world.heard)
    assert (changed["entity_id"], changed["change"], changed["reason"]) == (
        "ref.rates",
        "data",
        "a became b",
    )
    assert started["query_ids"] == [triggered["query_id"]] == ["by_files"]
    assert completed["restarted_count"] == 1


def test_the_next_host_tells_what_happened_while_none_lived_and_nothing_twice(world: World) -> None:
    world.tick(change("a", "b"))
    world.host().tell()
    world.restart()
    assert [world.host().tell() for _ in range(2)] == [3, 0]
    world.tick(change("b", "c"))  # what was told is dropped from the store here
    assert len(world.store.document(*DOCUMENT)[0]["news"]) == 1
    assert [world.host().tell() for _ in range(2)] == [1, 0]
    assert world.names.count(CHANGED) == 2


def test_news_that_nobody_tells_stays_within_what_the_store_takes(world: World) -> None:
    """Texts of other scripts are six characters a sign in the store."""
    world.dependencies = StreamDependencies(APP, policy="never")
    prints = [f"{number}{'列' * 1_000}" for number in range(100)]
    for before, after in pairwise(prints):
        world.tick(replace(change(before, after), reason="rows differ"))
    assert 10 < len(world.store.document(*DOCUMENT)[0]["news"]) < 100
    assert world.host().tell() > 10
    assert world.heard[-1][1]["fingerprint"].startswith("99")


def test_a_change_found_again_after_a_crash_is_told_once_and_one_that_comes_back_again(world: World) -> None:
    """Contents may change to and fro: the second change to the same is one more."""
    before = world.store.desired()["by_files"].generation
    host = world.host()
    for again, found in enumerate([change("a", "b"), change("b", "a"), change("a", "b")], start=1):
        world.tick(found)
        world.tick(found)  # its fingerprint was not kept
        world.restart()
        host.tell()
        assert world.names.count(CHANGED) == world.names.count(COMPLETED) == again
        assert world.store.desired()["by_files"].generation == before + again


def test_a_store_that_does_not_answer_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise StoreUnavailable("it is locked")

    host = world.host()
    world.tick(change("a", "b"))
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "put_document", refuse)
        with pytest.raises(StoreUnavailable):
            host.tell()
        patch.setattr(world.store, "put_document", lambda *_: (_ for _ in ()).throw(ConflictError("late")))
        assert host.tell() == 0
    assert world.names == []
    assert host.tell() == 1


@pytest.mark.parametrize(
    "broken", [{"signal": "streaming.of_another_version"}, {"arguments": ["none"]}, {"arguments": {}}]
)
def test_news_that_cannot_be_read_ends_no_host(world: World, broken: dict[str, Any]) -> None:
    world.tick(change("a", "b"))
    state, version = world.store.document(*DOCUMENT)
    [item] = state["news"]
    state["news"] = [{**item, "id": "other", **broken}, item]
    world.store.put_document(*DOCUMENT, state, version)
    host = world.host()
    assert (host.tell(), host.tell()) == (2, 0)
    assert CHANGED in world.names


def test_a_subscriber_that_raises_is_no_reason_to_repeat(world: World) -> None:
    def broken(_sender: object, **_: Any) -> None:
        raise RuntimeError("broken")

    world.provider.create_signal(CHANGED).connect(broken, weak=False)
    world.tick(change("a", "b"))
    host = world.host()
    assert (host.tell(), host.tell()) == (1, 0)
    assert world.names == [CHANGED]


def test_what_nobody_tells_is_kept_within_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart_news, "NEWS_KEPT", 3)
    for number in range(5):
        world.tick(change(f"{number}", f"{number + 1}"))
    assert world.host().tell() == 3
    assert world.heard[-1][1]["fingerprint"] == "5"


@pytest.mark.parametrize("document", [{"nonsense": 1}, [1], "text"])
def test_a_state_that_cannot_be_read_is_nothing_to_tell(world: World, document: Any) -> None:
    world.store.put_document(*DOCUMENT, document, 0)
    assert world.host().tell() == 0
