"""Mistakes that let the rest load: each is named, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from app_forms import ENTITY, PIPE, manifest_cache, quick, small_app

from kindling_dagster.problems import signature_mismatch
from kindling_dagster.project import KindlingProject

__all__ = ["manifest_cache", "quick"]

pytestmark = pytest.mark.usefixtures("quick")

EXTRA = """
from kindling.data_entities import DataEntities
DataEntities.sql_entity(entityid="v.sql", name="v", sql="SELECT 1")
DataEntities.entity(entityid="s.scd", name="s", merge_columns=["id"], tags={"scd.type": "2"}, schema=None)
DataEntities.entity(entityid="s.odd", name="odd", merge_columns=[], tags={"provider_type": "oracle"}, schema=None)
"""

CASES: list[tuple[str, dict[str, str], str, str, list[str]]] = [
    (
        "undeclared input",
        {"pipes/a.py": PIPE.replace('"bronze.a"', '"raw.other"').replace("bronze_a", "raw_other")},
        "error",
        "a",
        ["reads entity 'raw.other'", "not declared", "Declare it"],
    ),
    (
        "misspelt output",
        {"pipes/a.py": PIPE.replace('"silver.a"', '"silver.aa"')},
        "error",
        "a",
        ["writes entity 'silver.aa'", "Did you mean 'silver.a'?"],
    ),
    (
        "wrong parameter",
        {"pipes/a.py": PIPE.replace("def a(bronze_a)", "def a(df)")},
        "error",
        "a",
        ["no parameter 'bronze_a'", "'df'", "bronze_a"],
    ),
    (
        "needs more",
        {"pipes/a.py": PIPE.replace("def a(bronze_a)", "def a(bronze_a, other)")},
        "error",
        "a",
        ["nothing is given for its parameter 'other'"],
    ),
    (
        "added input not taken",
        {
            "pipes/a.py": PIPE
            + 'DataPipes.extend("a", add_inputs=["silver.a"], transform=lambda previous: previous)\n'
        },
        "error",
        "a",
        ["no parameter 'silver_a'"],
    ),
    (
        "pending clone",
        {"pipes/b.py": "from kindling.data_pipes import DataPipes\nDataPipes.clone('b', from_pipe='nope')\n"},
        "error",
        "b",
        ["waiting for 'nope'", "datapipes:"],
    ),
    (
        "pending extension",
        {
            "entities/x.py": "from kindling.data_entities import DataEntities\nDataEntities.extend('x', tags={'a': 'b'})\n"
        },
        "error",
        "x",
        ["extension declared before", "dataentities:"],
    ),
    (
        "writes SQL",
        {"pipes/a.py": PIPE.replace("silver.a", "v.sql")},
        "error",
        "a",
        ["SQL entity", "of its own"],
    ),
    (
        "writes a companion",
        {"pipes/a.py": PIPE.replace("silver.a", "s.scd.current")},
        "error",
        "a",
        ["current rows", "Write 's.scd' instead"],
    ),
    ("unknown provider", {}, "error", "s.odd", ["'oracle'", "does not know"]),
    (
        "unreadable SQL",
        {
            "pipes/v.py": "from kindling.data_pipes import DataPipes\nDataPipes.view(pipeid='v', "
            "input_entity_ids=['bronze.a'], output_entity_id='silver.a', sql_file='gone.sql')\n"
        },
        "error",
        "v",
        ["gone.sql", "No such file"],
    ),
    ("package missing", {"lake-reqs.txt": "tiny\nnot-there\n"}, "warning", "not_there", ["not installed"]),
]


@pytest.mark.parametrize(
    ("modules", "severity", "subject", "told"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_problems(
    tmp_path: Path, modules: dict[str, str], severity: str, subject: str, told: list[str]
) -> None:
    app = small_app(tmp_path, {"entities/e.py": ENTITY, "entities/extra.py": EXTRA, **modules})
    problems = [p for p in KindlingProject(app).manifest.problems if p.subject == subject]
    assert [problem.severity for problem in problems] == [severity]
    text = f"{problems[0].message} {problems[0].suggestion}"
    assert [part for part in told if part not in text] == []


def test_an_app_that_declares_nothing_says_so(tmp_path: Path) -> None:
    (problem,) = KindlingProject(small_app(tmp_path, {})).manifest.problems
    assert (problem.severity, "declares no entity" in problem.message) == ("warning", True)


def test_what_is_right_has_no_problems(tmp_path: Path) -> None:
    modules = {"entities/e.py": ENTITY, "pipes/a.py": PIPE + 'DataPipes.extend("a", tags={"x": "y"})\n'}
    assert KindlingProject(small_app(tmp_path, modules)).manifest.problems == ()


def _takes_any(**frames: Any) -> None: ...
def _takes_default(a: Any, b: int = 1) -> None: ...
def _takes_keyword(*, a: Any) -> None: ...
def _takes_first(frame: Any, a: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "keywords", "leading", "fits"),
    [
        (_takes_any, ("a", "b"), 0, True),
        (_takes_default, ("a",), 0, True),
        (_takes_default, ("a", "c"), 0, False),
        (_takes_default, ("b",), 0, False),
        (_takes_keyword, ("a",), 0, True),
        (_takes_keyword, (), 0, False),
        (_takes_first, ("a",), 1, True),
        (_takes_first, ("a",), 0, False),
        (len, ("a",), 0, False),
    ],
)
def test_signatures(
    function: Callable[..., Any], keywords: tuple[str, ...], leading: int, fits: bool
) -> None:
    wrong = signature_mismatch(function, keywords, leading)
    assert (wrong == "") is fits
    if not leading:
        # What we say is what Python does.
        import inspect

        try:
            inspect.signature(function).bind(**dict.fromkeys(keywords))
        except TypeError:
            assert not fits
        else:
            assert fits
