"""What must be done, decided from what should be and what is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_dagster.streaming.model import Desired, RecoveryState
from kindling_dagster.streaming.model import StreamingQueryState as State
from kindling_dagster.streaming.reconcile import Actual, StartOrder, reconcile

NOW = 1000.0
ALONE = StartOrder(("s",))


def wish(running: bool = True, generation: int = 0) -> Desired:
    return Desired("s", running, generation, "because")


@pytest.mark.parametrize(
    ("wanted", "here", "remembered", "does"),
    [
        # Nobody wants it.
        (None, Actual(), RecoveryState(), None),
        (None, Actual(State.RUNNING, 0), RecoveryState(), "stop"),
        (wish(False), Actual(State.RUNNING, 0), RecoveryState(), "stop"),
        (wish(False), Actual(State.STOPPED, 0), RecoveryState(), None),
        (wish(False, 3), Actual(State.WAITING, 0), RecoveryState(next_start_at=NOW - 1), None),
        (wish(False), Actual(State.STARTING, 0), RecoveryState(), None),
        # It is wanted and down.
        (wish(), Actual(), RecoveryState(), "start"),
        (wish(), Actual(State.STOPPED, 0), RecoveryState(), "start"),
        (wish(), Actual(State.STARTING, 0), RecoveryState(), None),
        (wish(), Actual(State.STOPPING, 0), RecoveryState(), None),
        (wish(), Actual(State.WAITING, 0), RecoveryState(next_start_at=NOW + 1), None),
        (wish(), Actual(State.WAITING, 0), RecoveryState(next_start_at=NOW), "start"),
        (wish(), Actual(State.WAITING, 0), RecoveryState(), "start"),
        (wish(), Actual(State.STOPPED, 0), RecoveryState(next_start_at=NOW + 1), None),
        (wish(), Actual(State.FAILED, 0), RecoveryState(), None),
        # A person asks anew.
        (wish(generation=1), Actual(State.FAILED, 0), RecoveryState(), "start"),
        (wish(generation=1), Actual(State.WAITING, 0), RecoveryState(next_start_at=NOW + 9), "start"),
        (wish(generation=1), Actual(State.RUNNING, 0), RecoveryState(), "restart"),
        (wish(generation=1), Actual(State.RUNNING, 1), RecoveryState(), None),
        (wish(generation=1), Actual(State.STARTING, 0), RecoveryState(), None),
        # It is given up.
        (wish(), Actual(State.DEAD_LETTER, 0), RecoveryState(dead=True), None),
        (wish(generation=7), Actual(State.DEAD_LETTER, 0), RecoveryState(dead=True), None),
        (wish(), Actual(State.STOPPED, -1), RecoveryState(dead=True), None),
        (wish(), Actual(State.DEAD_LETTER, 0), RecoveryState(), "start"),
    ],
)
def test_one_stream(
    wanted: Desired | None, here: Actual, remembered: RecoveryState, does: str | None
) -> None:
    desired = {} if wanted is None else {"s": wanted}
    actions = reconcile(desired, {"s": here}, {"s": remembered}, ALONE, NOW)
    assert [action.kind for action in actions] == ([does] if does else [])
    if does and wanted is not None:
        assert (actions[0].generation, actions[0].reason) == (wanted.generation, "because")


CHAIN = StartOrder(("gold", "silver", "bronze"), {"silver": ("gold",), "bronze": ("silver",)})


def both(**states: State) -> dict[str, Actual]:
    return {stream_id: Actual(state, 0) for stream_id, state in states.items()}


@pytest.mark.parametrize(
    ("actual", "started"),
    [
        ({}, ["gold"]),
        (both(gold=State.STARTING), []),
        (both(gold=State.RUNNING), ["silver"]),
        # A consumer that cannot come up does not keep its producer down.
        (both(gold=State.FAILED), ["silver"]),
        (both(gold=State.FAILED, silver=State.RUNNING), ["bronze"]),
        (both(gold=State.STARTING, silver=State.RUNNING), ["bronze"]),
    ],
)
def test_consumers_start_before_producers(actual: dict[str, Actual], started: list[str]) -> None:
    desired = {stream_id: Desired(stream_id, True) for stream_id in CHAIN.ids}
    assert [action.stream_id for action in reconcile(desired, actual, {}, CHAIN, NOW)] == started


@pytest.mark.parametrize(("since", "started"), [(NOW - 59, []), (NOW - 61, ["silver"])])
def test_a_consumer_whose_start_hangs_does_not_hold_up_its_producer_for_ever(
    since: float, started: list[str]
) -> None:
    desired = {stream_id: Desired(stream_id, True) for stream_id in ("gold", "silver")}
    actual = {"gold": Actual(State.STARTING, 0, since)}
    assert [action.stream_id for action in reconcile(desired, actual, {}, CHAIN, NOW)] == started


def test_producers_stop_before_consumers_and_stops_come_before_starts() -> None:
    order = StartOrder((*CHAIN.ids, "other"), CHAIN.after)
    desired = {"other": Desired("other", True)}
    up = both(gold=State.RUNNING, silver=State.RUNNING, bronze=State.RUNNING)
    actions = reconcile(desired, up, {}, order, NOW)
    assert [(action.kind, action.stream_id) for action in actions] == [
        ("stop", "bronze"),
        ("stop", "silver"),
        ("stop", "gold"),
        ("start", "other"),
    ]


def test_restarts_of_a_chain_go_together_consumers_first() -> None:
    desired = {stream_id: Desired(stream_id, True, 1) for stream_id in CHAIN.ids}
    up = both(gold=State.RUNNING, silver=State.RUNNING, bronze=State.RUNNING)
    assert [action.stream_id for action in reconcile(desired, up, {}, CHAIN, NOW)] == list(CHAIN.ids)


def test_streams_the_app_does_not_have_are_left_alone() -> None:
    assert reconcile({"stranger": Desired("stranger", True)}, {}, {}, ALONE, NOW) == ()


IDS = "abcde"


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict, dict, dict, StartOrder]:
    """Any wishes, states and memories over up to five streams in an order without circles."""
    ids = IDS[: draw(st.integers(1, 5))]
    after = {each: [c for c in ids[:place] if draw(st.booleans())] for place, each in enumerate(ids)}
    desired = {
        each: Desired(each, draw(st.booleans()), draw(st.integers(0, 2)))
        for each in ids
        if draw(st.booleans())
    }
    settled = st.sampled_from([state for state in State if state not in (State.STARTING, State.STOPPING)])
    actual = {each: Actual(draw(settled), draw(st.integers(-1, 2))) for each in ids if draw(st.booleans())}
    waits = st.one_of(st.none(), st.just(NOW - 5), st.just(NOW + 5))
    recovery = {
        each: RecoveryState(dead=draw(st.booleans()), next_start_at=draw(waits))
        for each in ids
        if draw(st.booleans())
    }
    return desired, actual, recovery, StartOrder(tuple(ids), after)


@given(worlds(), st.sets(st.sampled_from(IDS)))
def test_it_converges_in_order(world: tuple[dict, dict, dict, StartOrder], broken: set[str]) -> None:
    """Whatever is there, doing what it says leads to what is wanted, and then it says nothing."""
    desired, actual, recovery, order = world
    for _ in range(len(order.ids) + 2):
        actions = reconcile(desired, actual, recovery, order, NOW)
        if not actions:
            break
        for action in actions:
            here = actual.get(action.stream_id, Actual())
            assert not recovery.get(action.stream_id, RecoveryState()).dead or action.kind == "stop"
            if action.kind == "stop":
                actual[action.stream_id] = replace(here, state=State.STOPPED)
                continue
            for consumer in order.after.get(action.stream_id, ()):
                assert action.kind == "restart" or actual.get(consumer, Actual()).state in (
                    State.RUNNING,
                    *(() if _startable(consumer, desired, actual, recovery) else tuple(State)),
                )
            state = State.FAILED if action.stream_id in broken else State.RUNNING
            actual[action.stream_id] = Actual(state, action.generation)
    assert reconcile(desired, actual, recovery, order, NOW) == ()
    for stream_id in order.ids:
        wanted = desired.get(stream_id)
        here = actual.get(stream_id, Actual())
        if wanted is None or not wanted.running:
            assert here.state is not State.RUNNING
        elif here.state is State.RUNNING and not recovery.get(stream_id, RecoveryState()).dead:
            assert here.generation >= wanted.generation
        else:
            assert not _startable(stream_id, desired, actual, recovery)


def _startable(stream_id: str, desired: dict, actual: dict, recovery: dict) -> bool:
    """Whether a stream alone, with nobody to wait for, would be started now."""
    only = {stream_id: desired[stream_id]} if stream_id in desired else {}
    actions = reconcile(only, actual, recovery, StartOrder((stream_id,)), NOW)
    return any(action.kind == "start" for action in actions)
