"""The command line: ``kindling-dagster check | manifest | plan | signals``. Only ``check --analyze`` starts a JVM."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.table import Table

from kindling_dagster import __version__
from kindling_dagster.analysis.findings import AnalysisResult, PipeAnalysis
from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.dag.plan import ExecutionPlanGenerator
from kindling_dagster.dag.strategy import (
    BatchExecutionStrategy,
    ExecutionStrategy,
    HybridExecutionStrategy,
    StreamingExecutionStrategy,
)
from kindling_dagster.engines.base import LogLine
from kindling_dagster.errors import KindlingDagsterError
from kindling_dagster.manifest import Manifest
from kindling_dagster.project import KindlingProject

if TYPE_CHECKING:
    from kindling_dagster.signals.catalog import SignalSpec

Command = TypeVar("Command", bound=Callable[..., Any])

_PIPE_WIDTH = 240

_STRATEGIES: dict[str, type[ExecutionStrategy]] = {
    "batch": BatchExecutionStrategy,
    "streaming": StreamingExecutionStrategy,
    "hybrid": HybridExecutionStrategy,
}


class _Failed(click.ClickException):
    """An error of ours on the terminal: what happened, then what to do."""

    def __init__(self, error: KindlingDagsterError) -> None:
        super().__init__(error.message)
        self.suggestion = error.suggestion

    def show(self, file: Any = None) -> None:  # noqa: ARG002
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"[bold red]Error:[/] {_plain(self.message)}")
        if self.suggestion:
            console.print(f"  [bold]→[/] {_plain(self.suggestion)}")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _app_options(command: Command) -> Command:
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
                app,
                environment=environment,
                config_dir=config_dir,
                packages=packages,
                manifest=manifest_file,
            )
            return command(*args, project=project, **kwargs)
        except KindlingDagsterError as error:
            raise _Failed(error) from error

    return wrapped  # type: ignore[return-value]  # click's decorators keep the signature


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kindling-dagster")
def main() -> None:
    """Kindling apps as Dagster assets. APP is a Kindling app directory, its app.py, or a package directory."""


@main.command()
@_app_options
@click.option(
    "--analyze",
    is_flag=True,
    help="Also call each pipe's function on empty frames; starts Spark, writes nothing.",
)
@click.option(
    "--pipe", "pipes", multiple=True, help="With --analyze: pipe id; can be repeated. All when left out."
)
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    help="With --analyze: seconds a pipe may take; 0 for no limit.",
)
@click.option(
    "--watermarks",
    is_flag=True,
    help="With --analyze: the runs read only new data, by Kindling's watermarks.",
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(
    project: KindlingProject,
    analyze: bool,
    pipes: tuple[str, ...],
    timeout: float,
    watermarks: bool,
    form: str,
) -> None:
    """Load an app and print what is wrong with it; exit code 1 when a pipe could not run."""
    if pipes and not analyze:
        raise click.UsageError("--pipe goes with --analyze.")
    manifest = project.load_manifest(refresh=True)
    PipeGraphBuilder(manifest).build_graph()
    # Progress belongs to the error output where the other is JSON.
    console = Console(highlight=False, soft_wrap=True, stderr=form == "json")
    _print_problems(console, manifest)
    result = _analyze(console, project, pipes, timeout, watermarks) if analyze else None
    if form == "json":
        problems = [asdict(problem) for problem in manifest.problems]
        analysis = result.to_data() if result is not None else None
        click.echo(json.dumps({"problems": problems, "analysis": analysis}, indent=1))
    errors = any(problem.severity == "error" for problem in manifest.problems)
    if errors or (result is not None and not result.ok):
        raise click.exceptions.Exit(1)


def _print_problems(console: Console, manifest: Manifest) -> None:
    console.print(
        f"{manifest.app.name} ({manifest.app.environment}): {len(manifest.pipes)} pipes, "
        f"{len(manifest.entities)} entities, {len(manifest.ingestion)} ingestion entries."
    )
    for problem in manifest.problems:
        colour = "red" if problem.severity == "error" else "yellow"
        console.print(f"[{colour}]{problem.severity}[/] {_plain(problem.subject)}: {_plain(problem.message)}")
        if problem.suggestion:
            console.print(f"  → {_plain(problem.suggestion)}")
    if not any(problem.severity == "error" for problem in manifest.problems):
        console.print("[green]No problem keeps a pipe from running.[/]")


def _analyze(
    console: Console, project: KindlingProject, pipes: tuple[str, ...], timeout: float, watermarks: bool
) -> AnalysisResult:
    from kindling_dagster.analysis.report import print_findings, print_pipe
    from kindling_dagster.analysis.run import analyze_project
    from kindling_dagster.spark import build_session

    result = AnalysisResult(())
    events = analyze_project(
        project, build_session, pipes or None, timeout=timeout or None, watermarks=watermarks
    )
    with closing(events):
        for event in events:
            match event:
                case LogLine(_, message):
                    console.print(f"[dim]{_plain(message)}[/]")
                case PipeAnalysis():
                    print_pipe(console, event)
                case AnalysisResult():
                    result = event
    print_findings(console, result)
    return result


@main.command("manifest")
@_app_options
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="File to write; standard output when left out."
)
def manifest_command(project: KindlingProject, output: Path | None) -> None:
    """Write an app's manifest, for production: KindlingProject(manifest=…) loads it without the app."""
    manifest = project.load_manifest(refresh=True)
    if output is None:
        click.echo(manifest.to_json())
        return
    manifest.write(output)
    click.echo(
        f"Wrote {output}: {len(manifest.pipes)} pipes, {len(manifest.entities)} entities, "
        f"content hash {manifest.content_hash[:12]}."
    )


