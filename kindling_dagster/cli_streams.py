"""The command line of streams: ``streams status | start | stop | restart | history | …`` and ``host``."""

from __future__ import annotations

import contextlib
import functools
import getpass
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kindling_dagster.cli_app import app_options
from kindling_dagster.cli_reprocess import reprocess
from kindling_dagster.errors import ProjectError
from kindling_dagster.project import KindlingProject
from kindling_dagster.streaming.views import Snapshot, StreamView

if TYPE_CHECKING:
    # At run time where it is needed: SQLAlchemy takes half a second that other commands can do without.
    from kindling_dagster.streaming.client import StreamsClient

HOME_VARIABLE = "DAGSTER_HOME"
_PIPE_WIDTH = 200
_STATE_COLOURS = {
    "running": "green",
    "starting": "cyan",
    "stopping": "cyan",
    "waiting": "yellow",
    "no host": "yellow",
    "failed": "red",
    "dead_letter": "bold red",
}


def locate_store(stated: str | None) -> str:
    """The store's URL: stated, in the environment, or in the storage of ``DAGSTER_HOME``'s instance.

    Raises:
        ProjectError: None of these says where it is.
    """
    from kindling_dagster.streaming.identity import store_url
    from kindling_dagster.streaming.store.location import STORE_URL_VARIABLE

    given = store_url(stated or _from_env_file(STORE_URL_VARIABLE), None)
    if given is not None:
        return given
    home = os.environ.get(HOME_VARIABLE) or _from_env_file(HOME_VARIABLE)
    if not home:
        raise ProjectError(
            "Nothing says where the streams' store is.",
            f"Set {HOME_VARIABLE} as for Dagster, or give --store or {STORE_URL_VARIABLE}.",
        )
    # Here, because it takes a second that a stated store need not cost.
    from dagster import DagsterInstance

    os.environ.setdefault(HOME_VARIABLE, home)
    with DagsterInstance.get() as instance:
        found = store_url(None, instance.storage_directory())
    assert found is not None
    return found


def _from_env_file(name: str) -> str | None:
    """What the current directory's .env says, which ``dagster dev`` reads too."""
    if name in os.environ:
        return None
    path = Path(".env")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        stated, _, value = line.removeprefix("export ").partition("=")
        if stated.strip() == name:
            return value.strip().strip("'\"") or None
    return None


@contextlib.contextmanager
def open_client(project: KindlingProject, stated: str | None) -> Iterator[StreamsClient]:
    """The app's streams, in the name of whoever is at the keyboard."""
    from kindling_dagster.streaming.client import StreamsClient
    from kindling_dagster.streaming.identity import store_project
    from kindling_dagster.streaming.store import StreamStore

    with StreamStore.open(locate_store(stated), store_project(project)) as store:
        yield StreamsClient(store, project.manifest, by=f"{_user()}@{socket.gethostname()}")


def _user() -> str:
    """Who is at the keyboard; the number of a user whom the system has no name for, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


_Command = TypeVar("_Command", bound=Callable[..., Any])

_store = click.option(
    "--store", "stated", metavar="URL", help="The streams' store; by default where Dagster keeps it."
)
_form = click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)


def _asking(command: _Command) -> _Command:
    """The options of commands that ask something of streams; the command gets the ``names`` of some, or of none for all."""

    @click.option(
        "--stream", "-s", "names", multiple=True, help="Pipe id, entity id or glob; can be repeated."
    )
    @click.option("--all", "everything", is_flag=True, help="All streams of the app.")
    @click.option("--reason", default="", help="Why; kept in the streams' history.")
    @functools.wraps(command)
    def wrapped(*args: Any, names: tuple[str, ...], everything: bool, **kwargs: Any) -> Any:
        if bool(names) == everything:
            raise click.UsageError("Name streams with --stream, or give --all.")
        return command(*args, names=names, **kwargs)

    return wrapped  # type: ignore[return-value]  # click's decorators keep the signature


@click.group()
def streams() -> None:
    """The app's streams: what should run, what runs, what happened. None but ``reprocess`` starts Spark."""


streams.add_command(reprocess)


