"""Columns followed down plans that Spark 3.5 and 4.1 wrote, as a table. The plans are in plans.json, cut to what is read.

They were made of two tables: ``a`` (id, k, v) and ``b`` (id, name, tags).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from kindling_dagster.columns.spark_plan import parse_output
from kindling_dagster.columns.tracing import CONSTANT, Attribute, ColumnLineage, Source, read_tree, trace

PLANS = json.loads((Path(__file__).parent / "plans.json").read_text())
ALL_OF_A = {"id": "a.id", "k": "a.k", "v": "a.v"}
NO_INPUT = "it is read from a LogicalRelation that is no input of the pipe"


def unsaid(node: str) -> str:
    return f"it comes out of {node}, which does not say of which columns"


def traced(spark: str, name: str, leaves: dict[int, str] | None = None) -> ColumnLineage:
    plans = PLANS[spark]
    sources = {
        attribute.id: Source(table, attribute.name)
        for table in "ab"
        for attribute in parse_output(plans[table]["output"], plans[table]["columns"])
    }
    found = plans[name]
    output = parse_output(found["output"], found["columns"])
    return trace(read_tree(found["plan"]), output, sources, leaves)


@pytest.mark.parametrize("spark", ["3.5", "4.1"])
@pytest.mark.parametrize(
    ("name", "columns", "gaps"),
    [
        ("a", ALL_OF_A, {}),
        ("join", {"id": "a.id", "K": "a.k", "w": "a.v", "name": "b.name"}, {}),
        ("full", {"id": "a.id b.id", "k": "a.k", "v": "a.v", "name": "b.name", "tags": "b.tags"}, {}),
        ("agg", {"k": "a.k", "v": "a.v"}, {"n": CONSTANT}),
        ("union", {"id": "a.id b.id", "k": "a.k b.name"}, {}),
        ("unionByName", {"id": "a.id b.id", "k": "a.k", "v": "a.v", "name": "b.name", "tags": "b.tags"}, {}),
        ("window", {**ALL_OF_A, "r": "a.k a.v", "s": "a.k a.v"}, {}),
        ("explode", {"id": "b.id", "tag": "b.tags"}, {}),
        ("rollup", {"k": "a.k", "v": "a.v"}, {}),
        # common table expressions, temp views, a subquery that reads a table once more
        ("sql", {"id": "a.id", "k": "a.k"}, {"m": NO_INPUT}),
        ("dropdup", ALL_OF_A, {}),
        ("cached", ALL_OF_A, {"z": CONSTANT}),
        ("pandas", {}, {"id": unsaid("MapInPandas")}),
        ("group_pandas", {}, dict.fromkeys(("id", "q"), unsaid("FlatMapGroupsInPandas"))),
        ("udf", {**ALL_OF_A, "u": "a.k"}, {}),
        ("intersect", {"id": "a.id"}, {}),
        ("except", {"id": "a.id"}, {}),
        ("pivot", {"id": "a.id", "x": "a.k a.v", "y": "a.k a.v"}, {}),
        ("struct", {"k": "a.id a.k", "s": "a.id a.k"}, {}),
        ("created", {}, {"id": "it is read from a LogicalRDD that is no input of the pipe"}),
        ("rdd", ALL_OF_A, {}),
        ("unpivot", {"id": "a.id"}, dict.fromkeys(("var", "val"), unsaid("Expand"))),
        ("path", {}, dict.fromkeys(("id", "k", "v"), NO_INPUT)),
    ],
)
def test_plans(spark: str, name: str, columns: dict[str, str], gaps: dict[str, str]) -> None:
    found = traced(spark, name)
    told = {
        column: " ".join(f"{source.entity_id}.{source.column}" for source in sources)
        for column, sources in found.columns.items()
    }
    assert (told, dict(found.gaps)) == (columns, gaps)


@pytest.mark.parametrize("spark", ["3.5", "4.1"])
def test_a_table_that_is_read_under_other_ids_is_found_by_its_leaf(spark: str) -> None:
    assert traced(spark, "selfjoin").gaps == {"rv": NO_INPUT}
    found = traced(spark, "selfjoin", {1: "a"})
    assert (found.columns["rv"], dict(found.gaps)) == ((Source("a", "v"),), {})


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("", [], []),
        ("id#3L, name#14", ["id", "name"], [("id", 3), ("name", 14)]),
        ("a, b#1, b#2L, x#9, #3", ["a, b", "b", "x#9, "], [("a, b", 1), ("b", 2), ("x#9, ", 3)]),
        ("at#7-T5000ms, v#8", ["at", "v"], [("at", 7), ("v", 8)]),
    ],
)
def test_ids_in_texts(text: str, names: list[str], expected: list[tuple[str, int]]) -> None:
    assert parse_output(text, names) == [Attribute(*each) for each in expected]


def test_a_text_of_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="no id of the column name"):
        parse_output("id#3L, nam#4", ["id", "name"])


def _attribute(id_: int) -> list[dict[str, Any]]:
    return [{"class": "x.AttributeReference", "num-children": 0, "name": f"c{id_}", "exprId": {"id": id_}}]


def _alias(id_: int, of: int) -> list[dict[str, Any]]:
    head = {"class": "x.Alias", "num-children": 1, "name": f"c{id_}", "exprId": {"id": id_}}
    return [head, *_attribute(of)]


def test_a_plan_of_thousands_of_nodes_is_followed_without_deep_recursion() -> None:
    deep = 5_000
    plan: list[dict[str, Any]] = [
        {"class": "x.Project", "num-children": 1, "projectList": [_alias(number, number - 1)]}
        for number in range(deep, 1, -1)
    ]
    plan.append({"class": "x.LogicalRelation", "num-children": 0, "output": [_attribute(1)]})
    started = time.monotonic()
    found = trace(read_tree(plan), [Attribute("z", deep)], {1: Source("a", "id")})
    assert found.columns == {"z": (Source("a", "id"),)}
    assert time.monotonic() - started < 20


def test_a_circle_of_unions_ends() -> None:
    """A frame joined with itself: the second side's column is made of the first's, and joins it."""
    plan = [
        {"class": "x.Union", "num-children": 2},
        {"class": "x.LogicalRelation", "num-children": 0, "output": [_attribute(1)]},
        {"class": "x.Project", "num-children": 1, "projectList": [_alias(2, 1)]},
        {"class": "x.LogicalRelation", "num-children": 0, "output": [_attribute(1)]},
    ]
    found = trace(read_tree(plan), [Attribute("c1", 1)], {1: Source("a", "id")})
    assert found.columns == {"c1": (Source("a", "id"),)}
