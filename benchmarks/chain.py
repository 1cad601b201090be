"""A chain of ten pipes: one multi_asset step of ours against one op per pipe, each in a process of its own.

The other side is what one writes by hand: ops with dagster-pyspark's resource under Dagster's multiprocess
executor, with the same Spark settings, that run the same pipes through Kindling. Both are Dagster runs in a
fresh instance on disk, from launching the run's process to its end. Each side starts Spark: ours once, the
other in each of ten processes, and that alone bounds the ratio by about ten; what a further pipe costs once
the first is done shows the difference without that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks._chain_child import APP, PIPES
from benchmarks._step_app import App, chain, write_app, write_source
from benchmarks.harness import Case
from kindling_dagster.project import KindlingProject

ROOT = Path(__file__).parents[1]
LENGTH = 10
ROWS = 2_000
GOAL = 10.0
OTHER = "one op per pipe, multiprocess"


@dataclass(frozen=True)
class Run:
    """One run: seconds from launch to end, until the first table was there, and per further table."""

    whole: float
    first: float
    further: float


def measured(folder: Path, side: str, runs: list[Run]) -> Callable[[], float]:
    """Runs one side in a fresh app and instance; gives seconds from launch to end."""

    def run() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            app = write_app(Path(place) / "app", chain(LENGTH))
            write_source(app, ROWS)
            KindlingProject(app.directory).manifest  # noqa: B018  # recorded before, as by a code server
            runs.append(launch(app, Path(place) / "dagster", side))
        return runs[-1].whole

    return run


def launch(app: App, home: Path, side: str) -> Run:
    """One Dagster run of one side, in a process of its own.

    Args:
        app: The app.
        home: Dagster's home, made where it is missing.
        side: A name of ``_chain_child``.

    Raises:
        RuntimeError: The process failed.
        AssertionError: Not all tables were written.
    """
    home.mkdir(exist_ok=True)
    # No telemetry: it starts a process that outlives the run.
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    environment = {APP: str(app.directory), PIPES: ",".join(app.pipes), "DAGSTER_HOME": str(home)}
    launched = time.time()
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks._chain_child", side],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    end = time.time()
    if ended.returncode:
        raise RuntimeError(ended.stderr)
    told = json.loads(ended.stdout.splitlines()[-1])
    tables = told["tables"]
    if not told["ok"] or len(tables) != len(app.pipes):
        raise AssertionError(f"{side} wrote {len(tables)} of {len(app.pipes)} tables.\n{ended.stderr}")
    return Run(end - launched, tables[0] - launched, (tables[-1] - tables[0]) / (len(tables) - 1))


def cases() -> Iterator[Case]:
    """The whole run, then what stands behind it, of the same runs."""
    ours: list[Run] = []
    other: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("KINDLING_DAGSTER_CACHE")
        os.environ["KINDLING_DAGSTER_CACHE"] = str(Path(folder) / "cache")
        try:
            yield Case(
                f"{LENGTH} pipes in a row, launch to end",
                ours=measured(Path(folder), "one_step", ours),
                other=measured(Path(folder), "op_per_pipe", other),
                other_name=OTHER,
                goal=GOAL,
                better="at least",
                runs=1,
                warmups=0,
            )
        finally:
            del os.environ["KINDLING_DAGSTER_CACHE"]
            if before is not None:
                os.environ["KINDLING_DAGSTER_CACHE"] = before
    if not other:  # the case above broke, and says so
        return
    for name, figure in (
        ("launch to the first table", lambda run: run.first),
        ("each further table", lambda run: run.further),
    ):
        yield Case(
            name,
            ours=map(figure, ours).__next__,
            other=map(figure, other).__next__,
            other_name=OTHER,
            better="at least",
            runs=len(other),
            warmups=0,
        )
