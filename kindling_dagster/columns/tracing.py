"""Follows a frame's columns down Spark's analysed plan to the columns of a pipe's inputs. Pure: the plan is JSON.

Catalyst gives each attribute an id (``exprId``) that stays the same wherever it is passed on, and a new one
wherever a value is computed. So ids of the inputs' columns, and for each new id the ids it is computed from,
are all it takes; only where columns are matched by position (a union, a reference to a common table expression)
the order of a node's output matters.

What filters and joins go by is no part of it: it decides which rows there are, not what stands in a column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Json = Mapping[str, Any]

CONSTANT: Final = "it is made of no column of an input"
_SEMI_JOINS: Final = ("LeftSemi$", "LeftAnti$")


@dataclass(frozen=True)
class Attribute:
    """A column of some node's output: its name and Catalyst's id."""

    name: str
    id: int


@dataclass(frozen=True)
class Source:
    """A column of an input entity."""

    entity_id: str
    column: str


@dataclass(frozen=True)
class ColumnLineage:
    """What the columns of a frame are made of.

    Args:
        columns: By column, the columns of inputs it is computed from, sorted.
        gaps: By column that is not among them, why it cannot be traced.
    """

    columns: Mapping[str, tuple[Source, ...]] = field(default_factory=dict)
    gaps: Mapping[str, str] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """The lineage as JSON."""
        return {
            "columns": {
                name: [[source.entity_id, source.column] for source in sources]
                for name, sources in self.columns.items()
            },
            "gaps": dict(self.gaps),
        }


@dataclass
class Node:
    """A node of a tree that Catalyst wrote as JSON: of a plan, or of an expression."""

    data: Json
    children: list[Node] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The class without its package."""
        return str(self.data["class"]).rpartition(".")[2]


def read_tree(nodes: Sequence[Json]) -> Node:
    """The tree that these nodes are in pre-order, each with its number of children."""
    root = Node(nodes[0])
    waiting = [(root, int(nodes[0]["num-children"]))]
    for data in nodes[1:]:
        while waiting[-1][1] == 0:
            waiting.pop()
        parent, left = waiting[-1]
        waiting[-1] = parent, left - 1
        node = Node(data)
        parent.children.append(node)
        waiting.append((node, int(data["num-children"])))
    return root


def leaves_of(root: Node) -> list[Node]:
    """The leaves of a plan, as Catalyst's ``collectLeaves`` gives them; those of subqueries are not among them."""
    return [node for node in _walk(root) if not node.children]


def output_of_leaf(leaf: Node) -> list[Attribute]:
    """The columns a leaf gives."""
    return _attributes(leaf.data.get("output"))


def trace(
    plan: Node,
    output: Sequence[Attribute],
    sources: Mapping[int, Source],
    leaf_entities: Mapping[int, str] | None = None,
) -> ColumnLineage:
    """What a frame's columns are made of.

    Args:
        plan: The frame's analysed plan.
        output: Its columns.
        sources: The inputs' columns by id.
        leaf_entities: Input entities by index of a leaf that reads one anew, under other ids (a self-join).
    """
    ids = _Ids(plan, dict(sources), leaf_entities or {})
    columns: dict[str, tuple[Source, ...]] = {}
    gaps: dict[str, str] = {}
    for attribute in output:
        found, reason = ids.origin(attribute.id)
        if reason or not found:
            gaps[attribute.name] = reason or CONSTANT
        else:
            columns[attribute.name] = tuple(sorted(found, key=lambda each: (each.entity_id, each.column)))
    return ColumnLineage(columns, gaps)


