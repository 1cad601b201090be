"""Requests and events survive their way through JSON; what is none is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_dagster.dag.results import PipeError, PipeResult, PipeStatus
from kindling_dagster.engines.base import (
    LogLine,
    PipeFinished,
    PipeOptions,
    PipeRetrying,
    PipeStarted,
    RunEvent,
    RunOptions,
    RunRequest,
    SignalSeen,
)
from kindling_dagster.engines.wire import (
    error_from_json,
    error_to_json,
    event_from_json,
    event_to_json,
    request_from_json,
    request_to_json,
)
from kindling_dagster.errors import CycleError, PlanError, RunError, SparkSetupError

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.text(max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
objects = st.dictionaries(names, plain, max_size=3)
errors = st.builds(PipeError, *[names] * 6)
results = st.builds(
    PipeResult,
    pipe_id=names,
    status=st.sampled_from(PipeStatus),
    generation=st.integers(0, 9),
    started_at=st.none() | numbers,
    ended_at=st.none() | numbers,
    attempts=st.integers(0, 9),
    error=st.none() | errors,
    cause=names,
    reason=names,
    metadata=objects,
)
events = st.one_of(
    st.builds(PipeStarted, names, st.integers(1, 9), numbers),
    st.builds(PipeFinished, results),
    st.builds(SignalSeen, names, objects),
    st.builds(LogLine, names, names),
    st.builds(
        PipeRetrying, names, names, names, st.integers(1, 9), st.integers(1, 9), numbers, st.none() | errors
    ),
)
requests = st.builds(
    RunRequest,
    run_id=names,
    pipe_ids=st.lists(names, max_size=3).map(tuple),
    options=st.builds(
        RunOptions,
        max_workers=st.integers(1, 9),
        cache_max_bytes=st.none() | st.integers(1, 9),
        entity_tags=st.dictionaries(names, st.dictionaries(names, names, max_size=2), max_size=2),
        pipes=st.dictionaries(
            names, st.builds(PipeOptions, st.booleans(), st.none() | numbers, st.integers(1, 9)), max_size=2
        ),
    ),
    durations=st.dictionaries(names, numbers, max_size=2),
    signals=st.lists(names, max_size=2).map(tuple),
)


def through_text(data: Any) -> Any:
    return json.loads(json.dumps(data))


@given(events)
def test_events_round_trip(event: RunEvent) -> None:
    again = event_from_json(through_text(event_to_json(event)))
    assert again == event
    assert type(again) is type(event)


@given(requests)
def test_requests_round_trip(request: RunRequest) -> None:
    assert request_from_json(through_text(request_to_json(request))) == request


def test_what_a_newer_version_adds_is_passed_over() -> None:
    data = {**event_to_json(LogLine("info", "hello")), "colour": "red"}
    assert event_from_json(data) == LogLine("info", "hello")


@pytest.mark.parametrize(
    "data", [{}, {"kind": "song"}, {"kind": "pipe_finished"}, {"kind": "pipe_started", "attempt": "x"}]
)
def test_what_is_no_event_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="same version"):
        event_from_json(data)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PlanError("no such pipe", "Name another."), PlanError),
        (CycleError("a → b → a", [["a", "b"]], "Cut it."), CycleError),
        (SparkSetupError("no Java"), SparkSetupError),
        (ValueError("odd"), RunError),
    ],
)
def test_errors_keep_their_words_and_their_class_where_it_is_ours(error: Exception, kind: type) -> None:
    again = error_from_json(through_text(error_to_json(error)))
    assert type(again) is kind
    assert again.suggestion == getattr(error, "suggestion", "")
    assert str(again).endswith(str(error))
