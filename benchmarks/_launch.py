"""One Dagster run in a process of its own, as a run launcher starts it, and what took how long.

The process is ``python -m benchmarks._launch MODULE JOB``: ``JOB`` is a function of ``benchmarks.MODULE`` that gives
the job. Dagster's home is in DAGSTER_HOME, the job's own settings are in variables that the module names.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster import DagsterEventType, DagsterInstance, execute_job, reconstructable

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Run:
    """One run, in seconds from its launch.

    Args:
        whole: Until its process had ended.
        first: Until the first table was there.
        further: What each table after the first took.
        work: What the pipes say that they took, in all; does not count from the launch.
    """

    whole: float
    first: float
    further: float
    work: float


def launch(module: str, job: str, settings: Mapping[str, str], home: Path, tables: int) -> Run:
    """Run a job and wait for its process to end.

    Args:
        module: Which of the benchmarks' modules has the job.
        job: The function that gives it.
        settings: Environment variables that it reads.
        home: Dagster's home, made where it is missing.
        tables: How many assets must be materialized, two at least.

    Raises:
        RuntimeError: The process failed.
        AssertionError: The run failed, or made other than so many tables.
    """
    home.mkdir(parents=True, exist_ok=True)
    # No telemetry: it starts a process that outlives the run.
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    launched = time.time()
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks._launch", module, job],
        cwd=ROOT,
        env={**os.environ, **settings, "DAGSTER_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    end = time.time()
    if ended.returncode:
        raise RuntimeError(ended.stderr)
    told = json.loads(ended.stdout.splitlines()[-1])
    there = told["tables"]
    if not told["ok"] or len(there) != tables:
        raise AssertionError(f"{job} made {len(there)} of {tables} tables.\n{ended.stderr}")
    return Run(end - launched, there[0] - launched, (there[-1] - there[0]) / (tables - 1), told["work"])


def main(module: str, job: str) -> None:
    """Run, and print when each table was there (Unix seconds) and the pipes' own seconds, as JSON."""
    target = getattr(importlib.import_module(f"benchmarks.{module}"), job)
    with (
        DagsterInstance.get() as instance,
        execute_job(reconstructable(target), instance=instance) as ended,
    ):
        records = instance.get_records_for_run(
            ended.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION
        ).records
        told = {
            "ok": ended.success,
            "tables": sorted(record.timestamp for record in records),
            "work": sum(map(_seconds, records)),
        }
    print(json.dumps(told))


def _seconds(record: Any) -> float:
    found = record.asset_materialization.metadata.get("kindling/duration_seconds")
    return float(found.value) if found else 0.0


if __name__ == "__main__":
    main(*sys.argv[1:])