@streams.command()
@app_options
@_store
@_form
@click.option("--watch", "-w", is_flag=True, help="Keep the table up to date until Ctrl-C.")
@click.option("--interval", default=1.0, show_default=True, help="With --watch: seconds between two looks.")
def status(project: KindlingProject, stated: str | None, form: str, watch: bool, interval: float) -> None:
    """Show every stream; exit code 1 when one is down that should run."""
    with open_client(project, stated) as client:
        if watch:
            _watch(client, interval)
            return
        snapshot = client.snapshot()
    if form == "json":
        click.echo(json.dumps(snapshot_data(snapshot), indent=1))
    elif not snapshot.streams:
        click.echo(f"{project.name} declares no stream: no pipe is tagged processing_mode: streaming.")
    else:
        _console().print(status_table(snapshot))
    if any(not view.verdict.ok and view.verdict.severity == "error" for view in snapshot.views):
        raise click.exceptions.Exit(1)


@streams.command()
@app_options
@_store
@_asking
def start(project: KindlingProject, stated: str | None, names: tuple[str, ...], reason: str) -> None:
    """Ask that streams run."""
    with open_client(project, stated) as client:
        _asked("start", client.start(names, reason=reason))


@streams.command()
@app_options
@_store
@_asking
def stop(project: KindlingProject, stated: str | None, names: tuple[str, ...], reason: str) -> None:
    """Ask that streams end after the batch they are in."""
    with open_client(project, stated) as client:
        _asked("stop", client.stop(names, reason=reason))


@streams.command()
@app_options
@_store
@_asking
@click.option("--cascade", is_flag=True, help="Also the running streams that read what these write.")
def restart(
    project: KindlingProject, stated: str | None, names: tuple[str, ...], reason: str, cascade: bool
) -> None:
    """Ask that streams start anew from their checkpoints."""
    with open_client(project, stated) as client:
        _asked("restart", client.restart(names, reason=reason, cascade=cascade))


@streams.command()
@app_options
@_store
@_asking
@click.option(
    "--reset-checkpoint",
    is_flag=True,
    help="Accept that a stream whose checkpoint is gone reads its sources from the beginning.",
)
def revive(
    project: KindlingProject, stated: str | None, names: tuple[str, ...], reason: str, reset_checkpoint: bool
) -> None:
    """Start dead letters, their failures forgotten."""
    with open_client(project, stated) as client:
        chosen = names or tuple(client.dead_letters())
        if chosen:
            chosen = client.revive(chosen, reason=reason, reset_checkpoint=reset_checkpoint)
        _asked("revive", chosen)


def _asked(what: str, streams: Sequence[str]) -> None:
    click.echo(f"Asked to {what}: {', '.join(streams) or 'nothing'}. The stream host does it within seconds.")


@streams.command()
@app_options
@_store
@_form
@click.option("--stream", "-s", "name", help="Only this one.")
@click.option("--limit", default=50, show_default=True, help="Entries at most.")
def history(project: KindlingProject, stated: str | None, form: str, name: str | None, limit: int) -> None:
    """Show what happened, newest first."""
    with open_client(project, stated) as client:
        entries = client.history(name, limit)
    if form == "json":
        click.echo(json.dumps([asdict(entry) for entry in entries], indent=1))
        return
    table = Table("when", "stream", "event", "detail", box=box.SIMPLE_HEAD)
    for entry in entries:
        table.add_row(_time(entry.at), escape(entry.stream_id), entry.event, escape(entry.detail))
    _console().print(table)


@streams.command("dead-letters")
@app_options
@_store
@_form
def dead_letters(project: KindlingProject, stated: str | None, form: str) -> None:
    """Show streams that are not started again until they are revived: why, and what to do."""
    with open_client(project, stated) as client:
        letters = client.dead_letters()
    if form == "json":
        click.echo(json.dumps({id_: asdict(letter) for id_, letter in letters.items()}, indent=1))
        return
    console = _console()
    for letter in letters.values():
        console.print(
            f"[bold]{escape(letter.stream_id)}[/] since {_time(letter.at)}, after {letter.failures} failures"
        )
        for error in letter.errors:
            console.print(f"  {_time(error.at)} {escape(error.type)}: {escape(error.message)}")
        if letter.suggestion:
            console.print(f"  → {escape(letter.suggestion)}")
    if not letters:
        console.print("There is none.")


@click.command()
@app_options
@_store
def host(project: KindlingProject, stated: str | None) -> None:
    """Run the app's streams here until SIGTERM or Ctrl-C: for systemd, Kubernetes and the like. Starts Spark."""
    _host(project, locate_store(stated))


