"""docs/plan.md: every object, signal and test file that it names is there; no part of the plan is left out."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kindling_dagster.signals.catalog import get_all_signals

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
SECTIONS = {1: 5, 2: 8, 3: 8, 4: 6, 5: 5}
"""How many sections each phase of the plan has."""


class Row(NamedTuple):
    section: str
    line: str
    code: list[str]
    tests: list[str]


def _row(text: str) -> Row:
    section, line, code, tests, _ = (cell.strip() for cell in text[1:-1].split("|"))
    return Row(section, line, re.findall(r"`([\w.]+)`", code), re.findall(r"`([\w./]+)`", tests))


ROWS = [_row(line) for line in PAGE.splitlines() if re.match(r"\| \d\.\d \|", line)]
NAMES = sorted({name for row in ROWS for name in row.code})


def _found(name: str) -> Any:
    """What a dotted name below the package is: the longest part that is a module, then attributes."""
    parts = ["kindling_dagster", *name.split(".")]
    for length in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if not ".".join(parts[:length]).startswith(error.name or "?"):
                raise
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return found
    raise AssertionError(name)


def test_every_section_of_the_plan_is_there() -> None:
    told = {row.section for row in ROWS}
    assert told == {f"{phase}.{number}" for phase, last in SECTIONS.items() for number in range(1, last + 1)}


@pytest.mark.parametrize("name", NAMES)
def test_a_named_object_exists(name: str) -> None:
    assert _found(name) is not None


def test_every_line_has_a_test_that_exists() -> None:
    assert [row.line for row in ROWS if not row.tests] == []
    files = {file for row in ROWS for file in row.tests}
    assert sorted(file for file in files if not (ROOT / file).is_file()) == []


@pytest.mark.parametrize(
    "row", [row for row in ROWS if re.match(r"signals? `", row.line)], ids=lambda r: r.line[:40]
)
def test_signals_are_emitted_by_what_the_line_names(row: Row) -> None:
    signals = set(re.findall(r"`(\w+\.\w+)`", row.line))
    emitted = {signal for name in row.code for signal in _found(name)}
    assert signals
    assert signals <= emitted
    assert signals <= set(get_all_signals())


def test_only_lines_about_tests_and_pages_name_no_code() -> None:
    without = [row.section for row in ROWS if not row.code]
    assert set(without) <= {"1.5", "2.8", "3.8", "4.6", "5.1", "5.2", "5.3"}
