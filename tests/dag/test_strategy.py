"""Strategies: what each pipe waits for, as a batch and as a stream."""

from __future__ import annotations

from itertools import pairwise

import pytest
from dag_apps import any_apps, app, entity, pipe, sound_apps, unhurried
from hypothesis import assume, given
from hypothesis import strategies as st

from kindling_dagster.dag.graph import PipeGraph, PipeGraphBuilder, TopologicalSorter
from kindling_dagster.dag.plan import CheckpointDependency, ExecutionPlan
from kindling_dagster.dag.strategy import (
    BatchExecutionStrategy,
    ExecutionStrategy,
    HybridExecutionStrategy,
    StreamingExecutionStrategy,
    strategy_for,
)
from kindling_dagster.errors import CycleError, PlanError

BATCH, STREAMING, HYBRID = BatchExecutionStrategy(), StreamingExecutionStrategy(), HybridExecutionStrategy()
CURRENT = entity("s.current", "none", kind="companion", companion_of="s")


def graph_of(*pipes, entities=()) -> PipeGraph:
    return PipeGraphBuilder(app(pipes, entities)).build_graph(allow_cycles=True)


def stream(pipe_id, inputs, output, **options):
    return pipe(pipe_id, inputs, output, stream=True, **options)


CASES = [
    (
        "batch: sources first",
        BATCH,
        [pipe("c", "y", "z"), pipe("a", "src", "x"), pipe("b", "x", "y")],
        [["a"], ["b"], ["c"]],
    ),
    (
        "batch: what is independent runs together",
        BATCH,
        [pipe("a", "src", "x"), pipe("l", "x", "y"), pipe("r", "x", "z"), pipe("b", "y z", "w")],
        [["a"], ["l", "r"], ["b"]],
    ),
    (
        "batch: writers of one entity one after another",
        BATCH,
        [pipe("w1", "src", "x"), pipe("w2", "src", "x"), pipe("r", "x", "y")],
        [["w1"], ["w2"], ["r"]],
    ),
    (
        "streaming: sinks first",
        STREAMING,
        [stream("a", "src", "x"), stream("b", "x", "y"), stream("c", "y", "z")],
        [["c"], ["b"], ["a"]],
    ),
    (
        "streaming: a consumer starts as early as it can",
        STREAMING,
        [stream("a", "src", "x"), stream("b", "x", "y"), stream("c", "y", "z"), stream("short", "x", "w")],
        [["c", "short"], ["b"], ["a"]],
    ),
    (
        "streaming: writers of one entity start together",
        STREAMING,
        [stream("w1", "src", "x"), stream("w2", "src", "x"), stream("r", "x", "y")],
        [["r"], ["w1", "w2"]],
    ),
    (
        "hybrid: a batch pipe does not wait for the stream above it",
        HYBRID,
        [stream("s", "src", "x"), pipe("report", "x", "y"), pipe("sum", "y", "z")],
        [["s", "report"], ["sum"]],
    ),
    (
        "hybrid: a stream waits for the batch pipes above it, and for its consumers",
        HYBRID,
        [pipe("dim", "src", "d"), stream("s1", "events d", "x"), stream("s2", "x", "y")],
        [["dim", "s2"], ["s1"]],
    ),
    (
        "hybrid: batch, stream, batch, stream",
        HYBRID,
        [pipe("b1", "src", "x"), stream("s1", "x", "y"), pipe("b2", "y", "z"), stream("s2", "z", "w")],
        [["b1", "b2"], ["s1", "s2"]],
    ),
    (
        "hybrid: only batch writers of one entity are in a row",
        HYBRID,
        [pipe("w1", "src", "x"), stream("ws", "events", "x"), pipe("w2", "src", "x"), stream("r", "x", "y")],
        [["w1"], ["w2"], ["r"], ["ws"]],
    ),
]


