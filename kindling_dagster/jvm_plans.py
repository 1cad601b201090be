"""Reads what a frame is made of out of Spark's analysed plan, for which PySpark has no public way but text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class PlanNode:
    """One operation of a query's plan: its name, and the condition of a join as Spark writes it."""

    name: str
    condition: str = ""


def nodes_above(frame: DataFrame, alias: str) -> tuple[PlanNode, ...]:
    """What a frame does to each part of it that has this alias, from the outside in; nothing where no part has.

    Args:
        frame: Any frame of a classic session; nothing runs.
        alias: As given to ``DataFrame.alias``.
    """
    found: dict[PlanNode, None] = {}
    path: list[PlanNode] = []

    def walk(node: Any) -> None:
        name = str(node.nodeName())
        if name == "SubqueryAlias" and node.alias() == alias:
            found.update(dict.fromkeys(path))
            return
        condition = node.condition().toString() if name == "Join" else ""
        path.append(PlanNode(name, condition))
        children = node.children()
        for number in range(children.size()):
            walk(children.apply(number))
        path.pop()

    walk(frame._jdf.queryExecution().analyzed())
    return tuple(found)
