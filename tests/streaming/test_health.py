"""The judgement of a query's health, as tables of observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_dagster.streaming.health import HealthLimits, Observation, judge
from kindling_dagster.streaming.model import StreamError, StreamHealth, StreamingQueryConfig, StreamMetrics

NOW = 10_000.0
CONFIG = StreamingQueryConfig(stall_threshold=300)
TRIGGERED = replace(CONFIG, trigger={"processingTime": "10 seconds"})
SLOW = replace(CONFIG, trigger={"processingTime": "10 minutes"})
Health = StreamHealth


def seen(**changes: Any) -> Observation:
    """A healthy look: batch 5 ended a second ago, and the next is under way."""
    metrics = {
        name: changes.pop(name) for name in list(changes) if name in StreamMetrics.__dataclass_fields__
    }
    values: dict[str, Any] = {
        "at": NOW, "started_at": NOW - 5_000, "active": True, "data_available": True, "trigger_active": True,
        "message": "Processing new data", "batch_ended_at": NOW - 1, "listening": True,
        "metrics": StreamMetrics(**{"batch_id": 5, "last_progress_at": NOW - 1, "last_event_at": NOW - 1} | metrics),
    }  # fmt: skip
    return Observation(**(values | changes))


def idle(**changes: Any) -> Observation:
    return seen(
        **({"data_available": False, "trigger_active": False, "message": "Waiting for data"} | changes)
    )


long_ago = {"batch_ended_at": NOW - 400, "last_progress_at": NOW - 400}
CASES: dict[str, tuple[Sequence[Observation], StreamingQueryConfig, StreamHealth, str]] = {
    "never looked at": ([], CONFIG, Health.UNKNOWN, "Not looked at"),
    "works": ([seen()], CONFIG, Health.HEALTHY, "Batch 5"),
    "died": (
        [seen(error=StreamError("ValueError", "poison", NOW))], CONFIG, Health.EXCEPTION, "ValueError: poison",
    ),
    "ended": ([seen(active=False)], CONFIG, Health.UNKNOWN, "ended"),
    "idle": ([idle()], CONFIG, Health.IDLE, "nothing to read"),
    "idle for hours, by Spark's idle events": (
        [idle(batch_ended_at=NOW - 9_000, last_progress_at=NOW - 9_000, last_event_at=NOW - 5)], CONFIG, Health.IDLE,
        "nothing to read",
    ),
    "idle for hours, no listener": (
        [idle(**long_ago, last_event_at=None, listening=False, trigger_active=True)], CONFIG, Health.IDLE, "",
    ),
    "asks its source whether there is something": (
        [idle(trigger_active=True, last_event_at=NOW - 9, batch_ended_at=NOW - 900, last_progress_at=NOW - 900)],
        CONFIG, Health.IDLE, "",
    ),
    "data waits, no batch ends": ([seen(**long_ago)], CONFIG, Health.STALLED, "400 s (Processing new data)"),
    "data waits, idle events come all the same": (
        [seen(**long_ago, last_event_at=NOW)], CONFIG, Health.STALLED, "400 s",
    ),
    "never a batch since it started": (
        [seen(started_at=NOW - 400, batch_ended_at=None, batch_id=None, last_progress_at=None)], CONFIG,
        Health.STALLED, "400 s",
    ),
    "a long first batch": (
        [seen(started_at=NOW - 200, batch_ended_at=None, batch_id=None, last_progress_at=None)], CONFIG,
        Health.UNKNOWN, "first batch",
    ),
    "initializing": (
        [idle(started_at=NOW - 2, batch_ended_at=None, batch_id=None, last_progress_at=None, last_event_at=None,
              message="Initializing sources")],
        CONFIG, Health.UNKNOWN, "Initializing sources",
    ),
    "a source that hangs when it is asked": (
        [idle(trigger_active=True, message="Getting offsets from Delta", last_event_at=NOW - 400, **long_ago)],
        CONFIG, Health.STALLED, "Getting offsets",
    ),
    "waits for a trigger of ten minutes": (
        [seen(trigger_active=False, message="Waiting for next trigger", batch_ended_at=NOW - 590,
              last_progress_at=NOW - 590)],
        SLOW, Health.HEALTHY, "",
    ),
    "longer than trigger and threshold": (
        [seen(batch_ended_at=NOW - 900, last_progress_at=NOW - 900)], SLOW, Health.STALLED, "900 s",
    ),
    "no answer for a moment": ([seen(unanswered_since=NOW - 6)], CONFIG, Health.UNHEALTHY, "not answered for 6 s"),
    "no answer for long": ([seen(unanswered_since=NOW - 300)], CONFIG, Health.STALLED, "not answered for 300 s"),
    "the clock was set back": (
        [seen(batch_ended_at=NOW + 9_000, last_progress_at=NOW + 9_000, started_at=NOW + 9_000)], CONFIG,
        Health.HEALTHY, "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_judge(case: tuple[Sequence[Observation], StreamingQueryConfig, StreamHealth, str]) -> None:
    history, config, health, reason = case
    verdict = judge(history, config, NOW)
    assert verdict.health is health, verdict
    assert reason in verdict.reason


def batches(**series: Sequence[Any]) -> list[Observation]:
    """One look per batch, with a metric's values one after another."""
    count = max(map(len, series.values()))
    return [
        seen(batch_id=number, **{name: values[number] for name, values in series.items()})
        for number in range(count)
    ]


