from __future__ import annotations

import json

from kindling_dagster.dag.results import PipeResult, PipeStatus
from kindling_dagster.signals.step_record import StepRecord, iso


def result(pipe_id: str, start: float | None, end: float | None) -> PipeResult:
    status = PipeStatus.SUCCEEDED if end is not None else PipeStatus.NOT_STARTED
    return PipeResult(pipe_id, status, started_at=start, ended_at=end, attempts=1)


def test_the_drawing_is_by_start_and_bounded() -> None:
    many = [result(f"p{n}", 1_000.0 - n, 1_001.0) for n in range(150)]
    lines = StepRecord(many).to_text().splitlines()
    assert len(lines) == 102
    assert lines[1].split()[:4] == ["p149", "0", "succeeded", "+0.0"]
    assert lines[-1] == "… 50 more"
    assert max(line.count("█") for line in lines) == 40


def test_bars_stay_on_the_axis_whatever_the_times() -> None:
    instant, late = result("instant", 1_000.0, 1_000.0), result("late", 1_009.99, 1_010.0)
    whole = result("whole", 1_000.0, 1_010.0)
    lines = {line.split()[0]: line for line in StepRecord([late, whole, instant]).to_text().splitlines()}
    assert [lines[name].count("█") for name in ("instant", "whole", "late")] == [1, 40, 1]
    assert len({len(lines[name]) for name in ("whole", "late")}) == 1


def test_pipes_that_never_started_are_in_the_data_alone() -> None:
    record = StepRecord([result("never", None, None)], running=["slow"], facts={"strategy": "batch"})
    assert record.to_text() == ""
    data = json.loads(record.to_json())
    assert data["pipes"][0] | {"start": None, "end": None, "seconds": None} == data["pipes"][0]
    assert (data["running"], data["strategy"], sorted(data)) == (
        ["slow"],
        "batch",
        ["pipes", "running", "strategy"],
    )


def test_secrets_are_masked_and_the_line_stays_json() -> None:
    """A mask over the line as text takes what lies between two texts for a password: ``url":"x","to":"a@b``."""
    facts = {
        "source": {"url": "jdbc://me:hunter2", "to": "a@b", "said": 'password="hunter2"', "n": [1, None]}
    }
    data = json.loads(StepRecord([], facts=facts).to_json())
    assert data["source"] == {
        "url": "jdbc://me:hunter2",
        "to": "a@b",
        "said": 'password="***"',
        "n": [1, None],
    }
    [pipe] = json.loads(StepRecord([result("x://u:hunter2@h", 1.0, 2.0)]).to_json())["pipes"]
    assert pipe["pipe"] == "x://u:***@h"


def test_times_are_utc_to_the_millisecond() -> None:
    assert iso(0.0015) in ("1970-01-01T00:00:00.001+00:00", "1970-01-01T00:00:00.002+00:00")
    assert iso(None) is None
