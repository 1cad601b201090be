"""The files of a Dagster project around a Kindling app that is there. Plain text; writes only what is new."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from kindling_dagster import __version__
from kindling_dagster.errors import ProjectError

COMPONENT = "kindling_dagster.KindlingProjectComponent"


@dataclass(frozen=True)
class NewProject:
    """A Dagster project to be made.

    Args:
        directory: Where.
        app: The app: its directory, its app.py, or a package directory.
        app_name: What the app is called.
        environment: The Kindling environment whose settings apply.
        options: Further attributes of the component, such as ``packages``.
        java: Whether the project brings its own Java, as a package.
    """

    directory: Path
    app: Path
    app_name: str
    environment: str = "local"
    options: Mapping[str, Any] = field(default_factory=dict)
    java: bool = False

    @property
    def module(self) -> str:
        """The name of its Python package."""
        return _identifier(self.directory.name, "kindling_project")

    @property
    def home(self) -> Path:
        """Where Dagster keeps what it knows."""
        return self.directory / ".dagster_home"


def component_attributes(app: Path, project_root: Path, environment: str) -> dict[str, Any]:
    """The attributes of a component for ``app``, whose path counts from the Dagster project's directory."""
    return {"project": from_root(app, project_root), "environment": environment}


def from_root(path: Path, project_root: Path) -> str:
    """A path as a ``defs.yaml`` states it, from the Dagster project's directory."""
    # By real paths, or the way between them could lead through a link elsewhere.
    way = Path(os.path.relpath(path.resolve(), project_root.resolve())).as_posix()
    return "{{ project_root }}" if way == "." else "{{ project_root }}/" + way


def project_files(new: NewProject) -> dict[str, str]:
    """The project's files by their path in it."""
    module = new.module
    attributes = {**component_attributes(new.app, new.directory, new.environment), **new.options}
    return {
        "pyproject.toml": _PYPROJECT.format(
            name=module.replace("_", "-"),
            module=module,
            app=new.app_name.replace('"', "'"),
            package=f"kindling-dagster{'[java]' if new.java else ''}>={__version__}",
        ),
        "README.md": _README.format(app=new.app_name, module=module, place=_identifier(new.app_name, "app")),
        ".env": _ENV.format(home=new.home),
        ".gitignore": ".env\n.dagster_home/\n.local_defs_state/\n.venv/\n__pycache__/\n",
        ".dagster_home/dagster.yaml": "# Settings of this Dagster instance: https://docs.dagster.io/deployment/oss\n",
        f"{module}/__init__.py": "",
        f"{module}/definitions.py": _DEFINITIONS.format(app=new.app_name.replace('"', "'")),
        f"{module}/defs/__init__.py": "",
        f"{module}/defs/{_identifier(new.app_name, 'app')}/defs.yaml": _defs_yaml(attributes),
    }


def write_project(new: NewProject) -> list[Path]:
    """Write the project; gives its files.

    Raises:
        ProjectError: One of its files is there already; nothing is written then.
    """
    files = {new.directory / name: text for name, text in project_files(new).items()}
    there = [path for path in files if path.exists()]
    if there:
        names = ", ".join(path.relative_to(new.directory).as_posix() for path in there)
        raise ProjectError(
            f"{new.directory} has files that would be overwritten: {names}.",
            "Name another directory with --output, or remove them.",
        )
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProjectError(f"{new.directory} cannot be written: {error}.") from error
    return list(files)


def _identifier(name: str, otherwise: str) -> str:
    """A name as Python takes it."""
    made = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()
    return f"_{made}" if made[:1].isdigit() else made or otherwise


def _defs_yaml(attributes: Mapping[str, Any]) -> str:
    stated = yaml.safe_dump({"attributes": dict(attributes)}, sort_keys=False, allow_unicode=True)
    return f"type: {COMPONENT}\n\n{stated}{_FURTHER}"


_FURTHER = """\

  # What else can be said here, all of it: docs/component.md of kindling-dagster.
  # select: ["silver.*", "gold.*"]
  # translation:
  #   group_name: "{{ entity.layer }}"
  # resource:
  #   parallel: true
  #   spark:
  #     spark.driver.memory: 4g
"""

_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "0.1.0"
description = "The Kindling app {app} in Dagster."
requires-python = ">=3.10,<3.14"
dependencies = ["{package}"]

[dependency-groups]
dev = ["dagster-webserver", "dagster-dg-cli"]

[tool.hatch.build.targets.wheel]
packages = ["{module}"]

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "{module}"

[tool.dagster]
module_name = "{module}.definitions"
code_location_name = "{module}"
"""

_DEFINITIONS = '''\
"""The Kindling app {app} in Dagster: everything in the folder defs, beside this file."""

from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
'''

_ENV = """\
# Where Dagster keeps runs, schedules and streams. Without it, each `dg dev` begins with nothing and forgets all.
DAGSTER_HOME="{home}"
"""

_README = """\
# {app} in Dagster

The Kindling app {app} as Dagster assets, by [kindling-dagster](https://pypi.org/project/kindling-dagster/). The app
itself is not changed, and is where it was: `{module}/defs/{place}/defs.yaml` says where.

```bash
dg dev             # or: dagster dev
```

Open the address that it prints, then **Lineage** and **Materialize all**. Without the UI:

```bash
dg list defs
dg launch --assets "*"
```

`.env` sets `DAGSTER_HOME`, where Dagster keeps its runs, schedules and the state of streams. It holds a path of this
machine and is not under version control; on another machine, set `DAGSTER_HOME` to an absolute path of a directory
that is there.

Building an image: record there what the app declares, so that loading the definitions starts nothing.

```bash
pip install -e .
dg utils refresh-defs-state
```
"""
