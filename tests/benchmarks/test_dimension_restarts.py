"""The measured table of what streams see of a dimension's change: how it is made."""

from __future__ import annotations

import pytest

from benchmarks.dimension_restarts import (
    BEGIN,
    CHANGES,
    END,
    READS,
    Outcome,
    between_markers,
    markdown,
    missed,
)

SEEN = Outcome("new")


@pytest.mark.parametrize(
    ("outcome", "seen", "text"),
    [
        (Outcome("new"), True, "new rows"),
        (Outcome("old"), False, "old rows"),
        (Outcome(""), False, "old rows"),
        (Outcome("new", columns=False), False, "new rows, old columns"),
        (Outcome(error="FileNotFoundException"), False, "fails (FileNotFoundException)"),
    ],
)
def test_outcomes(outcome: Outcome, seen: bool, text: str) -> None:
    assert (outcome.seen, str(outcome)) == (seen, text)


def test_what_auto_would_miss_is_found() -> None:
    delta, files = READS[0].name, next(read.name for read in READS if read.kind == "files")
    old = {**dict.fromkeys(CHANGES, SEEN), "rows are added": Outcome("old")}
    assert missed({delta: old, files: old}) == [f"{delta}: rows are added: old rows"]
    lines = markdown({delta: old, files: old}).splitlines()
    assert lines[2].startswith(f"| {delta} | old rows | new rows |")
    assert lines[3].startswith(f"| {files} | old rows: **restart** | new rows: **restart** |")


def test_between_markers() -> None:
    page = f"a\n{BEGIN}\nold\n{END}\nb"
    assert between_markers(page, "new") == f"a\n{BEGIN}\n\nnew\n\n{END}\nb"
    with pytest.raises(ValueError, match="no lines"):
        between_markers("a", "new")