@main.command()
@_app_options
@click.option("--pipe", "pipes", multiple=True, help="Pipe id to plan; can be repeated. All when left out.")
@click.option("--strategy", type=click.Choice(sorted(_STRATEGIES)), default="batch", show_default=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "json", "dot"]),
    default="text",
    show_default=True,
)
def plan(project: KindlingProject, pipes: tuple[str, ...], strategy: str, form: str) -> None:
    """Print the order in which pipes run, generation by generation."""
    manifest = project.manifest
    chosen = list(pipes) or _default_pipes(manifest, strategy)
    made = ExecutionPlanGenerator(manifest, _STRATEGIES[strategy]()).generate_plan(chosen)
    forms = {"text": made.to_text, "mermaid": made.to_mermaid, "json": made.to_json, "dot": made.to_dot}
    click.echo(forms[form]())


def _default_pipes(manifest: Manifest, strategy: str) -> list[str]:
    kept = {"batch": (False,), "streaming": (True,), "hybrid": (True, False)}[strategy]
    return [pipe.id for pipe in manifest.pipes if pipe.streaming in kept]


@main.group()
def signals() -> None:
    """The signals that Kindling and kindling-dagster emit."""


@signals.command("list")
@click.option("--namespace", help="Only signals of this namespace, such as streaming.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def signals_list(namespace: str | None, form: str) -> None:
    """List all signals, with their payloads and what they become in Dagster."""
    from kindling_dagster.signals.catalog import get_all_signals

    found = [spec for spec in get_all_signals().values() if namespace in (None, spec.namespace)]
    if not found:
        known = sorted({spec.namespace for spec in get_all_signals().values()})
        raise click.UsageError(f"There is no namespace {namespace}. There are {', '.join(known)}.")
    if form == "json":
        click.echo(json.dumps([_signal_data(spec) for spec in found], indent=1))
        return
    table = Table("signal", "in Dagster", "payload", "what it says", box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.overflow = "fold"
    for spec in found:
        table.add_row(spec.name, spec.dagster_event, spec.payload.__name__, spec.summary)
    # A pipe has no width: nothing is gained by wrapping there, and grep needs whole lines.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _signal_data(spec: SignalSpec) -> dict[str, Any]:
    return {
        "signal": spec.name,
        "summary": spec.summary,
        "payload": spec.payload.__name__,
        "dagster": [event.value for event in spec.dagster_events],
        "emitters": list(spec.emitters),
        "fields": [asdict(each) for each in spec.fields],
    }


@signals.command("show")
@click.argument("name")
def signals_show(name: str) -> None:
    """Show one signal: who emits it and the fields of its payload."""
    from kindling_dagster.signals.catalog import describe_signal

    try:
        spec = describe_signal(name)
    except KindlingDagsterError as error:
        raise _Failed(error) from error
    console = Console(highlight=False)
    console.print(f"[bold]{spec.name}[/] {_plain(spec.summary)}")
    console.print(f"payload {spec.payload.__name__}, in Dagster: {spec.dagster_event}")
    console.print(f"emitted by {', '.join(spec.emitters) or 'nobody of its own'}")
    table = Table("field", "type", "sent")
    for item in spec.fields:
        table.add_row(item.name, item.type, "always" if item.required else "when there is something to say")
    console.print(table)