@pytest.mark.parametrize(
    ("strategy", "pipes", "generations"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_generations(strategy, pipes, generations):
    plan = strategy.plan(graph_of(*pipes))
    assert plan.generations == tuple(tuple(pipe_ids) for pipe_ids in generations)
    assert plan.strategy == strategy.name


def test_order_alone_is_told_from_data():
    plan = BATCH.plan(graph_of(pipe("w1", "src", "x"), pipe("w2", "src", "x"), pipe("r", "x", "y")))
    assert plan.predecessors == {"w1": (), "w2": ("w1",), "r": ("w1", "w2")}
    assert plan.ordering == {"w2": ("w1",)}
    assert plan.needs("w2") == ()
    assert plan.needs("r") == ("w1", "w2")
    hybrid = HYBRID.plan(graph_of(pipe("w1", "", "x"), stream("ws", "e", "x"), pipe("w2", "", "x")))
    assert hybrid.ordering == {"w2": ("w1",)}


def test_checkpoints_follow_driving_inputs_only():
    graph = graph_of(
        stream("a", "src", "x"),
        stream("dim", "src2", "s"),
        stream("b", "x s.current", "y"),
        stream("both", "x s", "z", driving="x s"),
        pipe("report", "y", "w"),
        stream("last", "y w", "v", driving="y"),
        entities=[CURRENT],
    )
    plan = HYBRID.plan(graph)
    assert plan.streams == ("a", "dim", "b", "both", "last")
    assert plan.checkpoints == (
        CheckpointDependency("a", "b", "x"),
        CheckpointDependency("a", "both", "x"),
        CheckpointDependency("dim", "both", "s"),
        CheckpointDependency("b", "last", "y"),
    )
    assert plan.checkpoints_behind("a") == ("b", "both", "last")
    assert plan.checkpoints_behind("dim") == ("both",)
    assert plan.checkpoints_behind("last") == ()
    assert BATCH.plan(graph).checkpoints == ()


def test_a_stream_that_reads_its_own_output_has_no_checkpoint_dependency_on_itself():
    plan = STREAMING.plan(graph_of(stream("a", "x src", "x")))
    assert plan.checkpoints == ()
    assert plan.predecessors == {"a": ()}


@pytest.mark.parametrize(
    ("strategy", "pipes", "warnings"),
    [
        (BATCH, [pipe("a", "src", "x")], []),
        (BATCH, [stream("a", "src", "x")], ["a is declared as a stream; here it runs once"]),
        (STREAMING, [pipe("a", "src", "x")], ["a is not declared as a stream; here it is started as one"]),
        (
            STREAMING,
            [stream("a", "src", "x"), stream("b", "src", "x")],
            ["x is written by a and b at the same time"],
        ),
        (
            HYBRID,
            [pipe("a", "src", "x"), stream("b", "src", "x")],
            ["x is written by a and b at the same time"],
        ),
        (HYBRID, [pipe("a", "src", "x"), pipe("b", "src", "x"), stream("s", "x", "y")], []),
    ],
)
def test_warnings(strategy, pipes, warnings):
    given_warnings = strategy.plan(graph_of(*pipes)).warnings
    assert len(given_warnings) == len(warnings)
    assert all(part in warning for part, warning in zip(warnings, given_warnings, strict=True))


@pytest.mark.parametrize("strategy", [BATCH, STREAMING, HYBRID], ids=lambda strategy: strategy.name)
def test_cycles_are_refused(strategy):
    with pytest.raises(CycleError, match="a → b → a"):
        strategy.plan(graph_of(stream("a", "y", "x"), pipe("b", "x", "y")))


@pytest.mark.parametrize(
    ("pipes", "name"),
    [
        ([], "batch"),
        ([pipe("a", "src", "x")], "batch"),
        ([stream("a", "src", "x")], "streaming"),
        ([stream("a", "src", "x"), pipe("b", "x", "y")], "hybrid"),
    ],
)
def test_the_strategy_that_fits(pipes, name):
    assert strategy_for(graph_of(*pipes)).name == name


class OneByOne(ExecutionStrategy):
    """The example of the documentation."""

    name = "one_by_one"

    def plan(self, graph: PipeGraph) -> ExecutionPlan:
        order = TopologicalSorter(graph).static_order()
        waits = {pipe_id: (before,) for before, pipe_id in pairwise(order)}
        return ExecutionPlan.arrange(self.name, graph, waits)


def test_a_strategy_of_ones_own():
    plan = OneByOne().plan(graph_of(pipe("b", "x", "y"), pipe("a", "src", "x"), pipe("c", "src", "z")))
    assert plan.generations == (("a",), ("c",), ("b",))
    assert plan.writes == {"a": "x", "b": "y", "c": "z"}


@pytest.mark.parametrize(
    ("waits", "message"),
    [
        ({"a": ["b"], "b": ["a"]}, "wait for each other in a circle: a → b → a"),
        ({"a": ["nobody"]}, "wait for nobody, not in the graph"),
    ],
)
def test_a_strategy_that_cannot_be(waits, message):
    with pytest.raises(PlanError, match=message):
        ExecutionPlan.arrange("odd", graph_of(pipe("a", "src", "x"), pipe("b", "src", "y")), waits)


@unhurried
@given(sound_apps())
def test_every_strategy_places_every_pipe_once_and_after_what_it_waits_for(manifest):
    graph = PipeGraphBuilder(manifest).build_graph()
    for strategy in (BATCH, STREAMING, HYBRID, OneByOne()):
        plan = strategy.plan(graph)
        assert sorted(plan.pipe_ids) == sorted(graph.pipe_ids)
        placed = plan.generation_of
        for pipe_id, before in plan.predecessors.items():
            assert placed[pipe_id] == max((placed[other] + 1 for other in before), default=0)


@unhurried
@given(sound_apps())
def test_every_dependency_is_kept_in_the_direction_of_the_strategy(manifest):
    graph = PipeGraphBuilder(manifest).build_graph()
    streaming = {node.pipe_id for node in graph.nodes if node.streaming}
    batch, streams, hybrid = (each.plan(graph).generation_of for each in (BATCH, STREAMING, HYBRID))
    for edge in graph.edges:
        above, below = edge.from_pipe, edge.to_pipe
        assert batch[above] < batch[below]
        if edge.ordering:
            continue
        assert streams[below] < streams[above]
        if above in streaming and below in streaming:
            assert hybrid[below] < hybrid[above]
        elif above not in streaming:
            assert hybrid[above] < hybrid[below]


@pytest.mark.parametrize(("streams", "other"), [(True, STREAMING), (False, BATCH)])
@unhurried
@given(data=st.data())
def test_hybrid_is_each_of_the_others_where_pipes_are_of_one_kind(streams, other, data):
    graph = PipeGraphBuilder(data.draw(sound_apps(streams=(streams,)))).build_graph()
    assert HYBRID.plan(graph).predecessors == other.plan(graph).predecessors


@unhurried
@given(any_apps())
def test_hybrid_fails_only_where_there_is_a_cycle(manifest):
    graph = PipeGraphBuilder(manifest).build_graph(allow_cycles=True)
    assume(graph.acyclic)
    HYBRID.plan(graph)
