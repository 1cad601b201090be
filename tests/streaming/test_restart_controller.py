"""The controller over a real store: what it asks for, what it tells, and that it survives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kindling.signaling import BlinkerSignalProvider
from manifests import manifest, pipe

from kindling_dagster.streaming.dependencies import StreamDependencies
from kindling_dagster.streaming.dimensions.model import DimensionLook
from kindling_dagster.streaming.model import Command, HostInfo, StreamingQueryState, StreamStatus
from kindling_dagster.streaming.restart_controller import StreamRestartController
from kindling_dagster.streaming.restart_ticks import DOCUMENT
from kindling_dagster.streaming.restarts import RestartConfig, StreamOrder
from kindling_dagster.streaming.store import ConflictError, StreamStore

ORDER = StreamOrder({"bottom": (), "top": ("bottom",)})
SIGNALS = (
    "streaming.restart_triggered",
    "streaming.cascade_restart_started",
    "streaming.cascade_restart_completed",
)


def change(number: int, what: str = "data") -> DimensionLook:
    return DimensionLook("ref.rates", "files", f"f{number}", f"f{number - 1}", what, f"change {number}")  # type: ignore[arg-type]


class Setup:
    """Two streams, one over the other's output, with a dimension of plain files."""

    def __init__(self, folder: Path) -> None:
        self.store = StreamStore.open(f"sqlite:///{folder / 'store.db'}", "shop")
        self.now = 1_000.0
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.provider = BlinkerSignalProvider()
        for name in SIGNALS:
            self.provider.create_signal(name).connect(self.hearing(name), weak=False)
        self.lease = self.store.acquire_lease(HostInfo("host", 0), 3_600)
        self.store.submit([Command(f"start {id_}", "start", id_) for id_ in ("top", "bottom")])
        self.up("top", "bottom")

    def hearing(self, name: str) -> Any:
        def hear(_sender: object, **arguments: Any) -> None:
            self.told.append((name, arguments))

        return hear

    def controller(self) -> StreamRestartController:
        tags = {"processing_mode": "streaming", "dagster/restart_on": "ref.rates"}
        app = manifest(
            pipe("top", "bronze.x", "silver.y", tags=tags),
            pipe("bottom", "silver.y", "gold.z", tags=tags),
            pipe("other", "ref.rates", "gold.other"),
        )
        config = RestartConfig(delay=10, min_interval=0)
        return StreamRestartController(
            self.store, StreamDependencies(app), ORDER, config, self.provider, lambda: self.now
        )

    def up(self, *stream_ids: str) -> None:
        desired = self.store.desired()
        assert self.lease is not None
        self.store.report(
            self.lease,
            statuses=[
                StreamStatus(id_, StreamingQueryState.RUNNING, generation=desired[id_].generation)
                for id_ in stream_ids
            ],
        )

    def generations(self) -> dict[str, int]:
        return {id_: desired.generation for id_, desired in self.store.desired().items()}


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    made = Setup(tmp_path)
    yield made
    made.store.close()


def test_a_change_restarts_the_streams_once_and_tells_it(setup: Setup) -> None:
    before = setup.generations()
    first = setup.controller().tick([change(1)])
    assert (first.actions, first.next_at, first.busy) == ((), 1_010.0, True)
    assert [(d.stream_id, d.restart) for d in first.decisions] == [("top", True), ("bottom", True)]
    setup.now = 1_010
    setup.controller().tick([change(1), change(2)])
    setup.now = 1_020
    for _ in range(6):  # another controller each time: all that is remembered is in the store
        tick = setup.controller().tick()
        setup.now += 1
        setup.up("bottom", "top")
    assert setup.generations() == {id_: number + 1 for id_, number in before.items()}
    assert (tick.busy, tick.next_at) == (False, None)
    assert [name for name, _ in setup.told] == [
        "streaming.cascade_restart_started",
        "streaming.restart_triggered",
        "streaming.restart_triggered",
        "streaming.cascade_restart_completed",
    ]
    assert [told["query_id"] for name, told in setup.told if name == SIGNALS[0]] == ["bottom", "top"]
    done = setup.told[-1][1]
    assert (done["restarted_count"], done["skipped_count"], done["failed_count"]) == (2, 0, 0)
    assert (done["entity_ids"], done["query_ids"]) == (["ref.rates"], ["bottom", "top"])
    reason = setup.store.desired()["top"].reason
    assert "change 1" in reason
    assert "change 2" in reason


def test_a_crash_before_asking_is_made_good(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    before = setup.generations()
    setup.controller().tick([change(1)])
    setup.now = 1_010
    with monkeypatch.context() as patch:
        patch.setattr(setup.store, "submit", lambda _: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            setup.controller().tick()
    assert setup.generations() == before
    setup.controller().tick()
    assert setup.generations()["bottom"] == before["bottom"] + 1


def test_two_controllers_at_once_do_it_once(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.controller().tick([change(1)])
    setup.now = 1_010
    before = setup.generations()
    put = setup.store.put_document
    others = [setup.controller()]

    def interrupted(*arguments: Any) -> int:
        if others:
            others.pop().tick()
        return put(*arguments)

    monkeypatch.setattr(setup.store, "put_document", interrupted)
    setup.controller().tick()
    assert setup.generations()["bottom"] == before["bottom"] + 1
    assert [name for name, _ in setup.told].count(SIGNALS[0]) == 1


def test_gives_up_when_others_are_always_faster(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise ConflictError("another was faster")

    monkeypatch.setattr(setup.store, "put_document", refuse)
    with pytest.raises(ConflictError):
        setup.controller().tick([change(1)])


def test_writes_nothing_when_nothing_happened(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.store, "put_document", lambda *_: pytest.fail("written"))
    assert setup.controller().tick().actions == ()


@pytest.mark.parametrize("document", [{"pending": 3}, {"nonsense": 1}, [1], "text"])
def test_a_state_that_cannot_be_read_starts_afresh(setup: Setup, document: Any) -> None:
    setup.store.put_document(*DOCUMENT, document, 0)
    assert setup.controller().tick([change(1)]).busy
    assert setup.store.document(*DOCUMENT)[0]["pending"]


def test_registration(setup: Setup) -> None:
    controller = setup.controller()
    controller.register_dependency("top", ["ref.rates"], policy="never")
    decided = controller.tick([change(1)]).decisions
    assert {decision.stream_id: decision.restart for decision in decided} == {"top": False, "bottom": True}
