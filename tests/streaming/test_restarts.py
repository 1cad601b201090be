"""Restarts for changed dimensions: batches, cascades, crashes."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import manifest, pipe

from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.streaming.dependencies import RestartDecision
from kindling_dagster.streaming.model import Desired, StreamingQueryState, StreamStatus
from kindling_dagster.streaming.restarts import (
    Action,
    AskRestart,
    CascadeCompleted,
    CascadeStarted,
    RestartConfig,
    RestartState,
    StreamOrder,
    StreamView,
    advance,
    next_at,
    view_of,
)

CONFIG = RestartConfig(delay=30, max_wait=100, min_interval=60, timeout=200)
CHAIN = StreamOrder({"c": (), "b": ("c",), "a": ("c", "b"), "z": ()})
"""a → b → c, and z by itself."""


def change(
    stream: str, number: int = 1, what: str = "data", entity: str = "ref.planes", **more: Any
) -> RestartDecision:
    values = {"restart": True, "reason": f"change {number}", "policy": "auto", "read_kind": "files", **more}
    return RestartDecision(stream, entity, what, f"id{number}", **values)


@dataclass
class World:
    """A store and a host of the simplest kind, driven step by step."""

    order: StreamOrder = CHAIN
    config: RestartConfig = CONFIG
    state: RestartState = field(default_factory=RestartState)
    views: dict[str, StreamView] = field(default_factory=lambda: {id_: StreamView() for id_ in "abcz"})
    obeyed: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    told: list[Action] = field(default_factory=list)
    now: float = 1_000.0

    def step(self, *decisions: RestartDecision, at: float | None = None, crash: bool = False) -> list[Action]:
        """One step of the driver: save, then act, unless it crashes in between."""
        self.now = self.now if at is None else 1_000.0 + at
        self.state, actions = advance(self.state, decisions, self.views, self.order, self.config, self.now)
        self.state = RestartState.from_json(json.loads(json.dumps(self.state.to_json())))
        if not crash:
            for action in actions:
                self.act(action)
        return list(actions)

    def act(self, action: Action) -> None:
        self.told.append(action)
        if isinstance(action, AskRestart) and action.step.command_id not in self.obeyed:
            stream_id = action.step.stream_id
            self.obeyed[action.step.command_id] = stream_id
            self.log.append(stream_id)
            view = self.views[stream_id]
            self.views[stream_id] = replace(view, generation=view.generation + 1, up=False)

    def host(self, *stream_ids: str) -> None:
        """The host brings streams up."""
        for stream_id in stream_ids or tuple(self.views):
            if not self.views[stream_id].dead:
                self.views[stream_id] = replace(self.views[stream_id], up=True)

    def completed(self) -> list[CascadeCompleted]:
        return [action for action in self.told if isinstance(action, CascadeCompleted)]


def test_waits_for_further_changes_then_restarts_once() -> None:
    world = World()
    assert world.step(change("z", 1), at=0) == []
    for number in range(2, 51):
        world.step(change("z", number), at=number * 0.5)
    assert world.step(at=54) == []
    started, asked = world.step(at=55)
    assert isinstance(started, CascadeStarted)
    assert isinstance(asked, AskRestart)
    assert (asked.step.stream_id, len(asked.step.causes)) == ("z", 50)
    world.host()
    (completed,) = world.step(at=60)
    assert isinstance(completed, CascadeCompleted)
    assert (completed.seconds, completed.cascade.steps[0].down_seconds) == (5, 5)
    assert world.log == ["z"]


def test_changes_that_keep_coming_do_not_put_it_off_for_ever() -> None:
    world = World()
    for second in range(0, 100, 10):
        assert world.step(change("z", second), at=second) == []
    assert world.step(change("z", 100), at=100) != []
    assert world.log == ["z"]


def test_changes_during_a_restart_make_exactly_one_more() -> None:
    world = World()
    world.step(change("z", 1), at=0)
    world.step(at=30)
    for number in range(2, 9):
        world.step(change("z", number), at=30 + number)
    world.host()
    world.step(at=40)
    world.step(at=80)
    assert world.log == ["z"], "the rate limit holds"
    world.step(at=91)
    world.host()
    world.step(at=95)
    world.step(at=1_000)
    assert world.log == ["z", "z"]
    assert [len(done.cascade.steps[0].causes) for done in world.completed()] == [1, 7]


def test_the_same_change_told_again_does_nothing() -> None:
    world = World()
    for at in (0, 5, 29):
        world.step(change("z"), at=at)
    world.step(at=30)
    world.host()
    world.step(change("z"), at=31)
    for at in (200, 300):
        world.step(change("z"), at=at)
    assert world.log == ["z"]


def test_decisions_against_a_restart_do_nothing() -> None:
    world = World()
    world.step(change("z", restart=False), at=0)
    assert world.step(at=500) == []
    assert world.state == RestartState()


def test_consumers_are_up_before_producers() -> None:
    world = World()
    world.step(*(change(stream) for stream in "abcz"), at=0)
    world.step(at=30)
    assert world.log == ["c", "z"]
    world.host("z")
    world.step(at=31)
    assert world.log == ["c", "z"], "c is not up"
    world.host("c")
    world.step(at=32)
    assert world.log == ["c", "z", "b"]
    world.host("b")
    world.step(at=33)
    world.host("a")
    world.step(at=34)
    assert world.log == ["c", "z", "b", "a"]
    (done,) = world.completed()
    assert done.cascade.stream_ids == ("c", "b", "a", "z")
    assert done.cascade.count("done") == 4


@pytest.mark.parametrize(
    ("policy", "what", "streams"),
    [
        ("schema", "data", "a"),
        ("schema", "schema", "cba"),
        ("schema", "replaced", "cba"),
        ("always", "data", "cba"),
        ("never", "schema", "a"),
    ],
)
def test_what_takes_consumers_along(policy: Any, what: str, streams: str) -> None:
    world = World(config=replace(CONFIG, cascade=policy))
    world.step(change("a", what=what), at=0)
    for at in range(30, 40):
        world.step(at=at)
        world.host()
    assert "".join(world.log) == streams
    (done,) = world.completed()
    assert "".join(done.cascade.stream_ids) == streams
    if streams != "a":
        assert "a, whose output it reads, restarts" in done.cascade.steps[0].reason


def test_a_consumer_that_waits_for_its_rate_limit_keeps_its_causes() -> None:
    world = World()
    world.step(change("c", 1), at=0)
    world.step(at=30)
    world.host()
    world.step(at=31)
    world.step(change("c", 2), at=40)
    world.step(change("b", 3, what="schema"), at=40)
    world.step(at=70)
    assert world.state.cascade is not None
    step = world.state.cascade.steps[0]
    assert (step.stream_id, [cause.change_id for cause in step.causes]) == ("c", ["id2", "id3"])
    assert world.state.pending == ()


def test_a_change_joins_a_restart_that_is_still_to_come() -> None:
    world = World()
    world.step(change("a", 1), change("c", 1), at=0)
    world.step(at=30)
    world.step(change("a", 2), at=31)
    for at in (32, 33, 34):
        world.host()
        world.step(at=at)
    world.step(at=999)
    assert world.log == ["c", "a"]
    assert len(world.completed()[0].cascade.steps[1].causes) == 2


@pytest.mark.parametrize(
    ("view", "status", "words"),
    [
        (StreamView(dead=True, up=False), "skipped", "dead letter"),
        (StreamView(wanted=False, up=False), "skipped", "not meant to run"),
        (None, "skipped", "not meant to run"),
    ],
)
def test_what_is_skipped(view: StreamView | None, status: str, words: str) -> None:
    world = World()
    if view is None:
        del world.views["c"]
    else:
        world.views["c"] = view
    world.step(change("c"), change("b"), at=0)
    world.step(at=30)
    world.host("b")
    world.step(at=31)
    assert world.log == ["b"]
    step = world.completed()[0].cascade.steps[0]
    assert (step.status, words in step.detail) == (status, True)


@pytest.mark.parametrize(
    ("view", "status", "words"),
    [
        (StreamView(generation=1, up=False, dead=True), "failed", "became a dead letter"),
        (StreamView(generation=1, up=False, wanted=False), "skipped", "stopped meanwhile"),
        (StreamView(generation=1, up=False), "failed", "not up after 200 s"),
    ],
)
def test_one_that_does_not_come_up_does_not_hold_the_others(
    view: StreamView, status: str, words: str
) -> None:
    world = World()
    world.step(change("c"), change("b"), at=0)
    world.step(at=30)
    world.views["c"] = view
    world.step(at=230)
    assert world.log == ["c", "b"]
    world.host("b")
    world.step(at=231)
    step = world.completed()[0].cascade.steps[0]
    assert (step.status, words in step.detail) == (status, True)


def test_a_crash_between_saving_and_asking_asks_again_with_the_same_id() -> None:
    world = World()
    world.step(change("z"), at=0)
    lost = [a for a in world.step(at=30, crash=True) if isinstance(a, AskRestart)]
    again = [a for a in world.step(at=31) if isinstance(a, AskRestart)]
    assert (lost[0].again, again[0].again) == (False, True)
    assert lost[0].step.command_id == again[0].step.command_id
    assert world.step(at=32) == [], "it has arrived, and is not up yet"
    world.host()
    world.step(at=33)
    assert (world.log, len(world.completed())) == (["z"], 1)


def test_a_clock_set_back_delays_and_repeats_nothing() -> None:
    world = World()
    world.step(change("z", 1), at=0)
    world.step(at=30)
    world.step(change("z", 2), at=31)
    world.host()
    world.step(at=-5_000)
    for at in range(-5_000, -4_000, 10):
        world.step(at=at)
        world.host()
    assert world.log == ["z", "z"]
    assert all(done.seconds >= 0 for done in world.completed())


def test_next_at() -> None:
    world = World()
    assert next_at(world.state, CONFIG) is None
    world.step(change("z", 1), at=0)
    assert next_at(world.state, CONFIG) == 1_030
    world.step(at=30)
    assert next_at(world.state, CONFIG) is None
    world.host()
    world.step(change("z", 2), at=31)
    assert next_at(world.state, CONFIG) == 1_090


def test_order_counts_batch_pipes_between_streams() -> None:
    app = manifest(
        pipe("top", "bronze.x", "silver.a"),
        pipe("between", "silver.a", "silver.b"),
        pipe("bottom", "silver.b", "gold.c"),
        pipe("apart", "bronze.y", "silver.d"),
    )
    order = StreamOrder.of(PipeGraphBuilder(app).build_graph(), ["top", "bottom", "apart"])
    assert order.consumers["top"] == ("bottom",)
    assert order.consumers_first(["top", "bottom", "new"])[:2] == ["bottom", "top"]
    assert order.consumers_first(["new", "top"]) == ["top", "new"]


@pytest.mark.parametrize(
    ("desired", "status", "expected"),
    [
        (None, None, StreamView(wanted=False, up=False)),
        (Desired("s", True, 3), None, StreamView(True, 3, up=False)),
        (
            Desired("s", True, 3),
            StreamStatus("s", StreamingQueryState.RUNNING, generation=3),
            StreamView(True, 3),
        ),
        (
            Desired("s", True, 3),
            StreamStatus("s", StreamingQueryState.RUNNING, generation=2),
            StreamView(True, 3, up=False),
        ),
        (
            Desired("s", True, 3),
            StreamStatus("s", StreamingQueryState.WAITING, generation=3),
            StreamView(True, 3, up=False),
        ),
        (
            Desired("s", True, 3),
            StreamStatus("s", StreamingQueryState.DEAD_LETTER, generation=3),
            StreamView(True, 3, up=False, dead=True),
        ),
        (
            Desired("s", False, 3),
            StreamStatus("s", StreamingQueryState.STOPPED, generation=3),
            StreamView(False, 3, up=False),
        ),
    ],
)
def test_view_of(desired: Desired | None, status: StreamStatus | None, expected: StreamView) -> None:
    assert view_of(desired, status) == expected


@settings(max_examples=150)
@given(st.integers(0, 1 << 32))
def test_at_random_nothing_is_lost_or_repeated(seed: int) -> None:
    """Changes, crashes, slow hosts and dead streams in any order."""
    rng = random.Random(seed)
    world = World(config=replace(CONFIG, cascade=rng.choice(("never", "schema", "always"))))
    owed: dict[
        str, int
    ] = {}  # stream → how many of its restarts had been asked for when its last change came
    number = 0
    clock = 0.0
    for _ in range(60):
        clock += rng.choice((0, 1, 5, 31, 70))
        new = []
        for _ in range(rng.choice((0, 0, 1, 2))):
            number += 1
            stream = rng.choice("abcz")
            new.append(change(stream, number, rng.choice(("data", "schema"))))
            if not world.views[stream].dead:
                owed[stream] = world.log.count(stream)
        told = [*new, *new] if rng.random() < 0.3 else new
        before = len(world.log)
        world.step(*told, at=clock, crash=rng.random() < 0.3)
        for stream in world.log[before:]:
            consumers = [id_ for id_ in CHAIN.consumers[stream] if not world.views[id_].dead]
            cascade = world.state.cascade
            assert cascade is not None
            involved = {step.stream_id: step for step in cascade.steps}
            assert all(involved[id_].ended for id_ in consumers if id_ in involved)
        if rng.random() < 0.6:
            world.host(rng.choice("abcz"))
        if rng.random() < 0.02:
            stream = rng.choice("abcz")
            world.views[stream] = replace(world.views[stream], dead=True, up=False)
            owed.pop(stream, None)
    for _ in range(40):  # then quiet
        clock += 20
        world.host()
        world.step(at=clock)
    assert world.state.cascade is None
    assert world.state.pending == ()
    for stream, count in owed.items():
        assert world.log.count(stream) > count, f"{stream} never saw its last change"
    assert len(world.log) == len(set(world.obeyed))
    assert len(world.log) <= 4 * world.state.number