SERIES: dict[str, tuple[dict[str, Sequence[Any]], StreamHealth, str]] = {
    "backlog grows": ({"backlog_bytes": [100, 120, 150, 140, 160]}, Health.UNHEALTHY, "from 100 to 160 bytes"),
    "backlog of files grows from nothing": ({"backlog_files": [0, 1, 2, 3, 4]}, Health.UNHEALTHY, "to 4 files"),
    "backlog is worked off": ({"backlog_bytes": [900, 700, 500, 300, 100]}, Health.HEALTHY, ""),
    "backlog stays": ({"backlog_bytes": [900, 910, 905, 915, 920]}, Health.HEALTHY, ""),
    "backlog jumps once": ({"backlog_bytes": [0, 0, 0, 0, 500]}, Health.HEALTHY, ""),
    "backlog of too few batches": ({"backlog_bytes": [100, 200, 400, 800]}, Health.HEALTHY, ""),
    "rows arrive faster": (
        {"input_rows_per_second": [20.0] * 5, "processed_rows_per_second": [10.0] * 5}, Health.UNHEALTHY,
        "20.0 against 10.0",
    ),
    "rows are worked off in time": (
        {"input_rows_per_second": [10.0] * 5, "processed_rows_per_second": [90.0] * 5}, Health.HEALTHY, "",
    ),
    "one burst": (
        {"input_rows_per_second": [1.0, 1.0, 900.0, 1.0, 1.0], "processed_rows_per_second": [20.0] * 5},
        Health.HEALTHY, "",
    ),
    "batches longer than the trigger": ({"batch_seconds": [1.0, 11.0, 12.0, 13.0]}, Health.UNHEALTHY, "10 s"),
    "one long batch": ({"batch_seconds": [1.0, 1.0, 13.0, 1.0]}, Health.HEALTHY, ""),
    "state grows for ever": (
        {"state_rows": [100_000 + 10_000 * number for number in range(20)]}, Health.UNHEALTHY, "watermark",
    ),
    "state grows and is cleared": (
        {"state_rows": [100_000 + 10_000 * (number % 12) for number in range(20)]}, Health.HEALTHY, "",
    ),
    "a small state": ({"state_rows": [100 * number for number in range(1, 21)]}, Health.HEALTHY, ""),
    "a state that fills up": ({"state_rows": [100_000 + number for number in range(20)]}, Health.HEALTHY, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", SERIES.values(), ids=SERIES.keys())
def test_judge_over_batches(case: tuple[dict[str, Sequence[Any]], StreamHealth, str]) -> None:
    series, health, reason = case
    verdict = judge(batches(**series), TRIGGERED, NOW)
    assert verdict.health is health, verdict
    assert reason in verdict.reason


def test_looks_at_the_same_batch_count_once() -> None:
    looks = [look for look in batches(backlog_bytes=[100, 200, 400]) for _ in range(4)]
    assert judge(looks, TRIGGERED, NOW).health is Health.HEALTHY


def test_limits_can_be_changed() -> None:
    looks = batches(backlog_bytes=[100, 200, 400])
    assert judge(looks, TRIGGERED, NOW, HealthLimits(batches=3)).health is Health.UNHEALTHY


numbers = st.none() | st.floats(0, 1e9)
wholes = st.none() | st.integers(0, 10**9)
observations = st.builds(
    Observation,
    at=st.floats(0, 2 * NOW),
    started_at=numbers,
    active=st.sampled_from([None, True, False]),
    data_available=st.sampled_from([None, True, False]),
    trigger_active=st.sampled_from([None, True, False]),
    unanswered_since=numbers,
    batch_ended_at=numbers,
    listening=st.booleans(),
    metrics=st.builds(
        StreamMetrics, batch_id=wholes, input_rows_per_second=numbers, processed_rows_per_second=numbers,
        batch_seconds=numbers, backlog_bytes=wholes, backlog_files=wholes, state_rows=wholes,
        last_progress_at=numbers, last_event_at=numbers,
    ),
)  # fmt: skip


@given(
    history=st.lists(observations, min_size=1, max_size=12), config=st.sampled_from([CONFIG, TRIGGERED, SLOW])
)
def test_every_history_has_a_verdict_with_a_reason(
    history: list[Observation], config: StreamingQueryConfig
) -> None:
    verdict = judge(history, config, NOW)
    assert verdict.reason
    if (
        history[-1].data_available is False
        and not history[-1].listening
        and history[-1].unanswered_since is None
    ):
        assert verdict.health is not Health.STALLED, "what has nothing to read cannot stall"
