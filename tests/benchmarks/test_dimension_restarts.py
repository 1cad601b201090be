"""The measured table of what streams see of a dimension's change: how it is made."""

from __future__ import annotations

import re
from pathlib import Path

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
PAGE = Path(__file__).parents[2] / "docs" / "dimensions.md"
CELL = re.compile(
    r"(?:(?P<value>new|old) rows(?P<old_columns>, old columns)?|fails \((?P<error>\w+)\))(?:: \*\*restart\*\*)?"
)


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


def test_the_page_has_the_table_as_it_is_made_and_nothing_is_missed() -> None:
    """Also after somebody has changed the script, the policy, or a cell by hand."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    table, _, measured = rest.partition(END)[0].strip().rpartition("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [name for name, *_ in rows] == [read.name for read in READS]
    outcomes = {name: dict(zip(CHANGES, map(outcome_of, cells), strict=True)) for name, *cells in rows}
    assert markdown(outcomes) == table
    assert missed(outcomes) == []
    assert re.fullmatch(r"Measured with pyspark [\d.]+, delta-spark [\d.]+\.", measured)


def outcome_of(cell: str) -> Outcome:
    """What a cell says."""
    found = CELL.fullmatch(cell)
    assert found, cell
    return Outcome(found["value"] or "", found["error"] or "", not found["old_columns"])
