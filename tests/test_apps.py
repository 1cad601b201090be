"""How apps are found: every layout Kindling's CLI takes, and what is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kindling_dagster.apps import locate_app
from kindling_dagster.errors import ProjectError

LAYOUTS: list[tuple[str, list[str], str, dict[str, Any]]] = [
    (
        "scaffold beside its packages",
        [
            "apps/x/app.yaml=name: my-x",
            "apps/x/app.py=",
            "apps/x/lake-reqs.txt=core-lib==1.2 # pinned",
            "packages/core_lib/src/core_lib/__init__.py=",
        ],
        "apps/x",
        {
            "name": "my-x",
            "form": "scaffold",
            "packages": ("core_lib",),
            "paths": ("apps/x", "packages/core_lib/src"),
        },
    ),
    (
        "scaffold with packages inside",
        ["x/app.yaml=name: x", "x/lake-reqs.txt=lib", "x/packages/lib/src/lib/__init__.py="],
        "x",
        {"form": "scaffold", "packages": ("lib",), "paths": ("x/packages/lib/src",)},
    ),
    (
        "entry point with src",
        ["x/app.py=def initialize(env): ...", "x/src/pkg/__init__.py="],
        "x",
        {"form": "entry_point", "app_py": "x/app.py", "paths": ("x", "x/src")},
    ),
    (
        "entry point inside its package",
        ["x/src/pkg/app.py=from other import initialize", "x/src/pkg/__init__.py="],
        "x",
        {"form": "entry_point", "app_py": "x/src/pkg/app.py", "paths": ("x/src",)},
    ),
    (
        "a file",
        ["x/start.py=initialize = print"],
        "x/start.py",
        {"form": "entry_point", "app_py": "x/start.py", "name": "x"},
    ),
    (
        "entry point named by app.yaml",
        ["x/app.yaml=entry_point: main.py", "x/main.py=", "x/app.py="],
        "x",
        {"form": "scaffold", "app_py": "x/main.py"},
    ),
    (
        "a package",
        ["x/src/pkg/__init__.py=", "x/src/pkg/pipes/__init__.py="],
        "x/src/pkg",
        {"form": "packages", "packages": ("pkg",), "paths": ("x/src",)},
    ),
    (
        "a package's project",
        ["x/src/pkg/__init__.py=", "x/src/pkg/entities/__init__.py="],
        "x",
        {"form": "packages", "packages": ("pkg",), "paths": ("x/src",)},
    ),
    (
        "a nested package",
        ["x/outer/__init__.py=", "x/outer/inner/__init__.py=", "x/outer/inner/pipes/a.py="],
        "x/outer/inner",
        {"form": "packages", "packages": ("outer.inner",), "paths": ("x",)},
    ),
    (
        "an installed package",
        ["x/app.yaml=name: x", "x/lake-reqs.txt=kindling\nnot-there-at-all"],
        "x",
        {"packages": ("kindling", "not_there_at_all"), "missing": ("not_there_at_all",), "paths": ()},
    ),
]


def build(directory: Path, files: list[str]) -> None:
    for file in files:
        name, _, text = file.partition("=")
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "given", "expected"), [case[1:] for case in LAYOUTS], ids=[c[0] for c in LAYOUTS]
)
def test_layouts(tmp_path: Path, files: list[str], given: str, expected: dict[str, Any]) -> None:
    build(tmp_path, files)
    layout = locate_app(tmp_path / given)
    found = {
        "name": layout.name,
        "form": layout.form,
        "packages": layout.packages,
        "missing": layout.missing_packages,
        "app_py": layout.app_py and layout.app_py.relative_to(tmp_path).as_posix(),
        "paths": tuple(path.relative_to(tmp_path).as_posix() for path in layout.python_paths),
    }
    assert {key: found[key] for key in expected} == expected


def test_packages_are_added_and_a_form_can_be_forced(tmp_path: Path) -> None:
    build(tmp_path, ["x/app.yaml=name: x", "x/lake-reqs.txt=one", "x/one/__init__.py=", "x/two/__init__.py="])
    layout = locate_app(tmp_path / "x", ["two", "one"], form="dynamic")
    assert (layout.packages, layout.form, layout.missing_packages) == (("one", "two"), "dynamic", ())


@pytest.mark.parametrize(
    ("files", "given", "form", "told"),
    [
        ([], "nowhere", None, ["nowhere", "does not exist"]),
        (["x/readme.md="], "x", None, ["no Kindling app", "packages="]),
        (
            ["x/apps/a/app.py=", "x/apps/b/app.py="],
            "x",
            None,
            ["several apps", "apps/a/app.py", "apps/b/app.py"],
        ),
        (["x/app.yaml=name: [", "x/app.py="], "x", None, ["app.yaml:1", "not valid YAML"]),
        (["x/app.py="], "x", "notebook", ["'notebook'", "scaffold"]),
    ],
)
def test_what_is_no_app_is_refused(
    tmp_path: Path, files: list[str], given: str, form: str | None, told: list[str]
) -> None:
    build(tmp_path, files)
    with pytest.raises(ProjectError) as caught:
        locate_app(tmp_path / given, form=form)
    assert [part for part in told if part not in str(caught.value)] == []
