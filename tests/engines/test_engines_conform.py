"""Whatever the engine, Dagster is told the same and the tables are the same: eight runs of one app on each.

``pipes`` starts a driver for each of its runs, so it is among the heavy ones (``-m faults``).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from cluster.standalone import running_cluster
from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    ReexecutionOptions,
    build_reconstructable_job,
    execute_job,
)
from deltalake import DeltaTable
from engines.engine_jobs import CONF, new_app
from engines.warm_folder import own_warm_folder
from materializations import comparable

from kindling_dagster.signals.reading import read_step_records
from kindling_dagster.spark import build_session

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]

LANDED = "id,item,amount\n1,pen,10\n2,ink,20\n3,pen,30\n4,cap,0\n"
CLEAN = [(1, "pen", 10), (2, "ink", 20), (3, "pen", 30)]
INCREMENTAL = {"mode": "incremental"}
TWO = ("silver/flaky", "silver/after_flaky")
THREE = (*TWO, "gold/totals")


@dataclass(frozen=True)
class Step:
    """One run of the story: what is asked, and what the app finds in data/fail."""

    name: str
    keys: Sequence[str]
    config: Mapping[str, Any] = field(default_factory=dict)
    fail: str = ""
    continues: str = ""
    terminated: bool = False


STORY = (
    Step("fresh", ("bronze/orders", "silver/orders", "silver/delta", *TWO), INCREMENTAL),
    Step(
        "nothing new",
        ("silver/delta", "silver/flaky", "gold/totals"),
        {**INCREMENTAL, "auto_cache": True},
    ),
    Step("failed", THREE, fail="column"),
    Step("from failure", THREE, continues="failed"),
    Step("failed fast", THREE, {"error_strategy": "fail_fast", "barrier": True}, fail="always"),
    Step("too slow", TWO, {"pipe_timeout": 5.0}, fail="job"),
    Step("terminated", TWO, fail="job", terminated=True),
    Step("tried again", TWO[:1], {"retries": 1, "backoff": 0.0}, fail="once"),
)


@dataclass
class Outcome:
    """What Dagster and the tables tell of one run."""

    success: bool
    materialized: list[tuple[str, dict[str, Any]]]
    failures: list[tuple[Any, ...]]
    observed: dict[str, list[list[str]]]
    ended: list[tuple[Any, ...]]
    signals: dict[str, int]
    cache: Any
    error: str
    calls: list[str]
    rows: dict[str, list[tuple[Any, ...]]]
    lineage: dict[str, set[tuple[str, str]]]


Story = dict[str, Outcome]


class Side:
    """One engine with an app and an instance of its own."""

    def __init__(self, folder: Path, engine: str, master: str = "local[2]") -> None:
        self.app = new_app(folder / "app", LANDED)
        self._arguments = (str(self.app), engine, master)
        (folder / "dagster").mkdir()
        self._instance = DagsterInstance.local_temp(str(folder / "dagster"))
        self._names: dict[str, str] = {}

    def tell(self, story: Sequence[Step]) -> Story:
        with self._instance:
            return {step.name: self._run(step) for step in story}

    def _run(self, step: Step) -> Outcome:
        data = self.app / "data"
        (data / "fail").unlink(missing_ok=True)
        (data / "calls.txt").write_text("")
        if step.fail:
            (data / "fail").write_text(step.fail)
        more: dict[str, Any] = {
            "asset_selection": [AssetKey(key.split("/")) for key in step.keys],
            "run_config": {"ops": {"step": {"config": dict(step.config)}}},
        }
        if step.continues:
            parent = next(run_id for run_id, name in self._names.items() if name == step.continues)
            more = {
                "reexecution_options": ReexecutionOptions.from_failure(parent, self._instance),
                "tags": {"dagster/is_resume_retry": "true"},  # as the UI and the daemon set it
            }
        job = build_reconstructable_job("engines.engine_jobs", "shop", self._arguments)
        terminating = threading.Thread(target=self._terminate) if step.terminated else None
        if terminating is not None:
            terminating.start()
        with execute_job(job, self._instance, raise_on_error=False, **more) as result:
            run_id, success = result.run_id, result.success
        if terminating is not None:
            terminating.join()
        self._names[run_id] = step.name
        return self._outcome(run_id, success)

    def _terminate(self) -> None:
        """What Dagster does to the process of a run that is terminated, once the pipe is on its way."""
        while "flaky" not in (self.app / "data" / "calls.txt").read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    def _outcome(self, run_id: str, success: bool) -> Outcome:
        def of(kind: DagsterEventType) -> list[Any]:
            found = self._instance.get_records_for_run(run_id, of_type=kind, ascending=True).records
            return [record.event_log_entry.get_dagster_event() for record in found]

        failed = [event.step_failure_data for event in of(DagsterEventType.STEP_FAILURE)]
        told = [failure.user_failure_data for failure in failed if failure.user_failure_data]
        (record,) = read_step_records(self._instance, run_id)
        rows, lineage = self._tables()
        observed: dict[str, list[list[str]]] = {}
        for event in of(DagsterEventType.ASSET_OBSERVATION):
            key = "/".join(event.asset_key.path)
            observed.setdefault(key, []).append(
                sorted(event.asset_observation_data.asset_observation.metadata)
            )
        return Outcome(
            success=success,
            materialized=[
                (
                    "/".join(event.asset_key.path),
                    comparable({name: entry.value for name, entry in event.materialization.metadata.items()}),
                )
                for event in of(DagsterEventType.ASSET_MATERIALIZATION)
            ],
            failures=[
                failure
                for each in told
                for failure in map(self._failure, each.metadata["kindling/failures"].value)
            ],
            observed=observed,
            ended=[
                (pipe["pipe"], pipe["generation"], pipe["status"], pipe["attempts"])
                for pipe in record["pipes"]
            ],
            signals=record["signals"],
            cache=record.get("cache"),
            error=failed[0].error.cls_name if failed else "",
            calls=(self.app / "data" / "calls.txt").read_text().split(),
            rows=rows,
            lineage=lineage,
        )

    def _failure(self, item: Mapping[str, Any]) -> tuple[Any, ...]:
        error = item.get("error") or {}
        message = str(error.get("message", "")).replace(str(self.app), "")
        return item["pipe"], item["status"], error.get("type"), message, error.get("suggestion")

    def _tables(self) -> tuple[dict[str, list[tuple[Any, ...]]], dict[str, set[tuple[str, str]]]]:
        """Rows without their lineage, and by which pipe and run of the story they were written."""
        lake = self.app / "data" / "lake"
        rows: dict[str, list[tuple[Any, ...]]] = {}
        lineage: dict[str, set[tuple[str, str]]] = {}
        for log in sorted(lake.rglob("_delta_log")):
            name = "/".join(log.parent.relative_to(lake).parts)
            if name.startswith("system/"):
                # Kindling's own: watermarks, with the time at which they were saved.
                continue
            held = DeltaTable(log.parent).to_pyarrow_table().to_pylist()
            rows[name] = sorted(
                tuple(value for column, value in row.items() if not column.endswith("_lineage"))
                for row in held
            )
            lineage[name] = {
                (value["pipe"], self._names[value["run_id"]])
                for row in held
                for column, value in row.items()
                # The column of a layer that did not write the row is empty.
                if column.endswith("_lineage") and value is not None
            }
        return rows, lineage


@pytest.fixture(scope="module", autouse=True)
def surroundings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, own_warm_folder() as folder:
        # Kindling starts no app of which a secret is missing.
        patch.setenv("SHOP_SECRET_PATH", str(folder / "hidden"))
        yield


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory, surroundings: None) -> Story:
    """The story as it is without an engine of its own; in one session, which the runs find."""
    # Not on the main thread, where pyspark would take over SIGINT.
    with ThreadPoolExecutor(1) as pool:
        session = pool.submit(build_session, CONF).result()
        try:
            return Side(tmp_path_factory.mktemp("in_process"), "in_process").tell(STORY)
        finally:
            pool.submit(session.stop).result()


@pytest.fixture(
    scope="module", params=["in_process", "warm", pytest.param("pipes", marks=pytest.mark.faults)]
)
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, in_process: Story
) -> Story:
    """The story by one engine."""
    if request.param == "in_process":
        return in_process
    return Side(tmp_path_factory.mktemp(request.param), request.param).tell(STORY)


@pytest.mark.parametrize("name", [step.name for step in STORY])
def test_dagster_and_the_tables_tell_the_same(story: Story, in_process: Story, name: str) -> None:
    """Events and their order, metadata, failures, signals, rows, lineage."""
    told, wanted = story[name], in_process[name]
    if name == "terminated":
        # What is on its way from another process when the signal comes may not be told any more.
        assert set(told.signals) ^ set(wanted.signals) <= {"entity.after_read", "read.after_read"}
        told = replace(told, signals=wanted.signals)
    assert told == wanted


def ended(outcome: Outcome) -> dict[str, str]:
    return {pipe: status for pipe, _, status, _ in outcome.ended}


def keys(outcome: Outcome) -> list[str]:
    return [key for key, _ in outcome.materialized]


def test_everything_is_told_as_it_commits(story: Story) -> None:
    fresh = story["fresh"]
    assert (fresh.success, fresh.error) == (True, "")
    assert fresh.calls[:2] == ["land", "clean"]
    assert set(fresh.calls) == {"land", "clean", "follow", "flaky", "after_flaky"}
    # A pipe's asset comes before those that depend on it.
    for before, after in (("bronze/orders", "silver/orders"), TWO):
        assert keys(fresh).index(before) < keys(fresh).index(after)
    metadata = dict(fresh.materialized)["silver/orders"]
    assert metadata["dagster/row_count"] == 3
    assert metadata["kindling/pipes"] == ["clean"]
    assert set(metadata["dagster/column_lineage"].deps_by_column) >= {"id", "item", "amount"}
    assert fresh.rows["silver/orders"] == fresh.rows["silver/after_flaky"] == CLEAN
    assert fresh.lineage["silver/orders"] == {("land", "fresh"), ("clean", "fresh")}
    assert fresh.signals["persist.after_persist"] == 5


def test_what_has_no_new_data_is_skipped_and_what_is_shared_is_cached(story: Story) -> None:
    again = story["nothing new"]
    assert again.success
    assert ended(again) == {"follow": "skipped", "flaky": "succeeded", "totals": "succeeded"}
    assert "silver/delta" not in keys(again)
    # The pipe selects its columns, and so does not carry the lineage of what it read.
    assert again.lineage["silver/delta"] == {("follow", "fresh")}
    assert again.cache == {"silver.orders": {"hits": 1, "misses": 1}}
    assert again.rows["gold/totals"] == [("ink", 20), ("pen", 40)]


def test_a_failure_takes_its_dependents_and_no_other(story: Story) -> None:
    failed = story["failed"]
    assert not failed.success
    assert ended(failed) == {"flaky": "failed", "after_flaky": "upstream_failed", "totals": "succeeded"}
    (told,) = [failure for failure in failed.failures if failure[0] == "flaky"]
    assert told[2] == "AnalysisException"
    assert "no_such_column" in told[3]
    assert told[4], "nothing is suggested"
    assert keys(failed) == ["gold/totals"]


def test_from_failure_runs_the_rest(story: Story) -> None:
    again = story["from failure"]
    assert again.success
    assert again.calls == ["flaky", "after_flaky"]
    assert keys(again) == list(TWO)


def test_failing_fast_starts_nothing_more(story: Story) -> None:
    fast = story["failed fast"]
    assert not fast.success
    assert ended(fast) == {"flaky": "failed", "after_flaky": "upstream_failed", "totals": "not_started"}
    assert (fast.calls, keys(fast)) == (["flaky"], [])


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("too slow", "timed_out", "Failure"),
        ("terminated", "cancelled", "DagsterExecutionInterruptedError"),
    ],
)
def test_what_is_ended_commits_nothing(story: Story, name: str, status: str, error: str) -> None:
    cut = story[name]
    assert not cut.success
    assert (cut.calls, keys(cut)) == (["flaky"], [])
    assert cut.error == error
    assert status == "cancelled" or ended(cut) == {"flaky": status, "after_flaky": "upstream_failed"}
    assert cut.lineage["silver/flaky"] == story["from failure"].lineage["silver/flaky"]
    after = story["tried again"]
    assert (after.success, after.calls) == (True, ["flaky", "flaky"])
    assert dict(after.materialized)["silver/flaky"]["kindling/attempts"] == 2


@pytest.mark.faults
def test_a_driver_with_a_standalone_cluster_tells_the_same(
    in_process: Story, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two workers, in processes of their own; spark-submit in client mode, the only one Python has there."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        told = Side(tmp_path_factory.mktemp("on_cluster"), "pipes", cluster.url).tell(STORY[:1])
    assert told["fresh"] == in_process["fresh"]
