"""Graphs and plans as text, Mermaid, DOT and JSON-ready data."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kindling_dagster.dag.graph import PipeGraph
    from kindling_dagster.dag.plan import ExecutionPlan
    from kindling_dagster.manifest import Manifest

_MERMAID_CODES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;", "\n": " "}
_MERMAID_ARROWS = {"solid": "-->", "dotted": "-.->", "bold": "==>"}


@dataclass(frozen=True)
class Box:
    """One pipe, or one entity from outside, in a drawing; a pipe and an entity may have the same name."""

    name: str
    group: str = ""
    entity: bool = False
    stream: bool = False


@dataclass(frozen=True)
class Arrow:
    """An arrow of a drawing; ``style`` is ``solid``, ``dotted`` or ``bold``."""

    start: Box
    end: Box
    label: str = ""
    style: str = "solid"


@dataclass(frozen=True)
class Drawing:
    """What a picture shows, before it takes a format. Boxes with the same group are framed together."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]

    def by_group(self) -> Mapping[str, Sequence[tuple[str, Box]]]:
        """Group → its boxes, each with a short id that is valid in every format."""
        grouped: dict[str, list[tuple[str, Box]]] = {}
        for box, id_ in self.ids.items():
            grouped.setdefault(box.group, []).append((id_, box))
        return grouped

    @cached_property
    def ids(self) -> Mapping[Box, str]:
        """Box → short id. Names themselves are no ids: ``a.b`` and ``a_b`` must stay apart."""
        return {box: f"n{number}" for number, box in enumerate(self.boxes)}


def by_generation(graph: PipeGraph) -> Mapping[str, str]:
    """Group pipes of a graph without cycles by generation."""
    return {
        pipe_id: f"generation {number}"
        for number, generation in enumerate(graph.generations)
        for pipe_id in generation
    }


def by_layer(graph: PipeGraph, manifest: Manifest) -> Mapping[str, str]:
    """Group pipes by the layer (bronze, silver, …) of the entity they write."""
    entities = manifest.entities_by_id
    return {
        node.pipe_id: entities[node.output].layer
        for node in graph.nodes
        if node.output in entities and entities[node.output].layer
    }


def draw_graph(graph: PipeGraph, groups: Mapping[str, str] | None = None) -> Drawing:
    """A drawing of a graph: pipes, the entities between them, and the entities from outside.

    Args:
        graph: May have cycles.
        groups: Pipe id → title of its frame, as ``by_generation`` and ``by_layer`` give it; frames come
            in the order in which the titles do.
    """
    frames = groups or {}
    rank = {title: number for number, title in enumerate(dict.fromkeys(frames.values()))}
    outside = {entity_id: Box(entity_id, entity=True) for entity_id in graph.external_inputs}
    pipes = {
        node.pipe_id: Box(node.pipe_id, frames.get(node.pipe_id, ""), stream=node.streaming)
        for node in sorted(graph.nodes, key=lambda node: rank.get(frames.get(node.pipe_id, ""), -1))
    }
    arrows = [
        Arrow(box, pipes[reader])
        for entity_id, box in outside.items()
        for reader in graph.external_inputs[entity_id]
    ]
    arrows += [
        Arrow(
            pipes[edge.from_pipe],
            pipes[edge.to_pipe],
            ", ".join(edge.entities),
            "dotted" if edge.ordering else "solid",
        )
        for edge in graph.edges
    ]
    return Drawing((*outside.values(), *pipes.values()), tuple(arrows))


def draw_plan(plan: ExecutionPlan) -> Drawing:
    """A drawing of a plan: what waits for what, framed by generation.

    Solid arrows carry data, dotted ones only say which starts first, bold ones say that the checkpoint
    of a stream follows what another stream writes.
    """
    streams = set(plan.streams)
    boxes = {
        pipe_id: Box(pipe_id, f"generation {number}", stream=pipe_id in streams)
        for pipe_id, number in plan.generation_of.items()
    }
    arrows = [
        Arrow(boxes[other], boxes[pipe_id], style="dotted")
        if other in plan.ordering.get(pipe_id, ()) or other in streams
        else Arrow(boxes[other], boxes[pipe_id], plan.writes.get(other, ""))
        for pipe_id, before in plan.predecessors.items()
        for other in before
    ]
    arrows += [
        Arrow(boxes[each.upstream], boxes[each.downstream], each.entity, "bold") for each in plan.checkpoints
    ]
    return Drawing(tuple(boxes.values()), tuple(arrows))


