"""What Dagster's tools find at the top of this repository."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml
from app_forms import manifest_cache, quick
from dagster import Definitions

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings this one
    import tomli as tomllib  # type: ignore[no-redef]

__all__ = ["manifest_cache", "quick"]

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("manifest_cache", "quick")
def test_the_module_of_the_demo_has_one_definitions() -> None:
    # Dagster refuses to load a module that has two.
    module = importlib.import_module(PYPROJECT["tool"]["dg"]["project"]["code_location_target_module"])
    assert [name for name, value in vars(module).items() if isinstance(value, Definitions)] == ["defs"]


def test_each_tool_calls_the_code_location_the_same() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))
    names = {
        PYPROJECT["tool"]["dg"]["project"]["code_location_name"],
        PYPROJECT["tool"]["dagster"]["code_location_name"],
        *(entry["python_file"]["location_name"] for entry in workspace["load_from"]),
    }
    assert names == {"demo"}


def test_dg_is_told_of_the_component() -> None:
    registered = PYPROJECT["project"]["entry-points"]["dagster_dg_cli.registry_modules"]
    for place in registered.values():
        assert "KindlingProjectComponent" in dir(importlib.import_module(place))
