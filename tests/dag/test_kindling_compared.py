"""Where Kindling's own execution falls short: each row of that table as one test that runs both on the same pipes."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from dag_apps import app, pipe
from fake_pipes import CANCELLED, FAILED, NOT_STARTED, OK, PATIENCE, TIMED_OUT, FakeCanceller, statuses
from kindling.data_pipes import PipeMetadata
from kindling.execution_strategy import BatchExecutionStrategy
from kindling.generation_executor import ErrorStrategy, GenerationExecutor
from kindling.pipe_graph import PipeGraphBuilder

from kindling_dagster.dag import graph as ours
from kindling_dagster.dag.orchestrator import ExecutionOrchestrator
from kindling_dagster.engines.base import PipeOptions, RunOptions

DIAMOND = [
    pipe("start", "src", "e.start"),
    pipe("slow", "e.start", "e.slow"),
    pipe("fast", "e.start", "e.fast"),
    pipe("after_fast", "e.fast", "e.after_fast"),
]


@dataclass
class Run:
    """What pipes do, and what became of them: the same under both executors. Writing is the last thing a pipe does."""

    bodies: dict = field(default_factory=dict)
    wrote: list = field(default_factory=list)
    moments: dict = field(default_factory=dict)

    def moment(self, what, pipe_id):
        return self.moments.setdefault((what, pipe_id), threading.Event())

    def __call__(self, pipe_id):
        self.moment("started", pipe_id).set()
        try:
            self.bodies.get(pipe_id, lambda: None)()
            self.wrote.append(pipe_id)
        finally:
            self.moment("ended", pipe_id).set()

    def kindlings(self, specs, **options):
        """How each pipe ended under Kindling's executor: its plan, its threads, its rules; reads and writes played."""
        registry = {
            spec.id: PipeMetadata(
                pipeid=spec.id,
                name=spec.id,
                execute=lambda pipe_id=spec.id, **frames: self(pipe_id),
                tags={},
                input_entity_ids=list(spec.input_entity_ids),
                output_entity_id=spec.output_entity_id,
                output_type="table",
            )
            for spec in specs
        }
        pipes_registry = SimpleNamespace(get_pipe_definition=registry.get, get_pipe_ids=registry.keys)
        logs = MagicMock()
        graph = PipeGraphBuilder(pipes_registry, logs).build_graph(list(registry))
        plan = BatchExecutionStrategy(logs).plan(graph, list(registry))
        frame = SimpleNamespace(isEmpty=lambda: False, first=lambda: 1)
        strategy = SimpleNamespace(
            create_pipe_entity_reader=lambda pipe: lambda entity, watermark: frame,
            create_pipe_persist_activator=lambda pipe: lambda frame: None,
        )
        config = SimpleNamespace(get=lambda name, default=None: default)
        executor = GenerationExecutor(
            pipes_registry, MagicMock(), None, config, strategy, MagicMock(), logs, None, None
        )
        result = executor.execute(plan, **options)
        return {each.pipe_id: each.status for part in result.generation_results for each in part.pipe_results}

    def ours(self, specs, **options):
        """How each pipe ended under ours."""
        spark = FakeCanceller()
        orchestrator = ExecutionOrchestrator(
            app(specs), self, options=RunOptions(**options), canceller=spark, grace=0.1
        )
        return statuses(orchestrator.execute([spec.id for spec in specs]))


def busy_for(seconds):
    """Python code that takes a while."""

    def body():
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.01)

    return body


@pytest.mark.parametrize("parallel", [False, True], ids=["sequential", "parallel"])
def test_pipe_timeout(parallel):
    """Kindling lets a pipe pass its limit and write; ours ends it and it never writes."""
    pipes = [pipe("slow", "src", "e.slow"), pipe("other", "src", "e.other")]
    kindlings, own = Run({"slow": busy_for(0.8)}), Run({"slow": busy_for(PATIENCE)})
    theirs = kindlings.kindlings(pipes, parallel=parallel, pipe_timeout=0.2)
    assert theirs == {"slow": "success", "other": "success"}
    assert "slow" in kindlings.wrote
    began = time.monotonic()
    limits = {"slow": PipeOptions(timeout=0.2)}
    assert own.ours(pipes, parallel=parallel, pipes=limits) == {"slow": TIMED_OUT, "other": OK}
    assert time.monotonic() - began < PATIENCE / 2
    assert own.wrote == ["other"]


def test_fail_fast_in_a_parallel_generation():
    """Kindling lets what runs go on, and starts what has not; ours cancels the one and does not start the other."""
    pipes = [pipe(name, "src", f"e.{name}") for name in ("bad", "long", "later")]

    def runs(seconds):
        run = Run({"long": busy_for(seconds)})

        def bad():
            assert run.moment("started", "long").wait(PATIENCE)
            raise ValueError("bad")

        run.bodies["bad"] = bad
        return run

    kindlings, own = runs(0.5), runs(PATIENCE)
    options = {"parallel": True, "max_workers": 2}
    theirs = kindlings.kindlings(pipes, error_strategy=ErrorStrategy.FAIL_FAST, **options)
    assert theirs == {"bad": "failed", "long": "success", "later": "success"}
    assert sorted(kindlings.wrote) == ["later", "long"]
    assert own.ours(pipes, error_strategy="fail_fast", **options) == {
        "bad": FAILED,
        "long": CANCELLED,
        "later": NOT_STARTED,
    }
    assert own.wrote == []


def test_generations_are_a_barrier():
    """Kindling's fast arm waits for the slow one; ours is through before the slow one ends."""
    seen = {}

    def runs(name):
        run = Run()

        def slow():
            seen[name] = run.moment("ended", "after_fast").wait(1.0 if name == "kindling" else PATIENCE)

        run.bodies["slow"] = slow
        return run

    options = {"parallel": True, "max_workers": 2}
    assert set(runs("kindling").kindlings(DIAMOND, **options).values()) == {"success"}
    assert set(runs("ours").ours(DIAMOND, **options).values()) == {OK}
    assert seen == {"kindling": False, "ours": True}


def test_two_producers_of_one_entity():
    """In Kindling's graph the last one declared wins, so the reader does not wait for the other; ours waits for both."""
    pipes = [
        pipe("prepare", "src", "e.prepared"),
        pipe("clean", "e.prepared", "e.clean"),
        pipe("first", "e.clean", "e.both"),
        pipe("second", "src", "e.both"),
        pipe("reader", "e.both", "e.read"),
    ]

    def runs():
        order = []
        return Run({spec.id: lambda name=spec.id: order.append(name) for spec in pipes}), order

    (kindlings, theirs), (own, order) = runs(), runs()
    kindlings.kindlings(pipes)
    assert theirs.index("reader") < theirs.index("first"), "it has read half of what it should"
    own.ours(pipes)
    assert order.index("reader") > max(order.index("first"), order.index("second"))
    graph = ours.PipeGraphBuilder(app(pipes)).build_graph()
    assert set(graph.writers_of("e.both")) == {"first", "second"}
    assert set(graph.upstream("reader")) >= {"first", "second"}
