"""A chain of ten pipes: one multi_asset step of ours against one op per pipe, each in a process of its own.

The other side is what one writes by hand: ops with dagster-pyspark's resource under Dagster's multiprocess
executor, with the same Spark settings, that run the same pipes through Kindling. Both are Dagster runs in an
instance on disk, from launching the run's process to its end, and end with equal tables.

Where S seconds go into starting (Dagster's process, Python, Spark, the app) and P into a pipe, the other side takes
10 (S + P). A step that starts Spark itself takes S + 10 P, so the ratio stays below 10 however small P is. It is
reported without a goal, with what each further pipe costs. The goal is for a step on the warm engine, whose process
has Spark and the app up, as on every run but the first: a run over the tables that are there already.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from benchmarks._apart import apart
from benchmarks._chain_jobs import APP, PIPES
from benchmarks._launch import Run, launch
from benchmarks._step_app import App, chain, write_app, write_source
from benchmarks.harness import Case
from kindling_dagster.project import KindlingProject

LENGTH = 10
COLUMNS = ["id", "customer", "amount"]
ROWS = 2_000
WARM_RUNS = 3
GOAL = 10.0
OTHER = "one op per pipe, multiprocess"

Tables = Mapping[str, list[tuple[Any, ...]]]
"""Rows by table."""


class Sides:
    """Runs the sides of the comparison, each in an app of its own, and holds their tables against each other.

    Args:
        folder: Where apps and instances go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables: Tables = {}
        self.runs: dict[str, list[Run]] = {"one_step": [], "op_per_pipe": [], "warm": []}

    def fresh(self, side: str) -> Callable[[], float]:
        """One run on an app without tables; gives seconds from launch to end."""

        def run() -> float:
            with tempfile.TemporaryDirectory(dir=self._folder) as place:
                return self._launch(self._app(Path(place) / "app"), Path(place) / "dagster", side)

        return run

    def again(self, side: str) -> tuple[Callable[[], None], Callable[[], float]]:
        """A first run, and what makes further ones over its tables; these give seconds from launch to end."""
        place = self._folder / f"{side}_again"  # not that of the warm processes
        made: list[App] = []

        def first() -> None:
            made.append(self._app(place / "app"))
            self._launch(made[0], place / "dagster", side)
            self.runs[side].clear()

        return first, lambda: self._launch(made[0], place / "dagster", side)

    def _app(self, directory: Path) -> App:
        app = write_app(directory, chain(LENGTH))
        write_source(app, ROWS)
        KindlingProject(app.directory).manifest  # noqa: B018  # recorded before, as by a code server
        return app

    def _launch(self, app: App, home: Path, side: str) -> float:
        settings = {APP: str(app.directory), PIPES: ",".join(app.pipes)}
        self.runs[side].append(launch("_chain_jobs", side, settings, home, len(app.pipes)))
        found = tables_of(app)
        self._tables = self._tables or found
        if found != self._tables:
            raise AssertionError(f"{side} has left other rows than the side before it.")
        return self.runs[side][-1].whole


def tables_of(app: App) -> Tables:
    """The rows of all tables that the pipes write, in the columns that the app declares."""
    frames = {
        pipe: DeltaTable(app.lake / pipe.replace(".", "/")).to_pyarrow_table(columns=COLUMNS)
        for pipe in app.pipes
    }
    return {pipe: sorted(tuple(row.values()) for row in frame.to_pylist()) for pipe, frame in frames.items()}


def cases() -> Iterator[Case]:
    """The whole run, then what stands behind it, of the same runs."""
    with tempfile.TemporaryDirectory() as folder, apart(Path(folder)):
        sides = Sides(Path(folder))
        ours, other = sides.runs["one_step"], sides.runs["op_per_pipe"]
        yield Case(
            f"{LENGTH} pipes in a row, a step that starts Spark, launch to end",
            ours=sides.fresh("one_step"),
            other=sides.fresh("op_per_pipe"),
            other_name=OTHER,
            better="at least",
            runs=1,
            warmups=0,
        )
        if not other:  # the case above broke, and says so
            return
        first, further = sides.again("warm")
        yield Case(
            f"{LENGTH} pipes in a row, a step on the warm engine, launch to end",
            ours=further,
            other=lambda: other[-1].whole,  # the run above
            other_name=OTHER,
            goal=GOAL,
            better="at least",
            runs=WARM_RUNS,
            warmups=0,
            setup=first,
        )
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
            runs=1,
            warmups=0,
        )