def _host(project: KindlingProject, url: str) -> None:
    """Spark on a thread of its own; this one only waits, so that a signal never lands inside a Py4J call."""
    from kindling_dagster.engines.base import LogLine
    from kindling_dagster.engines.thread import SparkThread
    from kindling_dagster.spark import build_session
    from kindling_dagster.streaming.host import run_host
    from kindling_dagster.streaming.store import redact

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def tell(event: object) -> None:
        if isinstance(event, LogLine):
            click.echo(f"{_time(time.time())} {event.level.upper():7} {event.message}", err=True)

    click.echo(f"Streams of {project.name}, store {redact(url)}.", err=True)
    thread = SparkThread("stream host")
    future = thread.submit(lambda: run_host(project, url, build_session, stop=stop, emit=tell))
    while not future.done():
        # Woken by a signal too; a plain wait for the future would not be.
        stop.wait(0.5) if not stop.is_set() else time.sleep(0.1)
    thread.stop()
    ended = future.result()
    click.echo(f"Ended: {ended.reason} ({ended.streams} streams stopped).", err=True)


def _watch(client: StreamsClient, interval: float) -> None:
    from kindling_dagster.streaming.store import StoreUnavailable

    # Ctrl-C is how one leaves.
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(Text("…"), console=_console(), refresh_per_second=4) as live,
    ):
        while True:
            try:
                live.update(status_table(client.snapshot()), refresh=True)
            except StoreUnavailable as error:
                live.update(Text(str(error), style="red"), refresh=True)
            time.sleep(interval)


def status_table(snapshot: Snapshot) -> Table:
    """Every stream on one line, and the host in the title."""
    table = Table(
        *(
            "stream",
            "wanted",
            "state",
            "health",
            "batch",
            "rows/s in",
            "rows/s done",
            "backlog",
            "last batch",
        ),
        *("restarts", "what it says"),
        title=host_line(snapshot),
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.columns[0].no_wrap = True
    table.columns[-1].overflow = "fold"
    for view in snapshot.views:
        table.add_row(*_cells(view))
    return table


def _cells(view: StreamView) -> Sequence[str | Text]:
    status, verdict = view.status, view.verdict
    metrics = status.metrics if status else None
    colour = _STATE_COLOURS.get(view.state, "white")
    said = " → ".join(filter(None, (verdict.reason, verdict.suggestion)))
    return (
        Text(view.stream_id),
        "yes" if view.wanted else "no",
        Text(view.state, style=colour),
        Text(status.health.value if status and view.current else "", style="" if verdict.ok else "red"),
        _number(metrics.batch_id if metrics else None),
        _number(metrics.input_rows_per_second if metrics else None),
        _number(metrics.processed_rows_per_second if metrics else None),
        _backlog(view),
        _ago(metrics.last_progress_at if metrics else None, view.now),
        str(status.restarts) if status else "",
        Text(said, style="" if verdict.ok else "red" if verdict.severity == "error" else "yellow"),
    )


def host_line(snapshot: Snapshot) -> str:
    """Who runs the streams."""
    host = snapshot.host
    if host is None:
        return "No host has ever run them."
    where = f"{host.hostname}, process {host.pid}" + (f", run {host.run_id[:8]}" if host.run_id else "")
    seen = _ago(host.heartbeat_at, snapshot.now)
    if not host.alive(snapshot.now):
        return f"No host; the last one ({where}) was seen {seen}."
    detail = f", {host.detail}" if host.detail else ""
    return f"Host {host.state}{detail}: {where}, up {_span(snapshot.now - host.started_at)}, seen {seen}."


def snapshot_data(snapshot: Snapshot) -> dict[str, Any]:
    """All of it as JSON data."""
    return {
        "host": asdict(snapshot.host) if snapshot.host else None,
        "host_alive": snapshot.host is not None and snapshot.host.alive(snapshot.now),
        "streams": [
            {
                "stream": view.stream_id,
                "wanted": view.wanted,
                "state": view.state,
                "ok": view.verdict.ok,
                "reason": view.verdict.reason,
                "suggestion": view.verdict.suggestion,
                "status": asdict(view.status) if view.status else None,
            }
            for view in snapshot.views
        ],
    }


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:.1f}"


def _backlog(view: StreamView) -> str:
    metrics = view.status.metrics if view.status else None
    if metrics is None or metrics.backlog_files is None:
        return ""
    size = "" if metrics.backlog_bytes is None else f", {metrics.backlog_bytes / 1e6:,.1f} MB"
    return f"{metrics.backlog_files} files{size}"


def _ago(at: float | None, now: float) -> str:
    return "" if not at else f"{_span(max(now - at, 0))} ago"


def _span(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _console() -> Console:
    console = Console(highlight=False)
    # A pipe has no width: nothing is gained by wrapping there, and grep needs whole lines.
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)
