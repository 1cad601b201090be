"""The Pipes engine against a played job: what is told, lost, told twice or never, and what becomes of it in Dagster."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterEventType, DagsterExecutionInterruptedError, DagsterInstance, materialize
from manifests import entity, manifest, pipe

from kindling_dagster import (
    KindlingProject,
    KindlingResource,
    KindlingSubmitClient,
    PipesEngine,
    kindling_assets,
)
from kindling_dagster.manifest import Location
from kindling_dagster.signals.bridge import StepReporter

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Told:
    """What Dagster knows in the end."""

    success: bool
    materialized: Counter[str]
    error: str
    log: str


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    made = tmp_path / "lake"
    made.mkdir()
    return made


def play(lake: Path, *steps: list[str]) -> Told:
    """Materialize both assets while the job plays these steps."""
    located = tuple(entity(f"out.{name}", location=Location("path", str(lake / name))) for name in ("a", "b"))
    app = lake.parent / "manifest.json"
    manifest(pipe("a", "src.x", "out.a"), pipe("b", "out.a", "out.b"), entities=located).write(app)
    program = lake.parent / "spark-submit"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {TESTS / 'engines' / 'played_job.py'}\n")
    program.chmod(stat.S_IRWXU)
    paths = [str(TESTS), str(TESTS.parent)]
    played = {
        "PLAYED": json.dumps(steps),
        "LAKE": str(lake),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    client = KindlingSubmitClient(spark_submit=str(program), env=played)

    @kindling_assets(project=KindlingProject(manifest=app))
    def step(context, kindling: KindlingResource):  # type: ignore[no-untyped-def]
        yield from kindling.run(context).stream()

    with DagsterInstance.ephemeral() as instance:
        result = materialize(
            [step],
            resources={"kindling": KindlingResource(engine=PipesEngine(client=client))},
            instance=instance,
            raise_on_error=False,
        )
        events = result.get_asset_materialization_events()
        failed = [e for e in result.all_events if e.event_type == DagsterEventType.STEP_FAILURE]
        error = str(failed[0].event_specific_data.error) if failed else ""
        log = "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))
    told = Counter(event.asset_key.path[-1] for event in events if event.asset_key)
    return Told(result.success, told, error, log)


BOTH = Counter("ab")
TELL_A, TELL_B = ["tell", "a"], ["tell", "b"]


@pytest.mark.parametrize(
    ("steps", "success", "materialized", "error"),
    [
        pytest.param([TELL_A, TELL_B, ["end"]], True, BOTH, "", id="all told"),
        pytest.param([TELL_A, ["skip", "b"], ["end"]], True, Counter("a"), "", id="one skipped"),
        pytest.param([TELL_A, ["again"], TELL_B, ["again"], ["end"]], True, BOTH, "", id="told twice"),
        pytest.param(
            [TELL_A, ["commit", "b"], ["lose", "b"], ["end"]], True, BOTH, "", id="lost, and in the table"
        ),
        pytest.param(
            [TELL_A, ["lose", "b"], ["end"]],
            False,
            Counter("a"),
            "was not heard of in full",
            id="lost, and in no table",
        ),
        pytest.param(
            [TELL_A, ["commit", "b"], ["die"]],
            False,
            BOTH,
            "ended without a word",
            id="died after a commit",
        ),
        pytest.param([TELL_A, ["die"]], False, Counter("a"), "Not known to have: b", id="died before it"),
        pytest.param([["die"]], False, Counter(), "Not known to have: a, b", id="died at once"),
        pytest.param(
            [["refuse", "Another version is there."]], False, Counter(), "Another version is there.",
            id="refused",
        ),
    ],
)  # fmt: skip
def test_what_the_job_tells_is_told_once(
    lake: Path, steps: list[Any], success: bool, materialized: Counter[str], error: str
) -> None:
    told = play(lake, *steps)
    assert (told.success, told.materialized) == (success, materialized), told.error + told.log
    assert error in told.error
    assert success == (told.error == "")


def test_an_interrupt_while_an_event_is_told_ends_the_job_as_well(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Iterator[Any]:
        raise DagsterExecutionInterruptedError

    monkeypatch.setattr(StepReporter, "handle", interrupted)
    told = play(lake, TELL_A, ["wait"])
    assert "DagsterExecutionInterruptedError" in told.error
    assert (lake / "told").exists()


def test_terminate_tells_the_job_and_waits_for_it(lake: Path) -> None:
    def terminate() -> None:
        while not (lake / "waits").exists():
            time.sleep(0.02)
        # What Dagster does to the process of a run that is terminated.
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=terminate)
    thread.start()
    told = play(lake, ["wait"])
    thread.join()
    assert (told.success, told.materialized) == (False, Counter())
    assert "DagsterExecutionInterruptedError" in told.error
    assert (lake / "told").exists()
