"""A dry run on the terminal: a line per pipe as it ends, then the findings."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from kindling_dagster.analysis.findings import AnalysisResult, Finding, PipeAnalysis, Verdict

_MARKS = {
    Verdict.OK: "[green]ok[/]",
    Verdict.BROKEN: "[bold red]broken[/]",
    Verdict.NOT_ANALYSED: "[yellow]not analysed[/]",
}


def print_pipe(console: Console, analysis: PipeAnalysis) -> None:
    """One pipe's line of progress."""
    text = f"{_MARKS[analysis.verdict]} {escape(analysis.pipe_id)}"
    if analysis.reason:
        text += f": {escape(analysis.reason)}"
    elif analysis.findings:
        text += f": {len(analysis.findings)} finding{'s' if len(analysis.findings) > 1 else ''}"
    console.print(f"{text} [dim]({analysis.seconds:.1f} s)[/]")


def print_findings(console: Console, result: AnalysisResult) -> None:
    """All findings, each with its line and what to do, and the summary."""
    for finding in result.findings:
        _print_finding(console, finding)
    console.print(f"[{'green' if result.ok else 'red'}]{escape(result.summary())}[/]")


def _print_finding(console: Console, finding: Finding) -> None:
    colour = "red" if finding.severity == "error" else "yellow"
    at = f" [dim]{escape(_short(finding.where))}[/]" if finding.where else ""
    console.print(f"[{colour}]{finding.severity}[/] {escape(finding.pipe_id)}{at}")
    console.print(f"  {escape(finding.message)}")
    if finding.suggestion:
        console.print(f"  → {escape(finding.suggestion)}")


def _short(where: str) -> str:
    """A place relative to the current directory, where it lies below."""
    path = Path(where)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
