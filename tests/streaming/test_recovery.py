"""Recovery: the next action as a table, its bounds by generated histories, and what the manager tells and keeps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_fakes import IN_ORDER, FakeClock, HeardSignals

from kindling_dagster.streaming.model import RecoveryPolicy, RecoveryState, StreamError
from kindling_dagster.streaming.recovery import (
    ERRORS_KEPT,
    NOTHING,
    RecoveryEvent,
    RecoveryStep,
    StreamingRecoveryManager,
    backoff_seconds,
    next_action,
)

NOW = 1_000.0
POLICY = RecoveryPolicy(jitter=0.0)
HEALS = StreamError("TimeoutError", "no answer", NOW, "transient")
UNKNOWN = StreamError("ValueError", "poison", NOW, "unknown")
NEVER = StreamError("AnalysisException", "no such column", NOW, "permanent", "Correct the pipe.")
UP = RecoveryState(last_start_at=NOW - 10)
WAITS = RecoveryState(failures=1, next_start_at=NOW + 1, last_start_at=NOW - 10, errors=(HEALS,))

Ev, Step = RecoveryEvent, RecoveryStep


def middle() -> float:
    return 0.5


# state before, event, error, policy, state after (None: unchanged), step, seconds to wait
CASES = {
    "first failure waits a second": (
        UP, Ev.FAILED, HEALS, POLICY, replace(UP, failures=1, next_start_at=NOW + 1, errors=(HEALS,)), Step.WAIT, 1,
    ),
    "an unknown error is tried again": (
        UP, Ev.FAILED, UNKNOWN, POLICY, replace(UP, failures=1, next_start_at=NOW + 1, errors=(UNKNOWN,)),
        Step.WAIT, 1,
    ),
    "third failure waits four": (
        replace(UP, failures=2), Ev.FAILED, HEALS, POLICY,
        replace(UP, failures=3, next_start_at=NOW + 4, errors=(HEALS,)), Step.WAIT, 4,
    ),
    "backoff is capped": (
        replace(UP, failures=4), Ev.FAILED, HEALS, replace(POLICY, max_backoff=7),
        replace(UP, failures=5, next_start_at=NOW + 7, errors=(HEALS,)), Step.WAIT, 7,
    ),
    "cooldown counts from the last start": (
        UP, Ev.FAILED, HEALS, replace(POLICY, cooldown=60),
        replace(UP, failures=1, next_start_at=NOW + 50, errors=(HEALS,)), Step.WAIT, 50,
    ),
    "the retries are used up": (
        replace(UP, failures=5), Ev.FAILED, HEALS, POLICY, replace(UP, failures=6, dead=True, errors=(HEALS,)),
        Step.DEAD_LETTER, None,
    ),
    "no retries at all": (
        UP, Ev.FAILED, HEALS, replace(POLICY, max_retries=0), replace(UP, failures=1, dead=True, errors=(HEALS,)),
        Step.DEAD_LETTER, None,
    ),
    "what cannot heal is given up at once": (
        UP, Ev.FAILED, NEVER, POLICY, replace(UP, failures=1, dead=True, errors=(NEVER,)), Step.DEAD_LETTER, None,
    ),
    "alert starts nothing": (
        UP, Ev.FAILED, HEALS, replace(POLICY, strategy="alert"), replace(UP, failures=1, errors=(HEALS,)),
        Step.ALERT, None,
    ),
    "alert also for what cannot heal": (
        UP, Ev.FAILED, NEVER, replace(POLICY, strategy="alert"), replace(UP, failures=1, errors=(NEVER,)),
        Step.ALERT, None,
    ),
    "ignore starts nothing": (
        UP, Ev.FAILED, HEALS, replace(POLICY, strategy="ignore"), replace(UP, failures=1, errors=(HEALS,)),
        Step.IGNORE, None,
    ),
    "one failure reported twice": (WAITS, Ev.FAILED, UNKNOWN, POLICY, None, Step.NONE, None),
    "a dead letter cannot fail": (
        RecoveryState(failures=6, dead=True), Ev.FAILED, HEALS, POLICY, None, Step.NONE, None,
    ),
    "the wait is not over": (WAITS, Ev.TICK, None, POLICY, None, Step.NONE, None),
    "the wait is over": (
        replace(WAITS, next_start_at=NOW), Ev.TICK, None, POLICY,
        replace(WAITS, next_start_at=None, last_start_at=NOW), Step.RESTART, None,
    ),
    "the clock was set back: wait no longer than the backoff": (
        replace(WAITS, next_start_at=NOW + 3_600), Ev.TICK, None, POLICY, WAITS, Step.NONE, None,
    ),
    "the clock was set back: wait no longer than the cap, jitter or not": (
        replace(WAITS, next_start_at=NOW + 3_600), Ev.TICK, None, replace(POLICY, max_backoff=1, jitter=0.5),
        WAITS, Step.NONE, None,
    ),
    "the clock was set back: stability counts from now": (
        replace(UP, failures=2, progressed=True, last_start_at=NOW + 3_600), Ev.TICK, None, POLICY,
        replace(UP, failures=2, progressed=True, last_start_at=NOW), Step.NONE, None,
    ),
    "stable, but no progress": (
        replace(UP, failures=2, last_start_at=NOW - 600), Ev.TICK, None, POLICY, None, Step.NONE, None,
    ),
    "progress, but not stable": (
        replace(UP, failures=2, progressed=True, last_start_at=NOW - 59), Ev.TICK, None, POLICY, None, Step.NONE,
        None,
    ),
    "progress and stable": (
        replace(UP, failures=2, progressed=True, last_start_at=NOW - 60, errors=(HEALS,)), Ev.TICK, None, POLICY,
        RecoveryState(progressed=True, last_start_at=NOW - 60), Step.RECOVERED, None,
    ),
    "nothing to recover from": (
        replace(UP, progressed=True, last_start_at=NOW - 600), Ev.TICK, None, POLICY, None, Step.NONE, None,
    ),
    "a dead letter is never due": (
        RecoveryState(failures=6, dead=True, last_start_at=0, progressed=True), Ev.TICK, None, POLICY, None,
        Step.NONE, None,
    ),
    "a start by a person keeps the failures": (
        WAITS, Ev.STARTED, None, POLICY, replace(WAITS, next_start_at=None, last_start_at=NOW), Step.NONE, None,
    ),
    "a start forgets the progress of the one before": (
        replace(UP, progressed=True), Ev.STARTED, None, POLICY, replace(UP, last_start_at=NOW), Step.NONE, None,
    ),
    "progress": (UP, Ev.PROGRESSED, None, POLICY, replace(UP, progressed=True), Step.NONE, None),
    "stopped while it waits": (
        WAITS, Ev.STOPPED, None, POLICY, RecoveryState(failures=1, errors=(HEALS,)), Step.NONE, None,
    ),
    "revived": (
        RecoveryState(failures=6, dead=True, errors=(HEALS,)), Ev.REVIVED, None, POLICY, RecoveryState(),
        Step.NONE, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_next_action(case: tuple[Any, ...]) -> None:
    before, event, error, policy, after, step, seconds = case
    state, action = next_action(before, event, policy, NOW, middle, error)
    assert state == (before if after is None else after)
    assert action.step is step
    if seconds is not None:
        assert action.at == NOW + seconds
        assert action.backoff == pytest.approx(seconds)
    if step is Step.DEAD_LETTER:
        assert (action.error, action.permanent) == (error, error.kind == "permanent")


def test_a_failure_needs_its_error() -> None:
    with pytest.raises(ValueError, match="error"):
        next_action(UP, Ev.FAILED, POLICY, NOW)


policies = st.builds(
    RecoveryPolicy,
    max_retries=st.integers(0, 8),
    initial_backoff=st.just(0.0) | st.floats(0.001, 100),
    max_backoff=st.floats(0, 1_000),
    multiplier=st.floats(1, 10),
    jitter=st.floats(0, 1),
    cooldown=st.floats(0, 100),
    stable_after=st.floats(0, 100),
)
chances = st.floats(0, 1)


@given(policy=policies, failures=st.integers(1, 10_000), chance=chances)
def test_backoff_is_bounded(policy: RecoveryPolicy, failures: int, chance: float) -> None:
    seconds = backoff_seconds(policy, failures, lambda: chance)
    growth = math.exp(min(700.0, (failures - 1) * math.log(policy.multiplier)))  # no float is above e ** 709
    unlimited = min(policy.initial_backoff * growth, policy.max_backoff)
    assert 0 <= seconds <= policy.max_backoff
    assert unlimited * (1 - policy.jitter) - 1e-6 <= seconds <= unlimited * (1 + policy.jitter) + 1e-6


@given(policy=policies, chance=chances)
def test_what_dies_in_its_first_batch_exhausts(policy: RecoveryPolicy, chance: float) -> None:
    """Kindling counts a start as a success and forgets the failures, so such a query restarts for ever."""
    state, now, restarts = RecoveryState(), NOW, 0
    state, _ = next_action(state, Ev.STARTED, policy, now)
    while not state.dead:
        now += policy.stable_after + 1  # long up, but without progress
        state, action = next_action(state, Ev.TICK, policy, now)
        assert action == NOTHING
        state, action = next_action(state, Ev.FAILED, policy, now, lambda: chance, UNKNOWN)
        if action.step is Step.WAIT:
            now = action.at
            state, action = next_action(state, Ev.TICK, policy, now)
            assert action.step is Step.RESTART
            restarts += 1
            assert restarts <= policy.max_retries
    assert restarts == policy.max_retries
    assert len(state.errors) == min(policy.max_retries + 1, ERRORS_KEPT)


events = st.sampled_from([Ev.STARTED, Ev.PROGRESSED, Ev.FAILED, Ev.STOPPED, Ev.TICK])


@given(policy=policies, history=st.lists(st.tuples(events, st.floats(-50, 200), chances), max_size=40))
def test_failures_are_forgotten_only_after_progress_and_stability(
    policy: RecoveryPolicy, history: list[tuple[RecoveryEvent, float, float]]
) -> None:
    state, now = RecoveryState(), NOW
    for event, passed, chance in history:
        now += passed  # also backwards
        before = state
        error = UNKNOWN if event is Ev.FAILED else None
        state, action = next_action(before, event, policy, now, lambda chance=chance: chance, error)
        if state.failures < before.failures:
            assert before.progressed
            assert before.last_start_at is not None
            assert max(0.0, now - before.last_start_at) >= policy.stable_after
            assert action.step is Step.RECOVERED
        assert before.dead <= state.dead
        assert state.failures <= policy.max_retries + 1
        if action.step is Step.RESTART:
            assert before.next_start_at is not None
        if state.next_start_at is not None and (event is Ev.TICK or action.step is Step.WAIT):
            longest = max(policy.max_backoff, policy.cooldown)
            assert state.next_start_at <= now + longest + 1e-6


def heard_recovery() -> HeardSignals:
    return HeardSignals(*StreamingRecoveryManager.EMITS)


def make_manager(heard: HeardSignals, clock: FakeClock, **more: Any) -> StreamingRecoveryManager:
    return StreamingRecoveryManager(
        2, policies={"quiet": RecoveryPolicy(strategy="alert")}, signals=heard.provider, settings=IN_ORDER, clock=clock, rng=middle,
        **more,
    )  # fmt: skip


def test_the_manager_tells_of_every_try_and_of_the_end() -> None:
    heard, clock = heard_recovery(), FakeClock()
    manager = make_manager(heard, clock)
    manager.started("flights")
    for _ in range(2):
        action = manager.failed("flights", replace(UNKNOWN, at=clock.now))
        assert action.step is Step.WAIT
        assert manager.failed("flights", UNKNOWN) == NOTHING
        assert manager.due() == {}
        clock.now = action.at or 0.0
        assert manager.due()["flights"].step is Step.RESTART
    assert manager.failed("flights", UNKNOWN).step is Step.DEAD_LETTER
    clock.now += 10_000
    assert manager.due() == {}
    assert manager.dead_letters() == ("flights",)
    assert heard.names == [
        "recovery_attempted", "recovery_failed", "recovery_attempted", "recovery_failed", "recovery_exhausted",
    ]  # fmt: skip
    tries = [payload for name, payload in heard.all if name == "recovery_attempted"]
    assert [(each["retry_count"], each["max_retries"], each["backoff_seconds"]) for each in tries] == [
        (1, 2, 1.0),
        (2, 2, 2.0),
    ]
    assert heard.all[-1][1]["failure_reason"] == "poison"


def test_the_manager_tells_of_success_only_when_it_has_proved_itself() -> None:
    heard, clock = heard_recovery(), FakeClock()
    manager = make_manager(heard, clock)
    manager.started("flights")
    clock.now = manager.failed("flights", HEALS).at or 0.0
    assert manager.due()["flights"].step is Step.RESTART
    manager.started("flights")
    clock.now += 61
    assert manager.due() == {}
    manager.progressed("flights")
    assert manager.due()["flights"].step is Step.RECOVERED
    assert heard.names == ["recovery_attempted", "recovery_succeeded"]
    assert manager.state("flights").failures == 0


def test_what_cannot_heal_is_exhausted_without_a_try() -> None:
    heard, clock = heard_recovery(), FakeClock()
    manager = make_manager(heard, clock)
    assert manager.failed("flights", NEVER).permanent
    assert heard.names == ["recovery_exhausted"]
    assert heard.all[0][1]["suggestion"] == "Correct the pipe."
    manager.revive("flights")
    assert manager.state("flights") == RecoveryState()
    assert manager.dead_letters() == ()


def test_alert_tells_nobody_of_a_recovery() -> None:
    heard, clock = heard_recovery(), FakeClock()
    manager = make_manager(heard, clock)
    assert manager.failed("quiet", HEALS).step is Step.ALERT
    clock.now += 1_000
    assert manager.due() == {}
    assert heard.names == []


def test_the_memory_outlives_the_manager() -> None:
    """A host that dies takes nothing with it: the next one goes on counting."""
    clock = FakeClock()
    first = make_manager(heard_recovery(), clock)
    first.failed("flights", HEALS)
    saved = first.take_changed()
    assert first.take_changed() == {}
    second = make_manager(heard_recovery(), clock, states=saved)
    clock.now += 1
    assert second.due()["flights"].step is Step.RESTART
    assert second.failed("flights", HEALS).failures == 2
    assert set(second.take_changed()) == {"flights"}
    second.load({"flights": RecoveryState(dead=True)})
    assert second.dead_letters() == ("flights",)
    assert second.take_changed() == {}


def test_only_the_asked_streams_are_due() -> None:
    clock = FakeClock()
    manager = make_manager(heard_recovery(), clock)
    manager.failed("a", HEALS)
    manager.failed("b", HEALS)
    clock.now += 5
    assert set(manager.due(["b"])) == {"b"}
    assert set(manager.due()) == {"a"}
