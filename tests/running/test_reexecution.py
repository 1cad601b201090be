"""One of ten pipes failed: what is run again, and what each asset and the step tell of it.

Dagster, the step, the plan and its execution are real; pipes are played, so that no Spark starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    Definitions,
    JobDefinition,
    ReexecutionOptions,
    RetryPolicy,
    build_reconstructable_job,
    define_asset_job,
    execute_job,
    in_process_executor,
)
from kindling.signaling import BlinkerSignalProvider
from manifests import entity, manifest, pipe

from kindling_dagster import KindlingProject, KindlingResource, kindling_assets
from kindling_dagster.dag.orchestrator import ExecutionOrchestrator
from kindling_dagster.dag.results import PipeOutcome
from kindling_dagster.engines.base import RunEvent, RunRequest
from kindling_dagster.engines.listening import SignalListener
from kindling_dagster.manifest import Location, Manifest
from kindling_dagster.signals.reading import read_step_records

READS = {
    "p0": "src.numbers",
    "p1": "src.numbers",
    "p2": "src.numbers",
    "p3": "src.numbers",
    "p4": "out.p0",
    "p5": "out.p1",
    "p6": "out.p2 out.p5",
    "p7": "out.p6",
    "p8": "out.p4",
    "p9": "out.p3 out.p4",
}
"""Ten pipes, each writing ``out.<its name>``. ``p5`` is the one that fails; ``p6`` and ``p7`` depend on it."""

TEN = manifest(*(pipe(pipe_id, inputs, f"out.{pipe_id}") for pipe_id, inputs in READS.items()))


class PlayedEngine:
    """Runs plans as the real engine does; a pipe notes its name in ``calls.txt``, and ``p5`` fails once."""

    def __init__(self, app: Path) -> None:
        self._app = app

    def run(self, request: RunRequest) -> Iterator[RunEvent]:
        events: list[RunEvent] = []
        provider = BlinkerSignalProvider()
        listener = SignalListener(events.append)
        listener.connect(provider)
        ExecutionOrchestrator(
            Manifest.read(self._app / "manifest.json"),
            self._run_pipe,
            signals=provider,
            options=request.options,
            on_event=events.append,
            run_id=request.run_id,
        ).execute(request.pipe_ids)
        listener.close()
        yield from events

    def _run_pipe(self, pipe_id: str) -> PipeOutcome:
        with (self._app / "calls.txt").open("a") as calls:
            calls.write(f"{pipe_id} ")
        broken = self._app / "broken"
        if pipe_id == "p5" and broken.exists():
            broken.unlink()
            raise ValueError("p5 is broken")
        return PipeOutcome(metadata={"rows": 1})

    def close(self) -> None:
        pass


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    TEN.write(folder / "manifest.json")
    (folder / "broken").touch()
    return folder


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def ten_pipes(app: str, retries: int) -> JobDefinition:
    """The job that a run makes anew from its name and arguments."""

    class Resource(KindlingResource):
        def engine_for(self, project: KindlingProject, context: Any) -> Any:
            return PlayedEngine(Path(app))

    policy = RetryPolicy(max_retries=retries) if retries else None

    @kindling_assets(project=KindlingProject(manifest=Path(app) / "manifest.json"), retry_policy=policy)
    def ten(context, kindling: KindlingResource):  # type: ignore[no-untyped-def]
        yield from kindling.run(context).stream()

    defs = Definitions(
        assets=[ten],
        jobs=[define_asset_job("ten_pipes")],
        resources={"kindling": Resource()},
        executor=in_process_executor,
    )
    return defs.resolve_job_def("ten_pipes")


def run(app: Path, instance: DagsterInstance, retries: int = 0, **again: Any) -> str:
    """Run the job; gives the run's id."""
    job = build_reconstructable_job("test_reexecution", "ten_pipes", (str(app), retries))
    with execute_job(job, instance, raise_on_error=False, **again) as result:
        return str(result.run_id)


def calls(app: Path) -> list[str]:
    """Which pipes were called since the last look, in order."""
    file = app / "calls.txt"
    made = file.read_text().split()
    file.unlink()
    return made


def status(instance: DagsterInstance, run_id: str) -> DagsterRunStatus:
    found = instance.get_run_by_id(run_id)
    assert found is not None
    return found.status


def materialized(instance: DagsterInstance, run_id: str) -> set[str]:
    records = instance.get_records_for_run(run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION).records
    return {record.asset_key.path[-1] for record in records if record.asset_key}


