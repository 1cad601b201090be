"""Plans as values, and the generator that makes or refuses them."""

from __future__ import annotations

import json

import pytest
from dag_apps import app, entity, pipe, sound_apps, unhurried
from hypothesis import given
from hypothesis import strategies as st

from kindling_dagster.dag.graph import PipeGraph
from kindling_dagster.dag.plan import (
    PLAN_VERSION,
    CheckpointDependency,
    ExecutionPlan,
    ExecutionPlanGenerator,
)
from kindling_dagster.dag.strategy import (
    BatchExecutionStrategy,
    ExecutionStrategy,
    HybridExecutionStrategy,
    StreamingExecutionStrategy,
)
from kindling_dagster.errors import CycleError, PlanError
from kindling_dagster.manifest import Problem

CHAIN = [pipe("load", "src", "x"), pipe("clean", "x", "y"), pipe("report", "y", "z")]

MIXED = ExecutionPlan(
    strategy="hybrid",
    generations=(("load", "s2"), ("more", "s1")),
    predecessors={"load": (), "s2": (), "more": ("load",), "s1": ("load", "s2")},
    ordering={"more": ("load",)},
    writes={"load": "x", "more": "x", "s1": "y", "s2": "z"},
    streams=("s1", "s2"),
    checkpoints=(CheckpointDependency("s1", "s2", "y"),),
    warnings=("Mind the gap.",),
)


def test_lookups():
    assert MIXED.pipe_ids == ("load", "s2", "more", "s1")
    assert MIXED.generation_of == {"load": 0, "s2": 0, "more": 1, "s1": 1}
    assert MIXED.needs("more") == ()
    assert MIXED.needs("s1") == ("load", "s2")


@pytest.mark.parametrize(
    ("generations", "predecessors", "message"),
    [
        ((("a",), ("a",)), {}, "a comes more than once"),
        ((("a", "b"),), {"b": ("a",)}, "b waits for a, which does not come earlier"),
        ((("a",),), {"a": ("b",)}, "a waits for b, which does not come earlier"),
        ((("a",),), {"b": ()}, "b has predecessors but no generation"),
    ],
)
def test_a_plan_cannot_contradict_itself(generations, predecessors, message):
    with pytest.raises(PlanError, match=message):
        ExecutionPlan("odd", generations, predecessors)


def test_json():
    data = json.loads(MIXED.to_json())
    assert data["version"] == PLAN_VERSION
    assert data["generations"] == [["load", "s2"], ["more", "s1"]]
    assert data["checkpoints"] == [{"upstream": "s1", "downstream": "s2", "entity": "y"}]
    assert ExecutionPlan.from_json(MIXED.to_json()) == MIXED


@unhurried
@given(
    sound_apps(),
    st.sampled_from([BatchExecutionStrategy(), StreamingExecutionStrategy(), HybridExecutionStrategy()]),
)
def test_json_round_trip(manifest, strategy):
    generator = ExecutionPlanGenerator(manifest, strategy)
    plan = generator.generate_plan([each.id for each in manifest.pipes])
    assert ExecutionPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not an execution plan"),
        ('{"strategy": "batch"}', "not an execution plan"),
        (f'{{"version": {PLAN_VERSION + 1}}}', f"has version {PLAN_VERSION + 1}"),
        ('{"version": 1, "strategy": "batch"}', "does not have a plan's fields"),
        (
            '{"version": 1, "strategy": "b", "generations": [], "predecessors": {}, "more": 1}',
            "does not have a plan's fields",
        ),
        (
            '{"version": 1, "strategy": "b", "generations": [["a"], ["a"]], "predecessors": {}}',
            "a comes more than once",
        ),
    ],
)
def test_json_that_is_no_plan(text, message):
    with pytest.raises(PlanError, match=message):
        ExecutionPlan.from_json(text)


def test_text():
    assert MIXED.to_text() == (
        "hybrid plan: 4 pipes in 2 generations, at most 2 at once\n"
        "\n"
        "gen  pipe  runs as  writes  waits for\n"
        "0    load  batch    x\n"
        "0    s2    stream   z\n"
        "1    more  batch    x       load (order only)\n"
        "1    s1    stream   y       load, s2\n"
        "\n"
        "Checkpoints:\n"
        "  s2 follows y of s1\n"
        "\n"
        "Warnings:\n"
        "  Mind the gap.\n"
    )


def test_generate_plan_orders_what_is_asked_for():
    generator = ExecutionPlanGenerator(app(CHAIN))
    plan = generator.generate_plan(["report", "clean"])
    assert plan.strategy == "batch"
    assert plan.generations == (("clean",), ("report",))
    assert plan == generator.generate_plan(iter(["clean", "report"]))


def test_the_strategy_can_be_given():
    generator = ExecutionPlanGenerator(app(CHAIN), StreamingExecutionStrategy())
    assert generator.generate_plan(["load", "clean"]).generations == (("clean",), ("load",))


def test_cycles_are_refused():
    with pytest.raises(CycleError, match="a → b → a"):
        ExecutionPlanGenerator(app([pipe("a", "y", "x"), pipe("b", "x", "y")])).generate_plan(["a", "b"])


def test_a_cycle_outside_the_selection_does_not_matter():
    manifest = app([*CHAIN, pipe("a", "q", "p"), pipe("b", "p", "q")])
    assert ExecutionPlanGenerator(manifest).generate_plan(["load"]).pipe_ids == ("load",)


