"""Drawings: what the formats show, and that no name can break them."""

from __future__ import annotations

import json
import re

import pytest
from dag_apps import app, entity, pipe

from kindling_dagster.dag import render
from kindling_dagster.dag.graph import PipeGraph, PipeGraphBuilder
from kindling_dagster.dag.plan import ExecutionPlan
from kindling_dagster.dag.strategy import HybridExecutionStrategy

MANIFEST = app(
    [
        pipe("report", "y", "z"),
        pipe("load", "src", "x"),
        pipe("more", "src", "x"),
        pipe("follow", "x", "y", stream=True),
    ],
    [entity("x", layer="bronze"), entity("y", layer="silver"), entity("z", layer="gold")],
)
NASTY = ['say "hi"', "a[b](c){d}|e", "<script>", "back`tick`", "#quot;", "new\nline", "back\\slash", "end"]


def graph_of(manifest=MANIFEST) -> PipeGraph:
    return PipeGraphBuilder(manifest).build_graph(allow_cycles=True)


def test_mermaid_of_a_graph():
    graph = graph_of()
    assert graph.to_mermaid(render.by_generation(graph)) == (
        "flowchart LR\n"
        '  n0[("src")]\n'
        '  subgraph g1["generation 0"]\n'
        '    n1["load"]\n'
        "  end\n"
        '  subgraph g2["generation 1"]\n'
        '    n2["more"]\n'
        "  end\n"
        '  subgraph g3["generation 2"]\n'
        '    n3(["follow"])\n'
        "  end\n"
        '  subgraph g4["generation 3"]\n'
        '    n4["report"]\n'
        "  end\n"
        "  n0 --> n1\n"
        "  n0 --> n2\n"
        '  n3 -->|"y"| n4\n'
        '  n1 -.->|"x"| n2\n'
        '  n1 -->|"x"| n3\n'
        '  n2 -->|"x"| n3\n'
    )


def test_frames_by_layer():
    graph = graph_of()
    layers = render.by_layer(graph, MANIFEST)
    assert layers == {"report": "gold", "load": "bronze", "more": "bronze", "follow": "silver"}
    assert 'subgraph g2["bronze"]\n    n2["load"]\n    n3["more"]\n  end' in graph.to_mermaid(layers)


def test_dot_of_a_graph():
    graph = graph_of(app([pipe("a", "src", "x"), pipe("b", "x", "y", stream=True)]))
    assert graph.to_dot({"a": "one"}) == (
        "digraph pipes {\n"
        "  rankdir=LR;\n"
        '  n0 [label="src", shape=cylinder];\n'
        '  n1 [label="b", shape=oval];\n'
        "  subgraph cluster_1 {\n"
        '    label="one";\n'
        '    n2 [label="a", shape=box];\n'
        "  }\n"
        "  n0 -> n2 [style=solid];\n"
        '  n2 -> n1 [label="x", style=solid];\n'
        "}\n"
    )


def test_a_graph_with_cycles_can_be_drawn():
    graph = graph_of(app([pipe("a", "y", "x"), pipe("b", "x", "y")]))
    text = graph.to_mermaid()
    assert 'n1 -->|"y"| n0' in text
    assert 'n0 -->|"x"| n1' in text


def test_a_plan_shows_data_order_and_checkpoints_apart():
    pipes = [
        pipe("w1", "src", "x"),
        pipe("w2", "src", "x"),
        pipe("s1", "x", "y", stream=True),
        pipe("s2", "y", "z", stream=True),
    ]
    plan = HybridExecutionStrategy().plan(graph_of(app(pipes)))
    names = {name: id_ for id_, name in re.findall(r'(n\d+)\(?\[+"(\w+)"', plan.to_mermaid())}
    w1, w2, s1, s2 = (names[name] for name in ("w1", "w2", "s1", "s2"))
    arrows = [line.strip() for line in plan.to_mermaid().splitlines() if re.search(r"--|\.-|==", line)]
    assert set(arrows) == {
        f"{w1} -.-> {w2}",
        f'{w1} -->|"x"| {s1}',
        f'{w2} -->|"x"| {s1}',
        f"{s2} -.-> {s1}",
        f'{s1} ==>|"y"| {s2}',
    }
    assert f'{s1} -> {s2} [label="y", style=bold];'.replace(s1, "n3").replace(s2, "n1") in plan.to_dot()


def test_text_of_a_graph():
    assert graph_of().to_text() == (
        "pipe    reads (from)    writes\n"
        "report  y (follow)      z\n"
        "load    src             x\n"
        "more    src             x\n"
        "follow  x (load, more)  y\n"
    )


def test_data_of_a_graph():
    graph = graph_of(app([pipe("a", "src", "x"), pipe("b", "v", "y", stream=True)], [VIEW]))
    data = json.loads(graph.to_json())
    assert data == {
        "nodes": [
            {"pipe_id": "a", "reads": {"src": ["src"]}, "writes": "x", "streaming": False},
            {"pipe_id": "b", "reads": {"v": ["x", "dim"]}, "writes": "y", "streaming": True},
        ],
        "edges": [{"from": "a", "to": "b", "entities": ["v"], "ordering": False}],
        "external_inputs": {"src": ["a"], "dim": ["b"]},
    }


VIEW = entity("v", "none", kind="sql", sql="select …", sql_inputs=("x", "dim"))


@pytest.mark.parametrize("name", NASTY)
def test_no_name_breaks_a_format(name):
    manifest = app([])
    pipes = [pipe(name, "", "x"), pipe("b", "x", "y")]
    manifest = app([pipes[0], pipes[1]])
    graph = graph_of(manifest)
    drawing = render.draw_graph(graph, {name: name})
    box = re.compile(r'\s*n\d+\["[^"<>`\n]*"\]')
    frame = re.compile(r'\s*(subgraph g\d+\["[^"<>`\n]*"\]|end)')
    arrow = re.compile(r'\s*n\d+ -->\|"[^"]*"\| n\d+')
    for line in render.mermaid(drawing).splitlines()[1:]:
        assert box.fullmatch(line) or frame.fullmatch(line) or arrow.fullmatch(line), line
    labels = re.findall(r'label="((?:[^"\\]|\\.)*)"', render.dot(drawing))
    assert name.replace("\n", " ") in [re.sub(r"\\(.)", r"\1", label) for label in labels]


def test_names_that_differ_stay_apart():
    graph = graph_of(app([pipe("a.b", "a_b", "x"), pipe("a_b", "x", "y")]))
    drawing = render.draw_graph(graph)
    assert len(set(drawing.ids.values())) == 3


def test_an_empty_plan_has_a_text():
    plan = ExecutionPlan("batch", (), {})
    assert plan.to_text().startswith("batch plan: 0 pipes in 0 generations, at most 0 at once")
    assert plan.to_mermaid() == "flowchart LR\n"
