"""The command line: ``kindling-dagster init | check | manifest | plan | signals | streams | host | lineage | engine | remote``.

Only ``host`` and ``check --analyze`` start a JVM.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from kindling_dagster import __version__
from kindling_dagster.analysis.findings import AnalysisResult, PipeAnalysis
from kindling_dagster.cli_app import CommandFailed, app_options, plain
from kindling_dagster.cli_engine import engine, remote
from kindling_dagster.cli_init import init
from kindling_dagster.cli_lineage import lineage
from kindling_dagster.cli_streams import host, streams
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

_PIPE_WIDTH = 240

_STRATEGIES: dict[str, type[ExecutionStrategy]] = {
    "batch": BatchExecutionStrategy,
    "streaming": StreamingExecutionStrategy,
    "hybrid": HybridExecutionStrategy,
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kindling-dagster")
def main() -> None:
    """Kindling apps as Dagster assets. APP is a Kindling app directory, its app.py, or a package directory."""


@main.command()
@app_options
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
        console.print(f"[{colour}]{problem.severity}[/] {plain(problem.subject)}: {plain(problem.message)}")
        if problem.suggestion:
            console.print(f"  → {plain(problem.suggestion)}")
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
                    console.print(f"[dim]{plain(message)}[/]")
                case PipeAnalysis():
                    print_pipe(console, event)
                case AnalysisResult():
                    result = event
    print_findings(console, result)
    return result


@main.command("manifest")
@app_options
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
@app_options
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
        raise CommandFailed(error) from error
    console = Console(highlight=False)
    console.print(f"[bold]{spec.name}[/] {plain(spec.summary)}")
    console.print(f"payload {spec.payload.__name__}, in Dagster: {spec.dagster_event}")
    console.print(f"emitted by {', '.join(spec.emitters) or 'nobody of its own'}")
    table = Table("field", "type", "sent")
    for item in spec.fields:
        table.add_row(item.name, item.type, "always" if item.required else "when there is something to say")
    console.print(table)


main.add_command(init)
main.add_command(streams)
main.add_command(lineage)
main.add_command(host)
main.add_command(engine)
main.add_command(remote)