def mermaid(drawing: Drawing) -> str:
    """A drawing as a Mermaid flowchart."""

    def box(id_: str, box: Box) -> str:
        label = f'"{_mermaid(box.name)}"'
        if box.entity:
            return f"{id_}[({label})]"
        return f"{id_}([{label}])" if box.stream else f"{id_}[{label}]"

    lines = ["flowchart LR"]
    for number, (group, boxes) in enumerate(drawing.by_group().items()):
        shown = [box(id_, each) for id_, each in boxes]
        if group:
            lines.append(f'  subgraph g{number}["{_mermaid(group)}"]')
            lines += [f"    {line}" for line in shown]
            lines.append("  end")
        else:
            lines += [f"  {line}" for line in shown]
    ids = drawing.ids
    for arrow in drawing.arrows:
        label = f'|"{_mermaid(arrow.label)}"|' if arrow.label else ""
        lines.append(f"  {ids[arrow.start]} {_MERMAID_ARROWS[arrow.style]}{label} {ids[arrow.end]}")
    return "\n".join(lines) + "\n"


def dot(drawing: Drawing) -> str:
    """A drawing as a Graphviz digraph."""

    def box(id_: str, box: Box) -> str:
        shape = "cylinder" if box.entity else ("oval" if box.stream else "box")
        return f"{id_} [label={_quoted(box.name)}, shape={shape}];"

    lines = ["digraph pipes {", "  rankdir=LR;"]
    for number, (group, boxes) in enumerate(drawing.by_group().items()):
        shown = [box(id_, each) for id_, each in boxes]
        if group:
            lines += [f"  subgraph cluster_{number} {{", f"    label={_quoted(group)};"]
            lines += [f"    {line}" for line in shown]
            lines.append("  }")
        else:
            lines += [f"  {line}" for line in shown]
    ids = drawing.ids
    for arrow in drawing.arrows:
        label = f"label={_quoted(arrow.label)}, " if arrow.label else ""
        lines.append(f"  {ids[arrow.start]} -> {ids[arrow.end]} [{label}style={arrow.style}];")
    return "\n".join([*lines, "}"]) + "\n"


def graph_text(graph: PipeGraph) -> str:
    """A graph as a table: each pipe, what it reads (and from whom) and writes."""
    rows = []
    for node in graph.nodes:
        reads = []
        for input_id, sources in node.reads.items():
            above = set(graph.upstream(node.pipe_id))
            writers = [w for s in sources for w in graph.writers_of(s) if w in above]
            reads.append(f"{input_id} ({', '.join(dict.fromkeys(writers))})" if writers else input_id)
        rows.append((node.pipe_id, ", ".join(reads), node.output))
    return _table(("pipe", "reads (from)", "writes"), rows)


def graph_data(graph: PipeGraph) -> dict[str, Any]:
    """A graph as plain dicts and lists, ready for JSON."""
    return {
        "nodes": [
            {
                "pipe_id": node.pipe_id,
                "reads": {input_id: list(sources) for input_id, sources in node.reads.items()},
                "writes": node.output,
                "streaming": node.streaming,
            }
            for node in graph.nodes
        ],
        "edges": [
            {
                "from": edge.from_pipe,
                "to": edge.to_pipe,
                "entities": list(edge.entities),
                "ordering": edge.ordering,
            }
            for edge in graph.edges
        ],
        "external_inputs": {id_: list(readers) for id_, readers in graph.external_inputs.items()},
    }


def plan_text(plan: ExecutionPlan) -> str:
    """A plan as a table: generation, pipe, how it runs, what it writes and waits for; then warnings."""
    streams = set(plan.streams)
    widest = max(map(len, plan.generations), default=0)
    head = (
        f"{plan.strategy} plan: {_count(len(plan.pipe_ids), 'pipe')} in "
        f"{_count(len(plan.generations), 'generation')}, at most {widest} at once"
    )
    rows = [
        (
            str(number),
            pipe_id,
            "stream" if pipe_id in streams else "batch",
            plan.writes.get(pipe_id, ""),
            ", ".join(_waits(plan, pipe_id)),
        )
        for number, generation in enumerate(plan.generations)
        for pipe_id in generation
    ]
    parts = [head, "", _table(("gen", "pipe", "runs as", "writes", "waits for"), rows).rstrip("\n")]
    if plan.checkpoints:
        parts += ["", "Checkpoints:"]
        parts += [
            f"  {each.downstream} follows {each.entity} of {each.upstream}" for each in plan.checkpoints
        ]
    if plan.warnings:
        parts += ["", "Warnings:"]
        parts += [textwrap.indent(warning, "  ") for warning in plan.warnings]
    return "\n".join(parts) + "\n"


def _waits(plan: ExecutionPlan, pipe_id: str) -> Iterator[str]:
    only_after = plan.ordering.get(pipe_id, ())
    for other in plan.predecessors.get(pipe_id, ()):
        yield f"{other} (order only)" if other in only_after else other


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _mermaid(text: str) -> str:
    return "".join(_MERMAID_CODES.get(char, char) for char in text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'
