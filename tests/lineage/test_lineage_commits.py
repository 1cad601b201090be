from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_dagster.lineage.commits import CommitLineage, commit_lineage, user_metadata

CLEAN = CommitLineage("silver.clean", "silver.orders", "acme", "1.0", "run")
TOTAL = CommitLineage("gold.total", "gold.totals", "acme", "1.0", "run")


def test_each_entity_finds_its_own_writer() -> None:
    text = user_metadata([TOTAL, CLEAN])
    assert commit_lineage(text, "silver.orders") == CLEAN
    assert commit_lineage(text, "gold.totals") == TOTAL
    assert commit_lineage(text, "gold.others") is None


def test_nobody_writes_nothing() -> None:
    assert user_metadata([]) == ""


@pytest.mark.parametrize(
    "text", ["", "hello", "[]", "7", "null", '{"kindling": 3}', '{"kindling": [3]}', '{"other": []}']
)
def test_foreign_texts_say_nothing(text: str) -> None:
    assert commit_lineage(text, "silver.orders") is None


def test_what_is_missing_is_empty() -> None:
    text = json.dumps({"kindling": [{"entity": "silver.orders", "pipe": "p"}]})
    assert commit_lineage(text, "silver.orders") == CommitLineage("p", "silver.orders", "", "", "")


writers = st.builds(CommitLineage, *[st.text(max_size=20)] * 5)


@given(st.lists(writers, unique_by=lambda item: item.entity))
def test_what_was_written_is_read(writing: list[CommitLineage]) -> None:
    text = user_metadata(writing)
    for item in writing:
        assert commit_lineage(text, item.entity) == item
