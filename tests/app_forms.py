"""Apps of every form for the tests: copies of tests/apps, an app from Kindling's own scaffold, small ones from text."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import pytest
from fork_server import FORK_SERVER

from kindling_dagster.manifest import Manifest
from kindling_dagster.manifest_cache import CACHE_VARIABLE
from kindling_dagster.project import KindlingProject

APPS = Path(__file__).parent / "apps"

SECRETS = {
    "KITCHEN_API_TOKEN": "tok-7f3a9d51c2",
    "KITCHEN_GOLD_PATH": "/secret/place/for/gold",
    "KITCHEN_LOOKUP_PATH": "/secret/place/for/lookup.csv",
    "DYNAMIC_ROOT": "/secret/place/for/dynamic",
}
"""Values planted for the secrets of tests/apps; none may show up anywhere."""


@pytest.fixture(autouse=True, scope="session")
def manifest_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the test run's own."""
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(directory := tmp_path_factory.mktemp("manifests"))
    yield directory
    if before is None:
        os.environ.pop(CACHE_VARIABLE, None)
    else:
        os.environ[CACHE_VARIABLE] = before


def _answer(request: Mapping[str, Any], target: str, environment: Mapping[str, str]) -> None:
    # A child takes its parent's script for its main module (`pytest`, but not `python -m pytest`); Kindling
    # keeps its injector in the main module under which it was imported: the fork server's.
    if spawn.old_main_modules:
        sys.modules["__main__"] = spawn.old_main_modules[0]

    from kindling_dagster.recorder import main

    os.environ.clear()  # the fork server's is that of its own start
    os.environ.update(environment)

    asked = Path(target).with_name("request.json")
    asked.write_text(json.dumps(request))
    main(str(asked), target)


def quick_recorder(request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Does what ``project.run_recorder`` does, in a process forked off one that has imported Kindling already."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "response.json"
        child = FORK_SERVER.Process(target=_answer, args=(request, str(target), dict(os.environ)))
        child.start()
        child.join(seconds)
        assert child.exitcode == 0
        answer: dict[str, Any] = json.loads(target.read_text())
    return answer


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record in forked processes."""
    monkeypatch.setattr("kindling_dagster.project.run_recorder", quick_recorder)


@cache
def recorded(name: str, environment: str = "local") -> Manifest:
    """The manifest of an app below tests/apps, recorded once per test run."""
    return KindlingProject(APPS / name, environment=environment).manifest


def scaffold(directory: Path) -> Path:
    """A repository made by Kindling's CLI, unmodified, with a pipe added; gives the app's directory."""
    from click.testing import CliRunner
    from kindling_cli.cli import cli

    repository = directory / "sales-repo"
    package = repository / "packages" / "sales_core"
    for command in (
        ["repo", "init", "sales-repo", "--output-dir", str(repository), "--agents", "none"],
        ["package", "init", "sales-core", "--repo-root", str(repository), "--source", "pypi"],
        ["app", "init", "daily-orders", "--package", "sales-core", "--repo-root", str(repository)],
        [
            "package",
            "add",
            "pipe",
            "bronze.to_silver",
            "--inputs",
            "bronze.orders",
            "--package",
            str(package),
        ],
    ):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, result.output
    return repository / "apps" / "daily_orders"


def finished_scaffold(directory: Path) -> Path:
    """What the scaffold asks its user to do: declare the pipe's input, and write its function."""
    from click.testing import CliRunner
    from kindling_cli.cli import cli

    app = scaffold(directory)
    package = app.parents[1] / "packages" / "sales_core"
    command = ["package", "add", "entity", "bronze.orders", "--package", str(package)]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    pipe = package / "src" / "sales_core" / "pipes" / "bronze_to_silver.py"
    left = 'raise NotImplementedError("Implement transform_to_silver")'
    assert left in pipe.read_text()
    pipe.write_text(pipe.read_text().replace(left, "return bronze_orders"))
    return app


def dynamic(directory: Path) -> Path:
    """A copy of the dynamic app with its Delta table of definitions."""
    import pandas as pd
    from deltalake import write_deltalake

    app = directory / "dynamic"
    shutil.copytree(APPS / "dynamic", app)
    rows = {"source": ["raw.a", "raw.b"], "target": ["clean.a", "clean.b"], "key": ["id", "code"]}
    write_deltalake(str(app / "definitions"), pd.DataFrame(rows))
    return app


def small_app(directory: Path, modules: Mapping[str, str], name: str = "tiny") -> Path:
    """An app directory with one package ``name`` of the given modules (``pipes/a.py`` → source) and settings.

    Keys without a slash go into the app's own directory (``settings.yaml``, ``app.py``).
    """
    app = directory / f"{name}_app"
    package = app / "src" / name
    for part in ("entities", "pipes"):
        (package / part).mkdir(parents=True, exist_ok=True)
        (package / part / "__init__.py").touch()
    (package / "__init__.py").touch()
    (app / "lake-reqs.txt").write_text(f"{name}\n")
    for place, text in modules.items():
        path = package / place if "/" in place else app / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return app


ENTITY = """
from kindling.data_entities import DataEntities

for _id in ("bronze.a", "silver.a"):
    DataEntities.entity(entityid=_id, name=_id, merge_columns=["id"], tags={}, schema=None)
"""
"""A module that declares two entities."""

PIPE = """
from kindling.data_pipes import DataPipes


@DataPipes.pipe(
    pipeid="a", name="a", tags={}, input_entity_ids=["bronze.a"], output_entity_id="silver.a", output_type="delta"
)
def a(bronze_a):
    return bronze_a
"""
"""A module that declares a pipe between them."""
