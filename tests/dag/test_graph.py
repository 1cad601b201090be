"""Graph rules: who depends on whom, in which order, and what is a cycle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import networkx
import pytest
from dag_apps import any_apps, app, entity, pipe, sound_apps, unhurried
from hypothesis import given
from hypothesis import strategies as st

from kindling_dagster.dag.cycles import CYCLE_LIMIT
from kindling_dagster.dag.graph import (
    PipeEdge,
    PipeGraph,
    PipeGraphBuilder,
    PipeNode,
    TopologicalSorter,
)
from kindling_dagster.dag.layers import layers
from kindling_dagster.errors import CycleError, PlanError
from kindling_dagster.manifest import Manifest


def graph_of(manifest: Manifest, **options: bool) -> PipeGraph:
    return PipeGraphBuilder(manifest).build_graph(**options)


def drawn(graph: PipeGraph) -> list[str]:
    """Edges in short: ``a→b`` carries data, ``a⇢b`` only order."""
    return [f"{edge.from_pipe}{'⇢' if edge.ordering else '→'}{edge.to_pipe}" for edge in graph.edges]


CURRENT = entity("s.current", "none", kind="companion", companion_of="s")
VIEW = entity("v", "none", kind="sql", sql="select …", sql_inputs=("x", "y"))
VIEW_ON_VIEW = entity("vv", "none", kind="sql", sql="select …", sql_inputs=("v", "s.current"))
VIEW_ON_ITSELF = entity("loop", "none", kind="sql", sql="select …", sql_inputs=("loop",))

RULES = [
    ("chain", [pipe("a", "src", "x"), pipe("b", "x", "y")], ["a→b"]),
    ("declared in the other order", [pipe("b", "x", "y"), pipe("a", "src", "x")], ["a→b"]),
    (
        "diamond",
        [pipe("a", "src", "x"), pipe("l", "x", "y"), pipe("r", "x", "z"), pipe("b", "y z", "w")],
        ["a→l", "a→r", "l→b", "r→b"],
    ),
    ("no input", [pipe("a", "", "x"), pipe("b", "x", "y")], ["a→b"]),
    ("reads its own output", [pipe("a", "src x", "x")], []),
    ("reads its own companion", [pipe("a", "src s.current", "s")], []),
    ("companion", [pipe("a", "src", "s"), pipe("b", "s.current", "y")], ["a→b"]),
    ("SQL", [pipe("a", "src", "x"), pipe("b", "src", "y"), pipe("c", "v", "z")], ["a→c", "b→c"]),
    (
        "SQL over SQL over a companion",
        [pipe("a", "src", "x"), pipe("b", "src", "s"), pipe("c", "vv", "z")],
        ["a→c", "b→c"],
    ),
    ("SQL that names itself", [pipe("a", "loop", "x")], []),
    (
        "two writers: both upstream of the reader, in declaration order",
        [pipe("w1", "src", "x"), pipe("r", "x", "y"), pipe("w2", "src", "x")],
        ["w1→r", "w2→r", "w1⇢w2"],
    ),
    (
        "three writers: only neighbours are tied",
        [pipe("w1", "", "x"), pipe("w2", "", "x"), pipe("w3", "", "x")],
        ["w1⇢w2", "w2⇢w3"],
    ),
    (
        "a writer that reads the entity comes after those that do not, wherever it is declared",
        [pipe("update", "x", "x"), pipe("load", "src", "x")],
        ["load→update"],
    ),
    (
        "two writers that both read the entity: declaration order",
        [pipe("u1", "x", "x"), pipe("u2", "x", "x")],
        ["u1→u2"],
    ),
    (
        "loads, then updates",
        [pipe("u1", "x", "x"), pipe("w1", "", "x"), pipe("u2", "x", "x"), pipe("w2", "", "x")],
        ["w1→u1", "w2→u1", "u1→u2", "w1→u2", "w2→u2", "w1⇢w2"],
    ),
]


@pytest.mark.parametrize(("pipes", "edges"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES])
def test_rules(pipes, edges):
    graph = graph_of(app(pipes, [CURRENT, VIEW, VIEW_ON_VIEW, VIEW_ON_ITSELF]))
    assert sorted(drawn(graph)) == sorted(edges)
    placed = {pipe_id: number for number, pipes in enumerate(graph.generations) for pipe_id in pipes}
    assert all(placed[edge.from_pipe] < placed[edge.to_pipe] for edge in graph.edges)


def test_an_edge_carries_what_the_reader_names():
    graph = graph_of(app([pipe("a", "src", "s"), pipe("b", "s other s.current", "y")], [CURRENT]))
    assert graph.edges == (PipeEdge("a", "b", ("s", "s.current")),)
    assert graph.upstream("b") == ("a",)


def test_lookups():
    graph = graph_of(
        app(
            [
                pipe("load", "src", "x"),
                pipe("more", "src2", "x"),
                pipe("clean", "x dim", "y"),
                pipe("report", "y s.current", "z"),
            ],
            [CURRENT],
        )
    )
    assert len(graph) == 4
    assert "load" in graph
    assert "nothing" not in graph
    assert graph.upstream("clean") == ("load", "more")
    assert graph.upstream("more") == ()  # the order among writers is no data
    assert graph.predecessors["more"] == ("load",)
    assert graph.downstream("load") == ("clean",)
    assert graph.ancestors("report") == ("load", "more", "clean")
    assert graph.descendants("more") == ("clean", "report")
    assert graph.roots == ("load", "more")
    assert graph.leaves == ("report",)
    assert graph.writers_of("x") == ("load", "more")
    assert graph.writers_of("src") == ()
    assert graph.readers_of("s") == graph.readers_of("s.current") == ("report",)
    assert graph.external_inputs == {
        "src": ("load",),
        "src2": ("more",),
        "dim": ("clean",),
        "s": ("report",),
    }
    assert graph.node("clean").reads == {"x": ("x",), "dim": ("dim",)}


def test_a_selection_sees_only_itself():
    builder = PipeGraphBuilder(app([pipe("a", "src", "x"), pipe("b", "x", "y"), pipe("c", "y", "z")]))
    graph = builder.build_graph(["c", "a"])
    assert graph.pipe_ids == ("a", "c")
    assert graph.edges == ()
    assert graph.external_inputs == {"src": ("a",), "y": ("c",)}


@pytest.mark.parametrize(
    "ask",
    [
        lambda builder: builder.build_graph(["silver.order"]),
        lambda builder: builder.build_graph().subgraph(["silver.order"]),
        lambda builder: builder.build_graph().node("silver.order"),
        lambda builder: builder.build_graph().upstream("silver.order"),
        lambda builder: builder.build_graph().descendants("silver.order"),
    ],
)
def test_unknown_pipes_are_named_with_what_was_meant(ask):
    builder = PipeGraphBuilder(app([pipe("silver.orders", "src", "x")]))
    with pytest.raises(PlanError, match=r"'silver\.order' \(did you mean silver\.orders\?\)"):
        ask(builder)


def test_a_subgraph_still_knows_companions_and_sql():
    builder = PipeGraphBuilder(
        app(
            [pipe("a", "src", "s"), pipe("b", "src", "x"), pipe("c", "vv", "z")],
            [CURRENT, VIEW, VIEW_ON_VIEW],
        )
    )
    part = builder.build_graph().subgraph(["a", "c"])
    assert part.upstream("c") == ("a",)
    assert part == builder.build_graph(["a", "c"])


def test_all_unknown_pipes_are_named_at_once():
    builder = PipeGraphBuilder(app([pipe("a", "src", "x")]))
    with pytest.raises(PlanError, match=r"No such pipes: 'p', 'q'\."):
        builder.build_graph(["q", "a", "p"])


CYCLES = [
    ("two", [pipe("a", "y", "x"), pipe("b", "x", "y")], [["a", "b"]]),
    ("starts at the first declared", [pipe("b", "x", "y"), pipe("a", "y", "x")], [["b", "a"]]),
    ("through a companion", [pipe("a", "y", "s"), pipe("b", "s.current", "y")], [["a", "b"]]),
    ("through SQL", [pipe("a", "z", "x"), pipe("b", "v", "z")], [["a", "b"]]),
    (
        "two that share a pipe",
        [pipe("a", "y", "x"), pipe("b", "x", "y"), pipe("c", "x", "z"), pipe("d", "z", "y")],
        [["a", "b"], ["a", "c", "d"]],
    ),
    (
        "two apart, with a pipe behind that is in none",
        [
            pipe("a", "y", "x"),
            pipe("b", "x", "y"),
            pipe("c", "q", "p"),
            pipe("d", "p", "q"),
            pipe("e", "y", "o"),
        ],
        [["a", "b"], ["c", "d"]],
    ),
    (
        "the order among writers makes none of its own",
        [pipe("w1", "y", "x"), pipe("w2", "", "x"), pipe("r", "x", "y")],
        [["w1", "r"]],
    ),
]


@pytest.mark.parametrize(("pipes", "cycles"), [each[1:] for each in CYCLES], ids=[each[0] for each in CYCLES])
def test_cycles(pipes, cycles):
    manifest = app(pipes, [CURRENT, VIEW])
    graph = graph_of(manifest, allow_cycles=True)
    assert PipeGraphBuilder.detect_cycles(graph) == cycles
    with pytest.raises(CycleError) as raised:
        graph_of(manifest)
    assert raised.value.cycles == tuple(tuple(cycle) for cycle in cycles)
    for cycle in cycles:
        assert " → ".join([*cycle, cycle[0]]) + " (" in str(raised.value)
    for fails in (
        lambda: PipeGraphBuilder.get_generations(graph),
        lambda: TopologicalSorter(graph).prepare(),
        lambda: TopologicalSorter(graph, reverse=True).static_order(),
        lambda: TopologicalSorter(graph.predecessors).prepare(),
    ):
        with pytest.raises(CycleError):
            fails()


def test_a_cycle_is_explained():
    with pytest.raises(CycleError) as raised:
        graph_of(app(CYCLES[4][1]))
    assert str(raised.value) == (
        "Pipes depend on each other in circles:\n"
        "  a → b → a (b reads x from a; a reads y from b)\n"
        "  a → c → d → a (c reads x from a; d reads z from c; a reads y from d)\n"
        "Take one read out of each circle, for example a's read of y (part of 2 of the 2 circles). A pipe that "
        "needs the state left by the run before can read its own output: that is no dependency."
    )


def test_cycles_are_bounded():
    # Nine pipes that all read each other have some 125,000 elementary cycles.
    every = " ".join(f"e{number}" for number in range(9))
    manifest = app([pipe(f"p{number}", every, f"e{number}") for number in range(9)])
    graph = graph_of(manifest, allow_cycles=True)
    assert len(PipeGraphBuilder.detect_cycles(graph, limit=7)) == 7
    with pytest.raises(CycleError, match=f"and more: only {CYCLE_LIMIT} are shown") as raised:
        graph_of(manifest)
    assert len(raised.value.cycles) == CYCLE_LIMIT


@pytest.mark.parametrize("closed", [False, True])
def test_five_thousand_pipes_in_a_row(closed):
    chain = [pipe(f"p{number}", f"e{number - 1}", f"e{number}") for number in range(1, 5001)]
    if not closed:
        assert len(graph_of(app(chain)).generations) == 5000
        return
    with pytest.raises(CycleError) as raised:
        graph_of(app([*chain, pipe("p0", "e5000", "e0")]))
    assert [len(cycle) for cycle in raised.value.cycles] == [5001]


def test_a_pipe_declared_twice_is_no_cycle():
    graph = graph_of(app([pipe("a", "src", "x"), pipe("a", "src", "x"), pipe("b", "x", "y")]))
    assert graph.generations == (("a",), ("b",))


def test_graphs_are_values():
    manifest = app([pipe("a", "src", "x"), pipe("b", "x", "y")])
    graph = graph_of(manifest)
    assert graph == graph_of(manifest)
    assert graph != graph.subgraph(["a"])
    with pytest.raises(AttributeError):
        graph.pipes = ()  # type: ignore[misc]


@unhurried
@given(any_apps())
def test_edges_and_cycles_against_networkx(manifest):
    """The rules stated once more, pair by pair, and networkx as the judge of cycles."""
    oracle = networkx.DiGraph()
    oracle.add_nodes_from(each.id for each in manifest.pipes)
    position = {each.id: number for number, each in enumerate(manifest.pipes)}
    for writer in manifest.pipes:
        written = writer.output_entity_id
        for reader in manifest.pipes:
            if writer.id == reader.id or written not in reader.input_entity_ids:
                continue
            both_update = reader.output_entity_id == written and written in writer.input_entity_ids
            if not both_update or position[writer.id] < position[reader.id]:
                oracle.add_edge(writer.id, reader.id)
    graph = graph_of(manifest, allow_cycles=True)
    assert {(e.from_pipe, e.to_pipe) for e in graph.edges if not e.ordering} == set(oracle.edges)
    assert graph.acyclic == networkx.is_directed_acyclic_graph(oracle)

    found = PipeGraphBuilder.detect_cycles(graph, limit=100_000)
    assert [cycle[0] for cycle in found] == [min(cycle, key=position.__getitem__) for cycle in found]
    expected = set()
    for cycle in networkx.simple_cycles(oracle):
        first = cycle.index(min(cycle, key=position.__getitem__))
        expected.add(tuple(cycle[first:] + cycle[:first]))
    assert {tuple(cycle) for cycle in found} == expected
    assert len(found) == len(expected)
    for pipe_id in graph.pipe_ids:
        assert set(graph.ancestors(pipe_id)) - {pipe_id} == networkx.ancestors(oracle, pipe_id) - {pipe_id}
        assert set(graph.descendants(pipe_id)) - {pipe_id} == networkx.descendants(oracle, pipe_id) - {
            pipe_id
        }


@unhurried
@given(any_apps())
def test_the_order_among_writers_never_adds_a_cycle(manifest):
    graph = graph_of(manifest, allow_cycles=True)
    data_alone = {pipe_id: graph.upstream(pipe_id) for pipe_id in graph.pipe_ids}
    assert graph.acyclic == (sum(map(len, layers(data_alone))) == len(graph))


@unhurried
@given(sound_apps())
def test_generations(manifest):
    graph = graph_of(manifest)
    order = [pipe_id for generation in graph.generations for pipe_id in generation]
    assert sorted(order) == sorted(graph.pipe_ids)
    placed = {pipe_id: number for number, pipes in enumerate(graph.generations) for pipe_id in pipes}
    for pipe_id, before in graph.predecessors.items():
        assert placed[pipe_id] == max((placed[other] + 1 for other in before), default=0)
    position = graph.pipe_ids.index
    assert all(list(pipes) == sorted(pipes, key=position) for pipes in graph.generations)
    for entity_id in {node.output for node in graph.nodes}:
        writers = graph.writers_of(entity_id)
        assert len({placed[writer] for writer in writers}) == len(writers), "writers ran at the same time"


@unhurried
@given(sound_apps(), st.data())
def test_a_selection_is_the_subgraph_in_whatever_order_it_is_given(manifest, data):
    builder = PipeGraphBuilder(manifest)
    graph = builder.build_graph()
    chosen = data.draw(st.lists(st.sampled_from(graph.pipe_ids), unique=True))
    part = graph.subgraph(chosen)
    assert part == builder.build_graph(chosen) == builder.build_graph(reversed(chosen))
    assert set(part.pipe_ids) == set(chosen)
    assert part.generations == builder.build_graph(sorted(chosen)).generations
    inside = [edge for edge in graph.edges if {edge.from_pipe, edge.to_pipe} <= set(chosen)]
    data_edges = [edge for edge in part.edges if not edge.ordering]
    assert sorted(data_edges, key=repr) == sorted((edge for edge in inside if not edge.ordering), key=repr)


@unhurried
@given(sound_apps(), st.booleans(), st.data())
def test_the_sorter_gives_each_pipe_once_and_after_its_predecessors(manifest, reverse, data):
    graph = graph_of(manifest)
    sorter = TopologicalSorter(graph, reverse=reverse)
    pairs = [(other, pipe_id) for pipe_id, before in graph.predecessors.items() for other in before]
    if reverse:
        pairs = [(below, above) for above, below in pairs]
    order = sorter.static_order()
    assert sorted(order) == sorted(graph.pipe_ids)
    assert all(order.index(first) < order.index(then) for first, then in pairs)

    sorter.prepare()
    running: list[str] = []
    done: set[str] = set()
    while sorter:
        ready = sorter.get_ready()
        assert list(ready) == sorted(ready, key=graph.pipe_ids.index)
        assert all(first in done for first, then in pairs if then in ready)
        running += ready
        finished = data.draw(st.sampled_from(running))
        running.remove(finished)
        done.add(finished)
        sorter.done(finished)
    assert done == set(graph.pipe_ids)


def test_a_plain_mapping_can_be_sorted():
    sorter = TopologicalSorter({"b": ("a",), "a": (), "c": ("a",)})
    assert sorter.static_order() == ("a", "b", "c")
    sorter.prepare()
    assert sorter.get_ready() == ("a",)
    assert sorter.is_active()
    with pytest.raises(CycleError, match="a → b → a"):
        TopologicalSorter({"a": ("b",), "b": ("a",)}).prepare()


def test_a_graph_by_hand_needs_no_manifest():
    graph = PipeGraph((pipe("a", "src", "x"), pipe("b", "v", "y")), {"v": ("x",)})
    assert graph.edges == (PipeEdge("a", "b", ("v",)),)
    assert graph.node("b") == PipeNode(pipe("b", "v", "y"), {"v": ("x",)})


def test_the_same_in_every_process():
    """Hash seeds change the order of sets of strings; nothing that is given may depend on it."""
    script = (
        "from dag_apps import app, pipe\n"
        "from kindling_dagster.dag.graph import PipeGraphBuilder\n"
        "from kindling_dagster.dag.plan import ExecutionPlanGenerator\n"
        "tangle = [pipe(f'p{n}', ' '.join(f'e{m}' for m in range(8)), f'e{n}') for n in range(8)]\n"
        "graph = PipeGraphBuilder(app(tangle)).build_graph(allow_cycles=True)\n"
        "print(PipeGraphBuilder.detect_cycles(graph, limit=20))\n"
        "sound = app([pipe(f'p{n}', f'e{n // 3} e{n // 2} src', f'e{n + 1 - n % 2}') for n in range(1, 40)])\n"
        "print(ExecutionPlanGenerator(sound).generate_plan([p.id for p in sound.pipes]).to_json())\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1
