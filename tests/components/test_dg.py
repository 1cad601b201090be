"""`dg` itself, as a person types it, in a fresh project: it lists the component, scaffolds it, checks and lists what it gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from app_forms import ENTITY, PIPE, manifest_cache, small_app
from click.testing import CliRunner

from kindling_dagster.cli import main

__all__ = ["manifest_cache"]

# Five starts of `dg`: once is enough, whatever the versions of Python.
pytestmark = pytest.mark.e2e

COMPONENT = "kindling_dagster.KindlingProjectComponent"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dg project that has nothing in it yet, beside an app."""
    folder = tmp_path_factory.mktemp("dg")
    small_app(folder, {"entities/a.py": ENTITY, "pipes/a.py": PIPE}, name="shop")
    made = CliRunner().invoke(main, ["init", str(folder / "shop_app"), "-o", str(folder / "lake")])
    assert made.exit_code == 0, made.output
    shutil.rmtree(folder / "lake" / "lake" / "defs" / "shop_app")
    return folder / "lake"


def dg(project: Path, *words: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dg")), *words],
        cwd=project,
        env={**os.environ, "DAGSTER_HOME": str(project / ".dagster_home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_from_the_list_of_components_to_the_list_of_assets(project: Path) -> None:
    components = json.loads(dg(project, "list", "components", "--json"))["items"]
    (ours,) = [item for item in components if item["key"].endswith("KindlingProjectComponent")]
    assert ours["key"] == COMPONENT
    assert "Kindling app" in ours["summary"]

    dg(project, "scaffold", "defs", COMPONENT, "shop", "--project-path", "../shop_app")
    written = yaml.safe_load((project / "lake" / "defs" / "shop" / "defs.yaml").read_text())
    assert written == {
        "type": COMPONENT,
        "attributes": {"project": "{{ project_root }}/../shop_app", "environment": "local"},
    }
    assert "validated successfully" in dg(project, "check", "yaml")
    assert "loaded successfully" in dg(project, "check", "defs")
    listed: dict[str, Any] = json.loads(dg(project, "list", "defs", "--json"))
    assert {asset["asset_key"]: asset["group_name"] for asset in listed["assets"]} == {
        "bronze/a": "bronze",
        "silver/a": "silver",
    }
    assert "shop_app_all" in {job["name"] for job in listed["jobs"]}
