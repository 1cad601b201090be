"""What all commands share: the options that say which app, and errors on the terminal."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from rich.console import Console

from kindling_dagster.errors import KindlingDagsterError
from kindling_dagster.project import KindlingProject

_APP_FILES = ("app.yaml", "app.py", "lake-reqs.txt")

Command = TypeVar("Command", bound=Callable[..., Any])


class CommandFailed(click.ClickException):
    """An error of ours on the terminal: what happened, then what to do."""

    def __init__(self, error: KindlingDagsterError) -> None:
        super().__init__(error.message)
        self.suggestion = error.suggestion

    def show(self, file: Any = None) -> None:  # noqa: ARG002
        """Print it to the error output."""
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"[bold red]Error:[/] {plain(self.message)}")
        if self.suggestion:
            console.print(f"  [bold]→[/] {plain(self.suggestion)}")


def plain(text: str) -> str:
    """Text that rich must not read as markup."""
    return text.replace("[", r"\[")


def _is_only_the_default(app: Path) -> bool:
    """Whether nobody named the app and the current directory is none, so that a manifest stands alone."""
    source = click.get_current_context().get_parameter_source("app")
    return source is ParameterSource.DEFAULT and not any((app / name).exists() for name in _APP_FILES)


def app_options(command: Command) -> Command:
    """The options that say which app; the command gets a ``project``."""

    @click.argument("app", default=".", type=click.Path(path_type=Path))
    @click.option("--environment", "-e", default="local", show_default=True, help="Kindling environment.")
    @click.option("--config-dir", type=click.Path(path_type=Path), help="Shared settings overlays.")
    @click.option("--package", "packages", multiple=True, help="Package to register; can be repeated.")
    @click.option("--manifest", "manifest_file", type=click.Path(path_type=Path), help="Read this manifest.")
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        app: Path,
        environment: str,
        config_dir: Path | None,
        packages: tuple[str, ...],
        manifest_file: Path | None,
        **kwargs: Any,
    ) -> Any:
        try:
            project = KindlingProject(
                None if manifest_file is not None and _is_only_the_default(app) else app,
                environment=environment,
                config_dir=config_dir,
                packages=packages,
                manifest=manifest_file,
            )
            return command(*args, project=project, **kwargs)
        except KindlingDagsterError as error:
            raise CommandFailed(error) from error

    return wrapped  # type: ignore[return-value]  # click's decorators keep the signature
