from __future__ import annotations

import json
from typing import Any

from bridge_steps import ASSETS, LIVE, NAMES, done, failed, run_step, seen
from dagster import AssetCheckKey, DagsterInstance

from kindling_dagster.dag.results import PipeStatus
from kindling_dagster.engines.base import PipeStarted
from kindling_dagster.signals.bridge import StepReporter
from kindling_dagster.signals.failure_report import COLUMNS
from kindling_dagster.signals.reading import read_step_records


def test_checks_are_stored_though_nobody_declared_them() -> None:
    stalled = seen("streaming.query_stalled", query_id="follow", reason="no batch for 90 s")
    step = run_step([stalled], instance=DagsterInstance.ephemeral())
    history = step.instance.event_log_storage.get_asset_check_execution_history(
        AssetCheckKey(LIVE, "stream_health"), limit=5
    )
    assert [record.status.value for record in history] == ["FAILED"]
    assert step.success, "the step's own success is another matter"


def test_the_record_is_text_and_json() -> None:
    step = run_step(
        [
            seen("orchestrator.plan_generated", strategy="batch", pipe_ids=["clean"]),
            done("clean", started_at=1_000.0, ended_at=1_004.0),
            done("fix", started_at=1_002.0, ended_at=1_008.0, generation=1, attempts=3),
            seen(
                "orchestrator.execution_completed", cache_metrics={"bronze.orders": {"hits": 2, "misses": 1}}
            ),
        ]
    )
    (record,) = read_step_records(step.instance, step.run_id)
    assert [(pipe["pipe"], pipe["seconds"], pipe["attempts"]) for pipe in record["pipes"]] == [
        ("clean", 4.0, 1),
        ("fix", 6.0, 3),
    ]
    assert record["cache"] == {"bronze.orders": {"hits": 2, "misses": 1}}
    assert record["strategy"] == "batch"
    assert "running" not in record
    assert step.logs[-1].splitlines()[1:4] == [
        "pipe   gen  status     start  seconds  tries",
        "clean  0    succeeded  +0.0   4.0      1      ████████████████████",
        "fix    1    succeeded  +2.0   6.0      3                ██████████████████████████████",
    ]


def test_a_step_that_is_stopped_leaves_its_record() -> None:
    class Context:
        lines: list[str] = []  # noqa: RUF012

        @property
        def log(self) -> Any:
            return self

        def info(self, line: str, extra: Any = None) -> None:
            self.lines.append(line)

    reporter = StepReporter(Context(), ASSETS, NAMES)  # type: ignore[arg-type]
    reporter.interrupt()
    assert Context.lines == []
    for event in (PipeStarted("clean", 1, 0.0), done("clean"), PipeStarted("fix", 1, 0.0)):
        assert list(reporter.handle(event)) == []
    reporter.interrupt()
    title, *_, data = Context.lines[-1].splitlines()
    assert title == "Step stopped."
    assert json.loads(data)["running"] == ["fix"]


def test_the_failure_has_one_table_and_the_errors_by_signal() -> None:
    step = run_step(
        [
            seen("entity.merge_failed", entity_id="gold.daily", error="no column x\nmore", error_type="A"),
            seen("datapipes.pipe_failed", pipe_id="daily", error="no column x", error_type="A"),
            seen("orchestrator.pipe_failed", pipe_id="daily", error="no column x", error_type="A"),
            failed("daily"),
            done("fix", PipeStatus.UPSTREAM_FAILED, reason="daily did not succeed", started_at=None, ended_at=None),
            seen("watermark.save_failed", source_entity_id="bronze.orders", reader_id="clean", error="disk full", error_type="OSError"),
            done("clean"),
            seen("orchestrator.execution_failed", error="1 of 3 pipes failed", error_type="A"),
        ]
    )  # fmt: skip
    assert not step.success
    (line,) = step.of("failure")
    assert line.text.splitlines() == [
        "2 of 3 pipes did not succeed.",
        "  daily: failed, AnalysisException: no column x (app/pipes.py:3)",
        "    → Add it.",
        "  fix: upstream failed, daily did not succeed",
        "  clean: told by watermark.save_failed, OSError: disk full",
    ]
    rows = [dict(record.data) for record in line.metadata["pipes"].records]
    assert [tuple(row[name] for name in COLUMNS) for row in rows] == [
        ("daily", "failed", "AnalysisException", "no column x", "app/pipes.py:3", "Add it."),
        ("fix", "upstream failed", "", "daily did not succeed", "", ""),
        ("clean", "told by watermark.save_failed", "OSError", "disk full", "", ""),
    ]
    assert line.metadata["errors by signal"] == {
        "datapipes.pipe_failed": 1,
        "entity.merge_failed": 1,
        "orchestrator.execution_failed": 1,
        "orchestrator.pipe_failed": 1,
        "watermark.save_failed": 1,
    }
    assert [failure["pipe"] for failure in line.metadata["kindling/failures"]] == ["daily", "fix"]
    assert line.metadata["kindling/step"]["errors"] == line.metadata["errors by signal"]
    assert "the stack" in line.metadata["tracebacks"]


def test_errors_that_were_overcome_are_a_warning() -> None:
    step = run_step(
        [
            seen("datapipes.pipe_failed", pipe_id="daily", error="lost executor", error_type="E"),
            done("daily", attempts=2),
        ]
    )
    assert step.success
    assert step.logs[-1].startswith("Errors on the way, all overcome:\n")
    assert "lost executor" in step.logs[-1]