class Forgetful(ExecutionStrategy):
    name = "forgetful"

    def plan(self, graph: PipeGraph) -> ExecutionPlan:
        return BatchExecutionStrategy().plan(graph.subgraph(graph.pipe_ids[1:]))


def test_a_strategy_must_place_every_pipe():
    with pytest.raises(PlanError, match="it differs in load"):
        ExecutionPlanGenerator(app(CHAIN), Forgetful()).generate_plan(["load", "clean"])


MEMORY = entity("m", "memory")
VIEW = entity("v", "none", kind="sql", sql="select …", sql_inputs=("m", "dim"))
CURRENT = entity("s.current", "none", kind="companion", companion_of="s")
SHOP = app(
    [
        pipe("prepare", "src", "m"),
        pipe("use", "m", "x"),
        pipe("view", "v", "y"),
        pipe("dims", "src", "s"),
        pipe("join", "s.current x", "z"),
        pipe("again", "z", "z"),
        pipe("seeded", "seed", "w"),
        pipe("w1", "src", "n"),
        pipe("w2", "src", "n"),
        pipe("half", "n", "o"),
        pipe("wrong", "src", "bad"),
    ],
    [
        MEMORY,
        VIEW,
        CURRENT,
        entity("seed", "memory"),
        entity("n", "memory"),
        entity("bad"),
        entity("dim"),
        entity("s"),
    ],
    [
        Problem("error", "wrong", "the function takes no parameter `src`.", "Add it."),
        Problem("error", "bad", "merge key `id` is not in the schema.", "Correct it."),
        Problem("warning", "use", "has no description."),
    ],
)

NOTHING_THERE = {"src", "s", "dim"}

REFUSALS = [
    ("nothing", [], ["No pipe is selected. Select at least one."]),
    ("unknown", ["uze"], ["No such pipe: 'uze' (did you mean use?)."]),
    ("twice", ["dims", "dims"], ["Pipe dims is given 2 times.", "src"]),
    (
        "memory outside",
        ["use"],
        [
            "Pipe use reads m, which lives only in the memory of the Spark session that writes it, and prepare, "
            "which writes it, is not selected. Select prepare too, or store m with another provider."
        ],
    ),
    ("memory behind SQL", ["view"], ["Pipe view reads m, which lives only in the memory", "dim"]),
    ("one of two writers of memory", ["w1", "half"], ["src", "and w2, which writes it, is not selected"]),
    ("both", ["half"], ["and w1 and w2, which write it, are not selected. Select w1 and w2 too"]),
    (
        "never materialized, written by a pipe",
        ["join"],
        [
            "Pipe join reads s (/lake/s), which nobody has ever materialized, and dims, which writes it, is not "
            "selected. Select dims too, or run it first."
        ],
    ),
    (
        "never there, written by nobody",
        ["dims", "prepare"],
        [
            "Pipes prepare and dims read src (/lake/src), which does not exist, and no pipe of the app writes it. "
            "Load it, or correct where it is said to be."
        ],
    ),
    (
        "errors of the pipe and of what it writes",
        ["wrong"],
        [
            "wrong: the function takes no parameter `src`. Add it.",
            "bad: merge key `id` is not in the schema. (used by wrong) Correct it.",
            "src",
        ],
    ),
    (
        "all at once",
        ["uze", "use", "use", "join", "wrong", "dims"],
        ["'uze'", "use is given 2 times", "wrong: ", "bad: ", "Pipe use reads m", "read src (/lake/src)"],
    ),
]


def is_there(spec):
    return spec.id not in NOTHING_THERE


@pytest.mark.parametrize(
    ("pipe_ids", "expected"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS]
)
def test_refusals(pipe_ids, expected):
    generator = ExecutionPlanGenerator(SHOP, exists=is_there)
    with pytest.raises(PlanError) as raised:
        generator.generate_plan(pipe_ids)
    lines = [f"{problem.message} {problem.suggestion}" for problem in raised.value.problems]
    assert len(lines) == len(expected), lines
    assert all(part in line for part, line in zip(expected, lines, strict=True))
    assert all(line in str(raised.value) for line in lines)
    assert all(problem.severity == "error" for problem in raised.value.problems)


@pytest.mark.parametrize("exists", [None, lambda spec: None, lambda spec: True], ids=["no", "unknown", "yes"])
@pytest.mark.parametrize(
    "pipe_ids",
    [["prepare", "use"], ["join"], ["again"], ["seeded"], ["w1", "w2", "half"], ["prepare", "view"]],
)
def test_no_refusal(pipe_ids, exists):
    plan = ExecutionPlanGenerator(SHOP, exists=exists).generate_plan(pipe_ids)
    assert sorted(plan.pipe_ids) == sorted(pipe_ids)


def test_a_pipe_may_start_from_its_own_output_that_is_not_there_yet():
    generator = ExecutionPlanGenerator(SHOP, exists=lambda spec: False)
    assert generator.generate_plan(["again"]).pipe_ids == ("again",)


def test_whether_an_entity_exists_is_asked_once():
    asked = []
    manifest = app([pipe(f"p{number}", "src", f"e{number}") for number in range(5)])
    generator = ExecutionPlanGenerator(manifest, exists=lambda spec: asked.append(spec.id))
    generator.generate_plan([each.id for each in manifest.pipes])
    assert asked == ["src"]
