"""The commands ``kindling-dagster engine start | stop | status | archive`` and ``remote package``. Only ``archive`` starts a JVM."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from kindling_dagster.class_archive import FOLDER_VARIABLE, make_archive
from kindling_dagster.cli_app import CommandFailed, app_options, plain
from kindling_dagster.engines.warm.process import ask, ensure
from kindling_dagster.engines.warm.spec import IDLE_SECONDS, WarmSpec, places, warm_folder
from kindling_dagster.errors import KindlingDagsterError
from kindling_dagster.project import KindlingProject
from kindling_dagster.remote.package import APP_FOLDER, MANIFEST, build_package
from kindling_dagster.spark import session_conf


@click.group()
def engine() -> None:
    """Warm processes, which keep Spark and an app up between runs."""


@engine.command()
@app_options
@click.option("--conf", "pairs", multiple=True, metavar="NAME=VALUE", help="Spark setting; can be repeated.")
@click.option(
    "--idle-minutes", default=IDLE_SECONDS / 60, show_default=True, help="End after so long without a run."
)
def start(project: KindlingProject, pairs: tuple[str, ...], idle_minutes: float) -> None:
    """Start the warm process of APP, where there is none; Spark comes with the first run.

    A run uses it when its resource has the same Spark settings.
    """
    conf: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--conf")
        conf[name] = value
    spec = WarmSpec.of(project, session_conf(conf), {}, idle_seconds=idle_minutes * 60)
    channel, place, started = ensure(spec)
    with closing(channel):
        channel.send({"ask": "status"})
        pid = channel.receive()["status"]["pid"]
    click.echo(f"{'Started' if started else 'Already there:'} process {pid}; its log is {place.log}")


@engine.command()
def archive() -> None:
    """Archive Spark's classes, so that every JVM on this machine starts in half the time. Takes a minute."""
    try:
        path = make_archive()
    except KindlingDagsterError as error:
        raise CommandFailed(error) from error
    if path is None:
        click.echo(f"Archives are off: {FOLDER_VARIABLE}=off")
    else:
        click.echo(f"{path}: {path.stat().st_size / 1e6:.0f} MB")


@engine.command()
@click.option(
    "--now", is_flag=True, help="Cancel the run that is on its way; else the process ends after it."
)
def stop(now: bool) -> None:
    """End all warm processes of this user."""
    found = [place for place in places(warm_folder()) if ask(place, {"ask": "stop", "now": now}) is not None]
    click.echo(f"{len(found)} told to end" if found else "None is there")


@engine.command()
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(form: str) -> None:
    """The warm processes of this user."""
    answers = [ask(place, {"ask": "status"}) for place in places(warm_folder())]
    found = [answer["status"] for answer in answers if answer is not None and "status" in answer]
    if form == "json":
        click.echo(json.dumps(found, indent=1))
        return
    if not found:
        click.echo("None is there")
        return
    table = Table("app", "environment", "pid", "up", "runs", "now", "memory")
    for each in found:
        table.add_row(*_row(each))
    Console(highlight=False).print(table)


def _row(each: dict[str, Any]) -> list[str]:
    up = (time.time() - each["started_at"]) / 60
    idle, limit = each["idle_seconds"] / 60, each["idle_limit_seconds"] / 60
    now = f"run {each['running']}" if each["running"] else f"idle {idle:.0f} of {limit:.0f} min"
    return [
        plain(each["project"]),
        plain(each["environment"]),
        str(each["pid"]),
        f"{up:.0f} min",
        str(each["runs"]),
        now,
        f"{each['memory_bytes'] / 1e9:.1f} GB",
    ]


@click.group()
def remote() -> None:
    """What a Spark driver elsewhere needs to run pipes for Dagster."""


@remote.command()
@app_options
@click.option("--output", "-o", default=Path("dist"), show_default=True, type=click.Path(path_type=Path))
def package(project: KindlingProject, output: Path) -> None:
    """Write the files that APP needs on a Spark driver: code, app, manifest, and what to install there."""
    made = build_package(project, output)
    for path, what in (
        (made.requirements, "install this on the driver, or in its image"),
        (made.package, "--py-files"),
        (made.app, f"--archives {made.app.name}#{APP_FOLDER}"),
        (made.job, "the script to submit"),
    ):
        click.echo(f"{path}: {what}")
    click.echo(f'In Dagster: PipesEngine(client=…, app="{APP_FOLDER}", manifest="{APP_FOLDER}/{MANIFEST}")')
