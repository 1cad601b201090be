"""Two fingerprints compared, for a dimension that another process looks at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kindling_dagster.streaming.dimensions.fingerprint import Fingerprint
from kindling_dagster.streaming.dimensions.look import compare
from kindling_dagster.streaming.dimensions.model import Dimension

WATCHED = Dimension("ref.session", "memory", method="hash")
BEFORE = Fingerprint("hash", {"rows": 3, "digest": "a"}, "session", schema=("id: long",), rows=3)
CHANGES = [
    ({}, None, ""),
    ({"value": {"rows": 3, "digest": "b"}}, "data", "rows differ"),
    ({"schema": ("id: long", "x: string")}, "schema", "added x: string"),
    ({"schema": ()}, "schema", "removed id: long"),
    ({"schema": ("id: long!",), "value": 1}, "schema", "altered id: long → id: long!"),
    ({"table": "another"}, "replaced", "the table was created anew"),
]


@pytest.mark.parametrize(("changes", "expected", "reason"), CHANGES)
def test_what_changed(changes: dict[str, object], expected: str | None, reason: str) -> None:
    after = replace(BEFORE, **changes).to_text()  # type: ignore[arg-type]
    found = compare(WATCHED, BEFORE.to_text(), after)
    assert (found.change, found.reason, found.first, found.fingerprint) == (expected, reason, False, after)


@pytest.mark.parametrize("previous", [None, "nonsense", replace(BEFORE, method="hash(id)").to_text()])
def test_nothing_to_compare_with(previous: str | None) -> None:
    found = compare(WATCHED, previous, BEFORE.to_text())
    assert (found.change, found.first, found.rows) == (None, True, 3)


def test_one_that_the_host_spoiled() -> None:
    found = compare(WATCHED, BEFORE.to_text(), "nonsense")
    assert found.problem is not None
    assert (found.change, found.fingerprint) == (None, BEFORE.to_text())


def test_columns_in_another_order() -> None:
    two = replace(BEFORE, schema=("id: long", "x: string"))
    turned = replace(BEFORE, schema=("x: string", "id: long"))
    found = compare(WATCHED, two.to_text(), turned.to_text())
    assert (found.change, found.reason) == ("schema", "columns in another order")
