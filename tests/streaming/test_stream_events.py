"""When the supervisor tells what of a stream, over time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dagster import AssetCheckEvaluation, AssetCheckSeverity, AssetKey, AssetMaterialization, AssetObservation

from kindling_dagster.stream_events import (
    ReportingPolicy,
    ReportRecord,
    health_reports,
    reports,
    stream_metadata,
)
from kindling_dagster.streaming.model import (
    Desired,
    HostInfo,
    StreamError,
    StreamHealth,
    StreamingQueryState,
    StreamMetrics,
    StreamStatus,
)
from kindling_dagster.streaming.views import StreamView

KEY = AssetKey(["silver", "live"])
POLICY = ReportingPolicy()
START = 10_000.0


class Story:
    """A stream over time, and what was told of it."""

    def __init__(self) -> None:
        self.now = START
        self.rows = 0
        self.batch = 0
        self.health = StreamHealth.HEALTHY
        self.state = StreamingQueryState.RUNNING
        self.error: StreamError | None = None
        self.record = ReportRecord()
        self.told: list[tuple[float, Any]] = []

    def view(self) -> StreamView:
        status = StreamStatus(
            "s",
            self.state,
            health=self.health,
            started_at=START,
            metrics=StreamMetrics(batch_id=self.batch, last_progress_at=self.now, last_event_at=self.now),
            rows_committed=self.rows,
            last_error=self.error,
            updated_at=self.now,
        )
        host = HostInfo("h", 1, run_id="r", state="running", started_at=START, expires_at=self.now + 20)
        return StreamView("s", Desired("s", True, at=START), status, None, host, self.now)

    def go_on(self, seconds: int, rows_per_tick: int = 0) -> list[Any]:
        """Ticks of 10 s; gives the events of this stretch."""
        told = []
        for _ in range(seconds // 10):
            self.now += 10
            if rows_per_tick:
                self.rows, self.batch = self.rows + rows_per_tick, self.batch + 1
            # As from the store: through JSON.
            record = ReportRecord.from_data(self.record.to_data())
            events, record = reports(KEY, self.view(), record, POLICY)
            checks, self.record = health_reports(KEY, [self.view()], record, POLICY)
            told += [*events, *checks]
        return told


def kinds(events: list[Any]) -> dict[type, int]:
    return {
        kind: sum(isinstance(event, kind) for event in events) for kind in {type(event) for event in events}
    }


def test_heartbeats_add_up_to_all_rows() -> None:
    story = Story()
    events = story.go_on(3600, rows_per_tick=7)
    beats = [event for event in events if isinstance(event, AssetMaterialization)]
    told = sum(beat.metadata["kindling/rows"].value for beat in beats)
    assert len(beats) == 60
    assert told == story.record.rows
    assert story.rows - told < 7 * 6
    assert len({beat.tags["dagster/data_version"] for beat in beats}) == len(beats)  # type: ignore[index]


def test_an_idle_stream_beats_rarely_and_is_not_observed_again() -> None:
    story = Story()
    story.go_on(60, rows_per_tick=1)
    events = story.go_on(3600)
    # One observation: of the last batch, which was too soon after the one before.
    assert kinds(events) == {AssetMaterialization: 12, AssetCheckEvaluation: 6, AssetObservation: 1}
    beats = [event for event in events if isinstance(event, AssetMaterialization)]
    assert [beat.metadata["kindling/rows"].value for beat in beats[1:]] == [0] * 11
    assert len({beat.tags["dagster/data_version"] for beat in beats}) == 1  # type: ignore[index]


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    story = Story()
    story.go_on(7200, rows_per_tick=1)
    story.now -= 3600
    busy = kinds(story.go_on(600, rows_per_tick=1))
    assert busy == {AssetMaterialization: 10, AssetObservation: 10, AssetCheckEvaluation: 1}
    story.now -= 1800
    assert kinds(story.go_on(600))[AssetMaterialization] == 2


def test_a_change_is_told_at_once() -> None:
    story = Story()
    story.go_on(600, rows_per_tick=1)
    story.state, story.error = StreamingQueryState.WAITING, StreamError("E", "boom", story.now)
    events = story.go_on(10)
    assert (kinds(events)[AssetObservation], kinds(events)[AssetCheckEvaluation]) == (1, 1)
    check = next(event for event in events if isinstance(event, AssetCheckEvaluation))
    assert (check.passed, check.severity) == (False, AssetCheckSeverity.WARN)
    assert "boom" in str(check.description)
    story.state = StreamingQueryState.RUNNING
    assert AssetCheckEvaluation in kinds(story.go_on(10))


def test_a_stream_that_is_down_has_no_heartbeat() -> None:
    story = Story()
    story.go_on(60, rows_per_tick=1)
    story.health = StreamHealth.STALLED
    story.go_on(60)
    assert AssetMaterialization not in kinds(story.go_on(3600))


def test_a_store_that_was_made_anew_counts_from_nothing() -> None:
    story = Story()
    story.go_on(600, rows_per_tick=100)
    story.rows = 30
    beats = [event for event in story.go_on(60) if isinstance(event, AssetMaterialization)]
    assert [beat.metadata["kindling/rows"].value for beat in beats] == [30]


def test_a_stream_that_nobody_asked_for_is_not_told_of() -> None:
    view = StreamView("s", now=START)
    assert reports(KEY, view, ReportRecord(), POLICY)[0] == []
    assert health_reports(KEY, [view], ReportRecord(), POLICY)[0] == []


def test_the_worst_of_an_assets_streams_decides() -> None:
    story = Story()
    good = story.view()
    bad = replace(good, stream_id="t", status=replace(good.status, health=StreamHealth.STALLED))  # type: ignore[type-var]
    [check], _ = health_reports(KEY, [good, bad], ReportRecord(), POLICY)
    assert isinstance(check, AssetCheckEvaluation)
    assert not check.passed
    assert str(check.description).startswith("t: ")


def test_what_nobody_has_reported_is_left_out() -> None:
    told = stream_metadata(Story().view())
    assert "kindling/backlog_bytes" not in told
    assert told["kindling/batch_id"] == 0
    assert set(stream_metadata(StreamView("s"))) == {"kindling/stream", "kindling/state", "kindling/wanted"}


def test_a_heartbeat_brings_the_check_along() -> None:
    """Dagster shows the check of the latest materialization, and an earlier one not at all."""
    good = Story().view()
    _, record = health_reports(KEY, [good], ReportRecord(), POLICY)
    assert health_reports(KEY, [good], record, POLICY)[0] == []
    assert len(health_reports(KEY, [good], record, POLICY, beat=True)[0]) == 1


def test_each_materialization_by_others_brings_the_check_once() -> None:
    good, record, told = Story().view(), ReportRecord(), []
    for materialization in (0, 0, 7, 7, 0, 7, 12, 12):
        record = ReportRecord.from_data(record.to_data())
        checks, record = health_reports(KEY, [good], record, POLICY, materialization=materialization)
        told.append(len(checks))
    assert told == [1, 0, 1, 0, 0, 0, 1, 0]
