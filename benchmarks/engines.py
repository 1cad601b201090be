"""The demo's gold layer on a warm process against a run that starts Spark itself; what messages by Pipes cost.

Launch to first commit, and launch to end, of Dagster runs in processes of their own, as a run launcher starts them.
It is the second time that the layer is computed: the warm process has just computed the whole demo. What it takes beyond
Dagster's own launch (a run of as many assets that do nothing; once more with the demo's definitions loaded) and the
pipes' own seconds is told after that. The messages are those that the warm process has told of while it computed
the demo.
"""

from __future__ import annotations

import queue
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dagster import PipesMessageHandler, build_asset_context
from dagster_pipes import PipesDefaultMessageWriter
from kindling_dagster_demo import feed

from benchmarks._apart import apart
from benchmarks._gold_jobs import ASSETS, DEMO
from benchmarks._launch import Run, launch
from benchmarks.harness import Case
from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.engines.base import LogLine, PipeFinished, RunEvent, RunRequest
from kindling_dagster.engines.warm.client import WarmClient
from kindling_dagster.engines.warm.spec import WarmSpec
from kindling_dagster.engines.wire import event_from_json, event_to_json
from kindling_dagster.pipes_engine import KindlingMessages
from kindling_dagster.project import KindlingProject
from kindling_dagster.remote.protocol import MESSAGE
from kindling_dagster.spark import session_conf
from kindling_dagster.submit_client import FileMessages

ROOT = Path(__file__).parents[1]
ROUNDS = 3
GOAL = 2.0
BEYOND_GOAL = 1.0
"""Seconds."""
OTHER = "Spark started by the run"
# Streams, what is computed behind them, and what is partitioned: steps of their own.
LEFT_OUT = ("silver.flights_live", "gold.live_delays", "gold.live_board", "gold.daily_operations")


def cases() -> Iterator[Case]:
    """All of the same runs."""
    with tempfile.TemporaryDirectory() as folder, apart(Path(folder)):
        yield from _cases(Path(folder))


def _cases(folder: Path) -> Iterator[Case]:
    project = _demo(folder / "demo_copy")
    told = _compute_everything(project)
    gold = _gold(project)
    settings = {DEMO: str(folder / "demo_copy"), ASSETS: ",".join(gold)}
    sides: dict[str, list[Run]] = {"warm": [], "in_process": [], "nothing": [], "loading": []}

    def measured(side: str) -> Callable[[], float]:
        def run() -> float:
            # Not beside the warm processes, whose folder is named so too.
            sides[side].append(launch("_gold_jobs", side, settings, folder / f"{side}_home", len(gold)))
            return sides[side][-1].whole

        return run

    yield Case(
        f"the demo's {len(gold)} gold tables once more, launch to end",
        ours=measured("warm"),
        other=measured("in_process"),
        other_name=OTHER,
        goal=GOAL,
        better="at least",
        runs=ROUNDS,
        warmups=0,
    )
    rounds = len(sides["warm"])
    if rounds == 0 or rounds != len(sides["in_process"]):  # the case above broke, and says so
        return
    for name, figure in (("launch to first commit", _first), ("the pipes' own seconds", _work)):
        yield Case(
            name,
            ours=map(figure, sides["warm"]).__next__,
            other=map(figure, sides["in_process"]).__next__,
            other_name=OTHER,
            better="at least",
            runs=rounds,
            warmups=0,
        )
    for side, name in (
        ("nothing", "warm, beyond Dagster's launch and the pipes' own seconds"),
        ("loading", "the same, beyond a launch that loads the demo's definitions"),
    ):
        for _ in range(rounds):
            measured(side)()
        beyond = [
            run.whole - bare.whole - run.work for run, bare in zip(sides["warm"], sides[side], strict=True)
        ]
        yield Case(name, ours=iter(beyond).__next__, goal=BEYOND_GOAL, runs=rounds, warmups=0)
    yield _messages(told)


def _first(run: Run) -> float:
    return run.first


def _work(run: Run) -> float:
    return run.work


def _messages(events: Sequence[RunEvent]) -> Case:
    """What a pipe's messages cost, from telling them on the driver to having them in the run."""
    pipes = sum(isinstance(event, PipeFinished) for event in events)

    def by_pipes() -> float:
        reader = KindlingMessages(FileMessages())
        handler = PipesMessageHandler(build_asset_context(), reader)
        told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with (
            reader.telling(told.put),
            reader.read_messages(handler) as params,
            PipesDefaultMessageWriter().open(params) as channel,
        ):
            began = time.perf_counter()
            for number, event in enumerate(events):
                payload = {MESSAGE: {"n": number, "event": event_to_json(event)}}
                message: Any = {"method": "report_custom_message", "params": {"payload": payload}}
                channel.write_message(message)
            for event in events:
                if event_from_json(told.get(timeout=60)["event"]) != event:
                    raise AssertionError("a message was lost or changed")
            return (time.perf_counter() - began) / pipes

    return Case(f"messages by Pipes, per pipe ({len(events) / pipes:.0f} of them)", ours=by_pipes)


def _demo(folder: Path) -> KindlingProject:
    """A copy of the demo with its first days landed, and no tables."""
    folder.mkdir()
    shutil.copy(ROOT / "definitions.py", folder)
    left_out = shutil.ignore_patterns("data", "launcher", "__pycache__")
    shutil.copytree(ROOT / "demo", folder / "demo", ignore=left_out)
    feed.ensure_landed(folder / "demo")
    return KindlingProject(folder / "demo", environment="local")


def _compute_everything(project: KindlingProject) -> list[RunEvent]:
    """Run all batch pipes on the warm process, which is up after that; gives what it told."""
    pipes = tuple(pipe for pipe, output in _outputs(project).items() if output not in LEFT_OUT)
    client = WarmClient(lambda: WarmSpec.of(project, session_conf(), {}))
    events = list(client.run(RunRequest("everything", pipes)))
    ended = [event.result for event in events if isinstance(event, PipeFinished)]
    if not all(result.status.ok for result in ended):
        raise AssertionError([result for result in ended if not result.status.ok])
    return [event for event in events if type(event) is not LogLine]


def _gold(project: KindlingProject) -> list[str]:
    """Keys of the gold layer's assets."""
    outputs = set(_outputs(project).values()) - set(LEFT_OUT)
    return sorted(output.replace(".", "/") for output in outputs if output.startswith("gold."))


def _outputs(project: KindlingProject) -> dict[str, str]:
    """What each batch pipe writes."""
    pipes = project.manifest.pipes_by_id
    graph = PipeGraphBuilder(project.manifest).build_graph()
    return {
        pipe_id: pipes[pipe_id].output_entity_id for generation in graph.generations for pipe_id in generation
    }
