"""Our step against a bare script that calls Kindling's ``run_datapipes_dag`` on the same session and pipes.

Both sides run the same pipes in one app that is up, in one live Spark session, and make all tables anew. The
step is a real Dagster step (instance on disk, events stored in SQLite), timed inside the run, from calling
``kindling.run(context)`` to its last materialization; the engine alone is the same without Dagster. Wall clock
depends on what else the machine does; the CPU seconds (of this process and the JVM) do much less.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
from dagster import AssetKey, DagsterInstance, Definitions, in_process_executor

from benchmarks._step_app import App, chain, forget_outputs, layers, write_app, write_source
from benchmarks.harness import Case
from kindling_dagster import KindlingProject, KindlingResource, kindling_assets
from kindling_dagster.engines.base import Engine, PipeFinished, RunOptions, RunRequest
from kindling_dagster.engines.in_process import InProcessEngine
from kindling_dagster.runtime import KindlingRuntime
from kindling_dagster.spark import build_session

ROWS = 2_000
LENGTH = 3
WIDTH, DEPTH = 4, 2
ROUNDS = 6
GOAL = 1.05
SCRIPT = "Kindling's run_datapipes_dag"


class WarmResource(KindlingResource):
    """Ours, with an engine that outlives the run: both sides find the session and the app up."""

    def engine_for(self, project: KindlingProject, context: Any) -> Engine:  # noqa: ARG002
        """The benchmark's engine."""
        assert Stage.engine is not None
        return Stage.engine

    def close(self) -> None:
        """The benchmark closes it."""


@dataclass
class Spent:
    """Wall and CPU seconds of each measurement of one side."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def timed(self, run: Callable[[], float | None], cpu_seconds: Callable[[], float]) -> float:
        """Run once; gives the wall seconds, of ``run`` itself where it tells them."""
        cpu, started = cpu_seconds(), perf_counter()
        told = run()
        self.wall.append(perf_counter() - started if told is None else told)
        self.cpu.append(cpu_seconds() - cpu)
        return self.wall[-1]


class Stage:
    """The session, the app and the Dagster instance that all cases share."""

    engine: InProcessEngine | None = None

    def __init__(self, folder: Path, exit_stack: ExitStack) -> None:
        self.app: App = write_app(folder / "app", {**chain(LENGTH), **layers(WIDTH, DEPTH)})
        write_source(self.app, ROWS)
        self.project = KindlingProject(self.app.directory)
        home = folder / "dagster"
        home.mkdir()
        self.instance = exit_stack.enter_context(DagsterInstance.local_temp(str(home)))
        self.in_step: list[float] = []
        self.job = self._definitions().resolve_implicit_global_asset_job_def()
        self.spark: Any = build_session({"spark.log.level": "ERROR"})
        exit_stack.callback(self.spark.stop)
        self.runtime = exit_stack.enter_context(KindlingRuntime.start(self.project, self.spark))
        Stage.engine = InProcessEngine(self.project, lambda: self.spark)
        exit_stack.callback(Stage.engine.close)

    def _definitions(self) -> Definitions:
        in_step = self.in_step

        @kindling_assets(project=self.project)
        def sales(context, kindling: KindlingResource):  # type: ignore[no-untyped-def]
            started = perf_counter()
            yield from kindling.run(context).stream()
            in_step.append(perf_counter() - started)

        return Definitions(
            assets=[sales], resources={"kindling": WarmResource()}, executor=in_process_executor
        )

    def cpu_seconds(self) -> float:
        """CPU time so far of this process and Spark's JVM."""
        used = (psutil.Process(), psutil.Process(self.spark.sparkContext._gateway.proc.pid))
        return sum(sum(process.cpu_times()[:2]) for process in used)

    def forget(self) -> None:
        """Delete all that pipes have written."""
        forget_outputs(self.spark, self.app)

    def script(self, pipes: Sequence[str]) -> None:
        """What a bare script does."""
        result = self.runtime.execution.run_datapipes_dag(list(pipes), parallel=False)
        assert result.success_count == len(pipes), result

    def step(self, pipes: Sequence[str], **config: Any) -> float:
        """A Dagster run of one step; gives the seconds inside it."""
        ended = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[AssetKey(pipe.split(".")) for pipe in pipes],
            run_config={"ops": {"sales": {"config": config}}},
        )
        assert len(ended.get_asset_materialization_events()) == len(pipes)
        return self.in_step.pop()

    def alone(self, pipes: Sequence[str]) -> None:
        """The engine without Dagster."""
        assert Stage.engine is not None
        events = Stage.engine.run(RunRequest("benchmark", tuple(pipes), RunOptions()))
        ended = [event.result for event in events if isinstance(event, PipeFinished)]
        assert all(result.status.ok for result in ended)
        assert len(ended) == len(pipes)


def cases() -> Iterator[Case]:
    """The step and the engine alone, then pipes side by side."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as exit_stack:
        stage = Stage(Path(folder), exit_stack)
        pipes = list(chain(LENGTH))
        rows = f"{LENGTH} pipes in a row, {ROWS:,} rows"
        yield from _pair(stage, f"step, {rows}", lambda: stage.step(pipes), pipes, GOAL, ROUNDS)
        yield from _pair(stage, f"engine alone, {rows}", lambda: stage.alone(pipes), pipes, GOAL, ROUNDS // 2)
        yield from _parallel(stage)


def _pair(
    stage: Stage,
    name: str,
    ours: Callable[[], float | None],
    pipes: Sequence[str],
    goal: float,
    rounds: int,
) -> Iterator[Case]:
    """Two cases from the same rounds: by the wall clock, then by CPU seconds."""
    mine, theirs = Spent(), Spent()
    warmups = 2
    yield Case(
        name,
        ours=lambda: mine.timed(ours, stage.cpu_seconds),
        other=lambda: theirs.timed(lambda: stage.script(pipes), stage.cpu_seconds),
        other_name=SCRIPT,
        goal=goal,
        runs=rounds,
        warmups=warmups,
        before_each=stage.forget,
    )
    if len(mine.cpu) <= warmups:  # the case above broke, and says so
        return
    yield Case(
        f"{name}: CPU",
        ours=iter(mine.cpu[warmups:]).__next__,
        other=iter(theirs.cpu[warmups:]).__next__,
        other_name=SCRIPT,
        goal=goal,
        runs=len(mine.cpu) - warmups,
        warmups=0,
    )


def _parallel(stage: Stage) -> Iterator[Case]:
    """Data flow against the script, which runs one pipe after another; and what the cores allow."""
    pipes = list(layers(WIDTH, DEPTH))
    script = Spent()
    yield Case(
        f"data flow, {WIDTH} workers, {len(pipes)} pipes of width {WIDTH}",
        ours=lambda: stage.step(pipes, parallel=True, max_workers=WIDTH),
        other=lambda: script.timed(lambda: stage.script(pipes), stage.cpu_seconds),
        other_name=f"{SCRIPT}, sequential",
        better="at least",
        runs=3,
        before_each=stage.forget,
    )
    if not script.wall:  # the case above broke, and says so
        return
    cores = os.cpu_count() or 1
    busy = sum(script.cpu[1:]) / sum(script.wall[1:])
    yield Case(
        f"limit of the speed-up: {cores} cores, of which the script keeps {busy:.2f} busy",
        ours=lambda: min(cores / busy, WIDTH),
        runs=1,
        warmups=0,
        units="×",
    )
