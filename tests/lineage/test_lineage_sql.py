from __future__ import annotations

from datetime import datetime, timezone

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.sql import (
    find_records_by_version,
    lineage_column,
    stale_version_report,
    version_adoption_report,
)

LONG_AGO = datetime(2026, 1, 1, tzinfo=timezone.utc)

REPORTS = {
    "find": lambda table, layer: find_records_by_version(table, "1.0", layer=layer),
    "adoption": lambda table, layer: version_adoption_report(table, layer=layer),
    "stale": lambda table, layer: stale_version_report(table, "1.0", LONG_AGO, layer=layer),
}


def parsed(sql: str) -> exp.Expression:
    (statement,) = sqlglot.parse(sql, dialect="spark")
    assert statement is not None
    return statement


@pytest.mark.parametrize(
    ("table", "layer", "column"),
    [
        ("silver.orders", None, "_silver_lineage"),
        ("main.gold.delays", None, "_gold_lineage"),
        ("/data/tables/bronze/flights", None, "_bronze_lineage"),
        ("/data/tables/silver.orders", None, "_silver_lineage"),
        ("s3://bucket/lake/gold/x", None, "_gold_lineage"),
        ("/data/silver/gold/x", None, "_gold_lineage"),
        ("orders", "silver", "_silver_lineage"),
        ("silver.orders", "gold", "_gold_lineage"),
        ("orders", "mart", "_mart_lineage"),
    ],
)
@pytest.mark.parametrize("report", REPORTS)
def test_the_layer_is_said_or_told_by_the_name(
    report: str, table: str, layer: str | None, column: str
) -> None:
    statement = parsed(REPORTS[report](table, layer))
    names = {identifier.name for identifier in statement.find_all(exp.Identifier)}
    assert {name for name in names if name.endswith("_lineage")} <= {column}
    assert column in statement.sql(dialect="spark")


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("table", ["", " ", ".", "a..b", "a.b.c.d", "orders"])
def test_a_table_without_name_or_layer_is_refused(report: str, table: str) -> None:
    with pytest.raises(LineageError):
        REPORTS[report](table, "silver" if table != "orders" else None)


def test_a_layer_needs_a_name() -> None:
    with pytest.raises(LineageError):
        lineage_column(" ")


def test_the_question_for_rows_of_a_version_and_a_pipe() -> None:
    assert parsed(find_records_by_version("silver.orders", "0.3.1", "silver.clean")).sql(dialect="spark") == (
        "SELECT * FROM `silver`.`orders` WHERE `_silver_lineage`.`version` = '0.3.1' "
        "AND `_silver_lineage`.`pipe` = 'silver.clean'"
    )


def test_a_path_is_read_as_a_delta_table() -> None:
    assert "FROM `delta`.`/data/silver/orders`" in find_records_by_version("/data/silver/orders", "1")


text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=30)
hostile = st.one_of(
    text,
    st.sampled_from(
        [
            "'; DROP TABLE x; --",
            "`; DROP TABLE x; --",
            "\\",
            "\\'",
            "' OR 1=1 --",
            "a`b",
            'a"b',
            "/* */",
            "\n--",
        ]
    ),
)


@given(version=hostile, pipe=hostile)
def test_versions_and_pipes_stay_literals(version: str, pipe: str) -> None:
    statement = parsed(find_records_by_version("silver.orders", version, pipe))
    assert isinstance(statement, exp.Select)
    assert [literal.name for literal in statement.find_all(exp.Literal)] == [version, pipe]
    assert not list(statement.find_all(exp.Or, exp.Drop))


@given(table=hostile.filter(lambda name: "." not in name and "/" not in name and name.strip()))
@pytest.mark.parametrize("report", REPORTS)
def test_a_table_stays_one_name(report: str, table: str) -> None:
    statement = parsed(REPORTS[report](table, "silver"))
    assert isinstance(statement, exp.Select)
    (found,) = statement.find_all(exp.Table)
    assert found.name == table


@given(layer=hostile.filter(lambda name: name.strip()))
def test_a_layer_stays_one_name(layer: str) -> None:
    statement = parsed(find_records_by_version("orders", "1", layer=layer))
    assert isinstance(statement, exp.Select)
    assert lineage_column(layer) in {identifier.name for identifier in statement.find_all(exp.Identifier)}


@given(current=hostile)
def test_the_current_version_stays_a_literal(current: str) -> None:
    statement = parsed(stale_version_report("silver.orders", current, LONG_AGO))
    assert isinstance(statement, exp.Select)
    assert current in [literal.name for literal in statement.find_all(exp.Literal)]
