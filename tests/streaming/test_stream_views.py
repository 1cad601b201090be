"""What a person is told of a stream: a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kindling_dagster.streaming.model import (
    DeadLetter,
    Desired,
    HostInfo,
    StreamError,
    StreamHealth,
    StreamingQueryState,
    StreamMetrics,
    StreamStatus,
)
from kindling_dagster.streaming.views import Snapshot, StreamView

NOW = 1_000.0
HOST = HostInfo("h", 1, state="running", started_at=500, heartbeat_at=999, expires_at=1_020)
GONE = replace(HOST, heartbeat_at=990, expires_at=995)
LONG_GONE = replace(HOST, heartbeat_at=600, expires_at=630)
WANTED = Desired("s", True, generation=2, at=700)
UNWANTED = replace(WANTED, running=False)
ERROR = StreamError("SparkException", "boom", 900, suggestion="Mend it.")
LETTER = DeadLetter("s", 900, 5, (ERROR,), "Mend the row.")
UP = StreamStatus(
    "s",
    StreamingQueryState.RUNNING,
    health=StreamHealth.HEALTHY,
    generation=2,
    started_at=800,
    metrics=StreamMetrics(batch_id=3, last_progress_at=990, last_event_at=995),
    updated_at=998,
)


def view(desired: Desired | None = WANTED, status: StreamStatus | None = UP, **more: Any) -> StreamView:
    return StreamView("s", desired, status, **{"host": HOST, "now": NOW, **more})


@pytest.mark.parametrize(
    ("seen", "state", "progressed", "ok", "severity"),
    [
        pytest.param(view(), "running", True, True, "", id="all is well"),
        pytest.param(view(None, None, host=None), "not started", False, True, "", id="never asked for"),
        pytest.param(
            view(WANTED, None, host=None, now=710), "no host", False, True, "", id="asked for just now"
        ),
        pytest.param(view(WANTED, None, host=None), "no host", False, False, "error", id="no host for long"),
        pytest.param(view(host=GONE), "no host", False, True, "", id="the host has just died"),
        pytest.param(view(host=LONG_GONE), "no host", False, False, "error", id="the host died long ago"),
        pytest.param(view(UNWANTED, host=LONG_GONE), "stopped", False, True, "", id="not wanted, no host"),
        pytest.param(
            view(UNWANTED, status=replace(UP, token=7)),
            "stopped",
            False,
            True,
            "",
            id="the last host's, not wanted any more",
        ),
        pytest.param(view(WANTED, None), "starting", False, True, "", id="a host, no word yet"),
        pytest.param(
            view(status=replace(UP, generation=1)), "running", False, True, "", id="to be restarted"
        ),
        pytest.param(
            view(status=replace(UP, updated_at=400)), "starting", False, True, "", id="the last host's word"
        ),
        pytest.param(
            view(status=replace(UP, token=7)),
            "starting",
            False,
            True,
            "",
            id="the last host's, while this one waited",
        ),
        pytest.param(
            view(status=replace(UP, token=1, updated_at=400)),
            "running",
            True,
            True,
            "",
            id="the clock was set back",
        ),
        pytest.param(
            view(status=replace(UP, health=StreamHealth.IDLE)),
            "running",
            True,
            True,
            "",
            id="nothing to read",
        ),
        pytest.param(
            view(
                status=replace(
                    UP,
                    health=StreamHealth.IDLE,
                    metrics=StreamMetrics(input_rows_per_second=0.0, last_event_at=995),
                )
            ),
            "running",
            True,
            True,
            "",
            id="idle since its start",
        ),
        pytest.param(
            view(status=replace(UP, health=StreamHealth.IDLE, metrics=StreamMetrics(last_event_at=801))),
            "running",
            False,
            True,
            "",
            id="started, no batch yet",
        ),
        pytest.param(
            view(status=replace(UP, health=StreamHealth.STALLED)),
            "running",
            True,
            False,
            "error",
            id="stalled",
        ),
        pytest.param(
            view(status=replace(UP, health=StreamHealth.UNHEALTHY)),
            "running",
            True,
            False,
            "warning",
            id="unhealthy",
        ),
        pytest.param(
            view(status=replace(UP, state=StreamingQueryState.WAITING, last_error=ERROR)),
            "waiting",
            False,
            False,
            "warning",
            id="brought back by itself",
        ),
        pytest.param(
            view(status=replace(UP, state=StreamingQueryState.FAILED, last_error=ERROR)),
            "failed",
            False,
            False,
            "error",
            id="left to people",
        ),
        pytest.param(view(dead_letter=LETTER), "dead_letter", True, False, "error", id="a dead letter"),
        pytest.param(
            view(status=replace(UP, state=StreamingQueryState.STOPPED)),
            "stopped",
            True,
            True,
            "",
            id="has read all",
        ),
        pytest.param(
            view(replace(WANTED, at=999), replace(UP, state=StreamingQueryState.STOPPED)),
            "stopped",
            False,
            True,
            "",
            id="stopped before it was asked for",
        ),
    ],
)
def test_what_is_said(seen: StreamView, state: str, progressed: bool, ok: bool, severity: str) -> None:
    assert (seen.state, seen.progressed, seen.verdict.ok) == (state, progressed, ok)
    if not ok:
        assert seen.verdict.severity == severity
    assert seen.verdict.reason


def test_a_dead_letter_says_its_error_and_what_to_do() -> None:
    verdict = view(dead_letter=LETTER).verdict
    assert "after 5 failures: SparkException: boom" in verdict.reason
    assert verdict.suggestion == "Mend the row. Then revive it."


def test_a_dead_letter_keeps_no_host_up() -> None:
    desired = {name: replace(WANTED, stream_id=name) for name in ("a", "b")} | {
        "c": replace(UNWANTED, stream_id="c")
    }
    snapshot = Snapshot(("a", "b", "c", "d"), desired, {}, {"b": replace(LETTER, stream_id="b")}, HOST, NOW)
    assert snapshot.wanted == ("a",)
    assert [item.stream_id for item in snapshot.views] == ["a", "b", "c", "d"]
