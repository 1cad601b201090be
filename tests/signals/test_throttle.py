from __future__ import annotations

from typing import Any

import pytest
from dagster import AssetCheckEvaluation, AssetKey, AssetMaterialization, AssetObservation
from hypothesis import given
from hypothesis import strategies as st

from kindling_dagster.signals.bridge_outputs import StepLog
from kindling_dagster.signals.throttle import Throttle, with_metadata

KEY = AssetKey("live")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def observation(rows: int = 1, key: AssetKey = KEY) -> AssetObservation:
    return AssetObservation(key, metadata={"kindling/rows": rows, "kindling/signals": {"batch": rows}})


def check(passed: bool) -> AssetCheckEvaluation:
    return AssetCheckEvaluation(asset_key=KEY, check_name="health", passed=passed)


def values(event: Any) -> dict[str, Any]:
    return {key: value.value for key, value in event.metadata.items()}


def test_a_burst_passes_then_one_an_interval_that_stands_for_all(clock: Clock) -> None:
    throttle = Throttle(interval=10, burst=2, clock=clock)
    passed = [throttle.take("s", observation(rows)) for rows in (1, 2, 4, 8)]
    assert [len(events) for events in passed] == [1, 1, 0, 0]
    clock.now += 9.9
    assert throttle.due() == []
    clock.now += 0.2
    (event,) = throttle.due()
    assert values(event) == {
        "kindling/rows": 12,
        "kindling/count": 2,
        "kindling/signals": {"batch": 8},
        "kindling/signals_omitted": 1,
    }
    assert throttle.aggregated == {"s": 1}
    assert throttle.take("s", observation()) == [], "the interval counts from what has just gone out"
    clock.now += 10
    (event,) = throttle.take("s", observation(5))
    assert values(event)["kindling/rows"] == 6
    assert (throttle.due(), throttle.rest()) == ([], [])


def test_high_rate_signals_have_a_burst_of_one(clock: Clock) -> None:
    throttle = Throttle(burst=5, clock=clock)
    assert [len(throttle.take("s", observation(), high_rate=True)) for _ in range(3)] == [1, 0, 0]
    (rest,) = throttle.rest()
    assert values(rest)["kindling/count"] == 2


def test_lanes_are_apart(clock: Clock) -> None:
    throttle = Throttle(burst=1, clock=clock)
    events: list[tuple[str, Any]] = [
        ("a", observation()),
        ("b", observation()),
        ("a", observation(key=AssetKey("other"))),
        ("a", AssetMaterialization(KEY)),
        ("a", check(True)),
        ("a", StepLog("x")),
        ("a", StepLog("x", "error")),
    ]
    assert [len(throttle.take(*event)) for event in events] == [1] * 7
    assert [len(throttle.take(*event)) for event in events] == [0] * 7


@pytest.mark.parametrize(
    ("outcomes", "gone"),
    [
        ([True, True, False], [[True], [], [True, False]]),
        ([True, False], [[True], [False]]),
        ([True, False, True, True], [[True], [False], [True], []]),
        ([False, False], [[False], []]),
    ],
)
def test_a_check_that_turns_goes_out_at_once_and_in_order(
    clock: Clock, outcomes: list[bool], gone: list[list[bool]]
) -> None:
    throttle = Throttle(burst=1, clock=clock)
    passed: list[list[Any]] = [throttle.take("s", check(outcome)) for outcome in outcomes]
    assert [[event.passed for event in events] for events in passed] == gone


def test_lines_say_how_many_there_were(clock: Clock) -> None:
    throttle = Throttle(burst=1, clock=clock)
    assert throttle.take("s", StepLog("one")) == [StepLog("one")]
    throttle.take("s", StepLog("two"))
    assert throttle.rest() == [StepLog("two")], "one that was only late is itself"
    throttle.take("s", StepLog("three"))
    throttle.take("s", StepLog("four"))
    assert throttle.rest() == [StepLog("four (and 1 more like it)")]


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.floats(0, 20), st.booleans()), max_size=60
    ),
    st.integers(1, 5),
)
def test_counts_and_rows_add_up_whatever_comes(steps: list[tuple[str, int, float, bool]], burst: int) -> None:
    clock = Clock()
    throttle = Throttle(interval=10, burst=burst, clock=clock)
    gone: list[Any] = []
    for signal, rows, wait, fast in steps:
        clock.now += wait
        gone += throttle.due()
        gone += throttle.take(signal, observation(rows), fast)
    gone += throttle.rest()
    assert sum(values(event).get("kindling/count", 1) for event in gone) == len(steps)
    assert sum(values(event)["kindling/rows"] for event in gone) == sum(rows for _, rows, _, _ in steps)
    assert sum(throttle.aggregated.values()) == len(steps) - len(gone)


@pytest.mark.parametrize(
    "event",
    [
        AssetObservation(KEY, description="d", partition="p", tags={"a": "b"}),
        AssetMaterialization(KEY, description="d", partition="p", tags={"a": "b"}),
        AssetCheckEvaluation(asset_key=KEY, check_name="c", passed=False, description="d", blocking=True),
    ],
)
def test_other_metadata_leave_the_rest(event: Any) -> None:
    changed = with_metadata(event, {"x": 1})
    assert values(changed) == {"x": 1}
    assert with_metadata(changed, event.metadata) == event
