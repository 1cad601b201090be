"""A run on a warm process against one that starts Spark itself: launch to first commit, and launch to end.

Both are Dagster runs of the same chain of pipes over tables that are there already, in processes of their own, as
a run launcher starts them. The warm process is up before the first round. What it takes beyond Dagster's own
launch (a run of as many assets that do nothing) and beyond the pipes' own work (what further tables take, for all
of them) is told at the end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks._apart import apart
from benchmarks._step_app import chain, write_app, write_source
from benchmarks.chain import Run, launch
from benchmarks.harness import Case
from kindling_dagster.project import KindlingProject

LENGTH = 5
ROWS = 2_000
ROUNDS = 3
GOAL = 2.0
BEYOND_GOAL = 1.0
"""Seconds."""
OTHER = "Spark started by the run"


def cases() -> Iterator[Case]:
    """All of the same runs."""
    with tempfile.TemporaryDirectory() as folder, apart(Path(folder)):
        yield from _cases(Path(folder))


def _cases(folder: Path) -> Iterator[Case]:
    app = write_app(folder / "app", chain(LENGTH))
    write_source(app, ROWS)
    KindlingProject(app.directory).manifest  # noqa: B018  # recorded before, as by a code server
    sides: dict[str, list[Run]] = {"warm": [], "one_step": [], "nothing": []}

    def measured(side: str) -> Callable[[], float]:
        def run() -> float:
            sides[side].append(launch(app, folder / side, side))
            return sides[side][-1].whole

        return run

    yield Case(
        f"{LENGTH} pipes on tables that are there, launch to end",
        ours=measured("warm"),
        other=measured("one_step"),
        other_name=OTHER,
        goal=GOAL,
        better="at least",
        runs=ROUNDS,
    )
    if len(sides["warm"]) <= ROUNDS:  # the case above broke, and says so
        return
    for name, figure in (
        ("launch to first commit", lambda run: run.first),
        ("each further commit", lambda run: run.further),
    ):
        yield Case(
            name,
            ours=map(figure, sides["warm"][1:]).__next__,
            other=map(figure, sides["one_step"][1:]).__next__,
            other_name=OTHER,
            better="at least",
            runs=ROUNDS,
            warmups=0,
        )
    for _ in range(ROUNDS):
        measured("nothing")()
    beyond = [
        run.whole - bare.whole - LENGTH * run.further
        for run, bare in zip(sides["warm"][1:], sides["nothing"], strict=True)
    ]
    yield Case(
        "warm, beyond Dagster's launch and the pipes' own work",
        ours=iter(beyond).__next__,
        goal=BEYOND_GOAL,
        runs=ROUNDS,
        warmups=0,
    )