def test_from_failure_runs_the_failed_pipe_and_its_dependents(app: Path, instance: DagsterInstance) -> None:
    failed = run(app, instance)
    assert status(instance, failed) is DagsterRunStatus.FAILURE
    fine = set(READS) - {"p5", "p6", "p7"}
    assert set(calls(app)) == fine | {"p5"}
    assert materialized(instance, failed) == fine
    the_failure_shows_per_asset(instance, failed)
    the_record_reads_as_a_gantt_chart(instance, failed)

    again = run(
        app,
        instance,
        reexecution_options=ReexecutionOptions.from_failure(failed, instance),
        tags={"dagster/is_resume_retry": "true"},  # as the UI and the daemon set it
    )
    assert status(instance, again) is DagsterRunStatus.SUCCESS
    assert calls(app) == ["p5", "p6", "p7"]
    assert materialized(instance, again) == {"p5", "p6", "p7"}


def the_failure_shows_per_asset(instance: DagsterInstance, run_id: str) -> None:
    (event,) = instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE).records
    told = event.event_log_entry.get_dagster_event().step_failure_data.user_failure_data.metadata
    failures = {item["pipe"]: item for item in told["kindling/failures"].value}
    assert {pipe_id: item["status"] for pipe_id, item in failures.items()} == {
        "p5": "failed",
        "p6": "upstream_failed",
        "p7": "upstream_failed",
    }
    observed = instance.fetch_observations(AssetKey(["out", "p5"]), limit=5).records
    texts = [str(record.asset_observation) for record in observed if record.asset_observation]
    assert any("p5 is broken" in text for text in texts), texts
    assert instance.fetch_observations(AssetKey(["out", "p8"]), limit=5).records == []


def the_record_reads_as_a_gantt_chart(instance: DagsterInstance, run_id: str) -> None:
    (record,) = read_step_records(instance, run_id)
    rows = {row["pipe"]: row for row in record["pipes"]}
    assert set(rows) == set(READS)
    assert {pipe_id: row["generation"] for pipe_id, row in rows.items()} == {
        **dict.fromkeys(("p0", "p1", "p2", "p3"), 0),
        **dict.fromkeys(("p4", "p5"), 1),
        **dict.fromkeys(("p6", "p8", "p9"), 2),
        "p7": 3,
    }
    assert (rows["p5"]["status"], rows["p6"]["status"], rows["p6"]["start"]) == (
        "failed",
        "upstream_failed",
        None,
    )
    for pipe_id, row in rows.items():
        if row["start"] is None:
            continue
        start, end = (datetime.fromisoformat(row[name]) for name in ("start", "end"))
        assert (end - start).total_seconds() == pytest.approx(row["seconds"], abs=0.01)
        for source in READS[pipe_id].split():
            before = rows.get(source.removeprefix("out."))
            assert before is None or datetime.fromisoformat(before["end"]) <= start


@pytest.mark.parametrize("retries", [0, 1])
def test_what_lived_in_memory_is_made_again_and_options_may_name_what_has_committed(
    app: Path, instance: DagsterInstance, retries: int
) -> None:
    in_memory = entity("out.p1", provider="memory", location=Location("memory"))
    others = (item for item in TEN.entities if item.id != "out.p1")
    replace(TEN, entities=(in_memory, *others)).write(app / "manifest.json")
    config = {"ops": {"ten": {"config": {"full_refresh_pipes": ["p0", "p5"]}}}}
    last = run(app, instance, retries, run_config=config)
    if not retries:
        assert set(calls(app)) == set(READS) - {"p6", "p7"}
        last = run(
            app,
            instance,
            reexecution_options=ReexecutionOptions.from_failure(last, instance),
            tags={"dagster/is_resume_retry": "true"},
        )
    assert status(instance, last) is DagsterRunStatus.SUCCESS
    assert calls(app)[-4:] == ["p1", "p5", "p6", "p7"]


def test_a_retry_policy_runs_the_failed_pipe_and_its_dependents(app: Path, instance: DagsterInstance) -> None:
    retried = run(app, instance, retries=1)
    assert status(instance, retried) is DagsterRunStatus.SUCCESS
    made = calls(app)
    assert Counter(made) == Counter([*READS, "p5"])
    assert made[-3:] == ["p5", "p6", "p7"]
    assert materialized(instance, retried) == set(READS)