class _Ids:
    """Of which ids each id of a plan is computed."""

    def __init__(self, plan: Node, sources: dict[int, Source], leaf_entities: Mapping[int, str]) -> None:
        self._sources = sources
        self._made_of: dict[int, list[int]] = {}
        # Beside what it is anyway: a union's first side gives the ids, the other sides' values join it.
        self._joined_by: dict[int, list[int]] = {}
        self._opaque: dict[int, str] = {}
        self._cte: dict[int, Node] = {}
        self._take_leaves(plan, leaf_entities)
        self._take_plan(plan)

    def origin(self, start: int) -> tuple[set[Source], str]:
        """The sources behind an id, and why they are not all."""
        found: set[Source] = set()
        seen = {start}
        waiting = [start]
        while waiting:
            id_ = waiting.pop()
            following = list(self._joined_by.get(id_, ()))
            if id_ in self._sources:
                found.add(self._sources[id_])
            elif id_ in self._made_of:
                following += self._made_of[id_]
            else:
                return set(), self._opaque.get(id_, "the plan does not tell where it comes from")
            waiting += [each for each in following if each not in seen]
            seen.update(following)
        return found, ""

    def _take_leaves(self, plan: Node, entities: Mapping[int, str]) -> None:
        for index, leaf in enumerate(leaves_of(plan)):
            if index in entities:
                for attribute in output_of_leaf(leaf):
                    self._sources.setdefault(attribute.id, Source(entities[index], attribute.name))

    def _take_plan(self, plan: Node) -> None:
        nodes = list(_walk(plan))
        for node in nodes:
            if node.kind == "CTERelationDef":
                self._cte[int(node.data["id"])] = node.children[0]
        for node in nodes:
            for tree in _trees(node.data):
                self._take_expressions(tree)
        for node in nodes:
            self._take_node(node)

    def _take_expressions(self, tree: Node) -> None:
        for each in _walk(tree):
            for inner in _plans(each.data):
                self._take_plan(inner)
            if each.kind == "Alias":
                self._made_of.setdefault(_id(each.data), self._references(each))

    def _references(self, tree: Node) -> list[int]:
        """The ids an expression takes values of."""
        found: dict[int, None] = {}
        for each in _walk(tree):
            if each.kind == "AttributeReference":
                found[_id(each.data)] = None
            elif each.kind == "ScalarSubquery":
                for inner in _plans(each.data):
                    found.update(dict.fromkeys(attribute.id for attribute in self._output(inner)))
        return list(found)

    def _take_node(self, node: Node) -> None:
        match node.kind:
            case "Union":
                first, *others = [self._output(child) for child in node.children]
                for other in others:
                    for mine, theirs in zip(first, other, strict=False):
                        self._joined_by.setdefault(mine.id, []).append(theirs.id)
            case "Generate":
                made_of = self._references(read_tree(node.data["generator"]))
                for attribute in _attributes(node.data["generatorOutput"]):
                    self._made_of.setdefault(attribute.id, made_of)
            case "Expand":
                self._take_expand(node)
            case "CTERelationRef":
                below = self._cte.get(int(node.data["cteId"]))
                defined = [] if below is None else self._output(below)
                for mine, theirs in zip(_attributes(node.data["output"]), defined, strict=False):
                    if mine.id != theirs.id:
                        self._made_of.setdefault(mine.id, [theirs.id])
            case _:
                self._take_opaque(node)

    def _take_expand(self, node: Node) -> None:
        columns = _attributes(node.data["output"])
        projections = node.data.get("projections")
        if not projections:  # as Spark leaves them out for an unpivot
            self._take_opaque(node)
            return
        for projection in projections:
            for attribute, written in zip(columns, projection, strict=False):
                made_of = [id_ for id_ in self._references(read_tree(written)) if id_ != attribute.id]
                if attribute.id not in self._sources:
                    self._made_of.setdefault(attribute.id, []).extend(made_of)

    def _take_opaque(self, node: Node) -> None:
        """Columns that come out of a node in which they cannot be followed."""
        if node.children:
            reason = f"it comes out of {node.kind}, which does not say of which columns"
        else:
            reason = f"it is read from a {node.kind} that is no input of the pipe"
        for attribute in _attributes(node.data.get("output")):
            self._opaque.setdefault(attribute.id, reason)

    def _output(self, plan: Node) -> list[Attribute]:
        """A node's columns, in order."""
        node = plan
        while True:
            data = node.data
            match node.kind:
                case "Project":
                    return _named(data["projectList"])
                case "Aggregate":
                    return _named(data["aggregateExpressions"])
                case "Window":
                    return [*self._output(node.children[0]), *_named(data["windowExpressions"])]
                case "Generate":
                    return [*self._output(node.children[0]), *_attributes(data["generatorOutput"])]
                case "Join" if not str((data.get("joinType") or {}).get("object", "")).endswith(_SEMI_JOINS):
                    return [attribute for child in node.children for attribute in self._output(child)]
                case "WithCTE":
                    node = node.children[int(data["plan"])]
                    continue
            if "output" in data or not node.children:
                return _attributes(data.get("output"))
            node = node.children[0]


def _walk(root: Node) -> Iterator[Node]:
    """The node and all below it, in pre-order."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.children))


def _id(data: Json) -> int:
    return int(data["exprId"]["id"])


def _is_tree(value: object) -> bool:
    return (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "num-children" in value[0]
    )


def _trees(data: Json) -> Iterator[Node]:
    """The expressions in a plan node's fields, however deep in lists."""
    waiting: list[Any] = [value for value in data.values() if isinstance(value, list)]
    while waiting:
        value = waiting.pop()
        if _is_tree(value):
            yield read_tree(value)
        else:
            waiting.extend(each for each in value if isinstance(each, list))


def _plans(data: Json) -> list[Node]:
    """The plan inside a subquery."""
    plan = data.get("plan")
    return [read_tree(plan)] if isinstance(plan, list) and _is_tree(plan) else []


def _named(expressions: Iterable[Sequence[Json]]) -> list[Attribute]:
    """The columns that expressions with a name give: attributes and aliases."""
    return [
        Attribute(str(root.get("name", "")), _id(root))
        for root in (tree[0] for tree in expressions)
        if "exprId" in root
    ]


def _attributes(value: object) -> list[Attribute]:
    return _named(value) if isinstance(value, list) else []
