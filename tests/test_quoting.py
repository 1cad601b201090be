"""Names in SQL text come back as they are, whatever they hold."""

from __future__ import annotations

import pytest
from sqlglot import exp, parse_one

from kindling_dagster.quoting import backticked, double_quoted

NAMES = ["id", "a b", "a`b", 'a"b', "``", '"', "select", "a.b", "{a}", "ä"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("quote", "dialect"), [(backticked, "spark"), (double_quoted, "postgres")])
def test_a_name_is_read_back_as_it_was(quote: object, dialect: str, name: str) -> None:
    found = parse_one(f"SELECT {quote(name)} FROM t", dialect=dialect)  # type: ignore[operator]
    assert found.find(exp.Column).name == name
