"""What a Spark driver elsewhere needs to run an app's pipes, as files to send there. Free of Dagster."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path

from kindling_dagster.errors import ProjectError
from kindling_dagster.project import KindlingProject

APP_FOLDER = "app"
"""The name under which the driver unpacks the app: ``--archives app.zip#app``."""
MANIFEST = "kindling-manifest.json"

_PACKAGE = Path(__file__).parents[1]
# Dagster's side of the package; the driver needs dagster-pipes alone.
_NOT_THERE = ("dagster", "dagster-pyspark", "dagster-deltalake", "alembic", "sqlalchemy", "rich")
_LEFT_OUT = ("__pycache__", "spark-warehouse", "metastore_db")
_DATA = "data"
"""A folder at the top of an app that holds what runs write; a package deeper down may have that name too."""


@dataclass(frozen=True)
class JobPackage:
    """The files of one package.

    Args:
        package: This package, for ``--py-files``.
        app: The app with its manifest, for ``--archives``.
        job: The script to submit.
        requirements: What must be installed on the driver, for pip.
    """

    package: Path
    app: Path
    job: Path
    requirements: Path


def build_package(project: KindlingProject, folder: Path) -> JobPackage:
    """Write the files into a folder, which is made where it is missing.

    Args:
        project: The app; its packages must lie below its directory.
        folder: Where to; files of the same names are replaced.

    Raises:
        ProjectError: The app has code outside its directory.
    """
    layout = project.layout
    outside = [path for path in layout.source_dirs if not path.is_relative_to(layout.root)]
    if outside:
        raise ProjectError(
            f"The app {project.name} has code outside {layout.root}: {', '.join(map(str, outside))}.",
            "Install that on the driver as a package, or give the directory that holds both.",
        )
    manifest = project.manifest
    folder.mkdir(parents=True, exist_ok=True)
    package, app = folder / "kindling_dagster.zip", folder / "app.zip"
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(_PACKAGE):
            archive.write(path, Path(_PACKAGE.name) / path.relative_to(_PACKAGE))
    with zipfile.ZipFile(app, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(layout.root):
            archive.write(path, path.relative_to(layout.root))
        archive.writestr(MANIFEST, manifest.to_json())
    job = folder / "kindling_job.py"
    shutil.copy(_PACKAGE / "remote" / "__main__.py", job)
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{line}\n" for line in _requirements()))
    return JobPackage(package, app, job, requirements)


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        # What is hidden belongs to this machine: ``.env`` with its secrets, ``.venv``, ``.git``.
        if any(part in _LEFT_OUT or part.startswith(".") for part in parts):
            continue
        if parts[0] == _DATA and not (root / _DATA / "__init__.py").is_file():
            continue
        if path.is_file():
            yield path


def _requirements() -> Iterable[str]:
    """The distributions the job side imports, in the versions that are installed here."""
    names = {_name(line) for line in requires("kindling-dagster") or () if "extra ==" not in line}
    # Spark and Delta are the cluster's own; it has the versions it has.
    for name in sorted(names - {*_NOT_THERE, "pyspark", "delta-spark"} | {"dagster-pipes"}):
        yield f"{name}=={version(name)}"


def _name(requirement: str) -> str:
    for mark in "<>=!~;[ ":
        requirement = requirement.split(mark)[0]
    return requirement
