"""Starts the demo: environment, Java, Delta's jars, Spark's classes, data, then `dagster dev`. Says what it does and how far it is."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from kindling_dagster_demo import feed

HOME_FOLDER = ".dagster_home"
JARS_SECONDS = 900
"""How long fetching Delta's jars may take; a slow line needs minutes for 10 MB, a dead one never ends."""

_DAGSTER_YAML = """\
# Written by the demo once; change it as you like.
telemetry:
  enabled: false
"""
_ARCHIVE_CLASSES = "from kindling_dagster.class_archive import make_archive; make_archive()"
# The child must be the interpreter and settings of a real run, or it would fetch other jars.
_FETCH_JARS = """\
import sys
from kindling_dagster.errors import SparkSetupError
from kindling_dagster.spark import build_session
try:
    build_session({"spark.master": "local[1]"}).stop()
except SparkSetupError as error:
    sys.exit(f"SETUP:{error}")
"""

console = Console(highlight=False, soft_wrap=True)


class LauncherError(Exception):
    """The demo cannot start; the message says why and what to do."""


def run(arguments: Sequence[str] | None = None) -> None:
    """Prepare what is missing, then become ``dagster dev``.

    Args:
        arguments: Command line; what the launcher does not know goes to ``dagster dev``.
    """
    options, passed_on = _parser().parse_known_args(arguments)
    try:
        root = find_root()
        if options.reset:
            reset(root, ask=not options.yes)
            return
        environment = prepare(root, options.days)
    except (LauncherError, feed.FeedError) as error:
        console.print(f"[red]The demo cannot start.[/red] {escape(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("\nStopped. Nothing half-done stays; start again whenever you like.")
        sys.exit(130)
    if options.prepare:
        console.print("Ready. `uv run demo` or `uv run dagster dev` starts it.")
        return
    if options.live:
        environment["KINDLING_DEMO_LIVE"] = "1"
    start_dagster(root, environment, passed_on)


def prepare(root: Path, days: int = feed.FIRST_DAYS) -> dict[str, str]:
    """Do the five steps before Dagster starts; each skips what is there.

    Returns:
        The environment to start Dagster in.

    Raises:
        LauncherError: A step cannot be done.
        FeedError: The demo's source data is not installed.
    """
    environment = dict(os.environ)
    home = step_environment(root, environment)
    environment["DAGSTER_HOME"] = str(home)
    environment["JAVA_HOME"] = str(step_java())
    step_jars(environment)
    step_classes(environment)
    step_data(root, days)
    return environment


def step_environment(root: Path, environment: dict[str, str]) -> Path:
    """Make DAGSTER_HOME, which lasts from one start to the next. One that is set already is kept."""
    given = environment.get("DAGSTER_HOME")
    if given and not Path(given).is_absolute():
        raise LauncherError(f"DAGSTER_HOME is {given}, which is not absolute. Unset it, or make it so.")
    home = Path(given) if given else root / HOME_FOLDER
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").write_text(_DAGSTER_YAML, encoding="utf-8")
    env_file = root / ".env"
    if not given and not env_file.exists():
        # `dagster dev` reads it, so a start without this command finds the same history.
        env_file.write_text(f"DAGSTER_HOME={home}\n", encoding="utf-8")
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("dagster", "pyspark", "spark-kindling")
    )
    _say(1, "environment", f"Python {platform.python_version()}, {versions}; history in {_short(home, root)}")
    return home


def step_java() -> Path:
    """Find a Java that fits Spark."""
    from kindling_dagster.errors import SparkSetupError
    from kindling_dagster.spark import find_java

    try:
        java = find_java()
    except SparkSetupError as error:
        raise LauncherError(str(error)) from error
    _say(2, "Java", f"{java.version}, found through {java.found_by}")
    return java.home


def step_jars(environment: dict[str, str]) -> None:
    """Fetch Delta's jars now, so that the first run doesn't wait for them."""
    from kindling_dagster.spark import delta_jar_cached, delta_package

    if delta_jar_cached():
        _say(3, "Delta's jars", f"{delta_package()}, already here")
        return
    started = time.monotonic()
    with console.status(f"\\[3/5] Delta's jars: fetching {delta_package()} from Maven Central …"):
        code, words = _run_child(_FETCH_JARS, environment, JARS_SECONDS)
    if code != 0:
        raise LauncherError(_jar_failure(code, words))
    _say(3, "Delta's jars", f"{delta_package()}, fetched in {time.monotonic() - started:.0f} s")


def step_classes(environment: dict[str, str]) -> None:
    """Archive Spark's classes, once: each run of the demo starts a JVM, and so starts it in half the time."""
    from kindling_dagster.class_archive import SECONDS, archive_path

    path = archive_path()
    if path is None or path.is_file():
        _say(4, "Spark's classes", "archived already" if path else "not archived, as asked for")
        return
    started = time.monotonic()
    with console.status("\\[4/5] Spark's classes: archiving them, which takes a minute once …"):
        code, words = _run_child(_ARCHIVE_CLASSES, environment, SECONDS)
    if code == 0:
        _say(4, "Spark's classes", f"archived in {time.monotonic() - started:.0f} s")
    else:
        # The demo does without; it only starts its runs more slowly.
        reason = words.strip().splitlines()[-1] if words.strip() else f"not done in {SECONDS:.0f} s"
        _say(4, "Spark's classes", f"not archived: {reason}")


def step_data(root: Path, days: int) -> None:
    """Land the reference files and the first days where they are missing."""
    app_dir = root / "demo"
    bar = Progress(
        TextColumn("\\[5/5] demo data"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("days, {task.description}"),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("reading the source", total=days)
        landed = feed.ensure_landed(
            app_dir,
            days,
            lambda done, total, what: bar.update(task, completed=done, total=total, description=what),
        )
    there = feed.landed_days(app_dir)
    if landed is None:
        _say(5, "demo data", f"{there} days of 2013 landed, already here")
    else:
        _say(
            5,
            "demo data",
            f"{landed.flights:,} flights of {landed.days} days landed, {landed.first} to {landed.last}",
        )


def start_dagster(root: Path, environment: dict[str, str], passed_on: Sequence[str]) -> NoReturn:
    """Become ``dagster dev``, so that Ctrl-C and exit codes are Dagster's own."""
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", *passed_on]
    console.print("Starting Dagster; open the address it prints. Ctrl-C stops it.")
    sys.stdout.flush()
    os.chdir(root)
    os.execve(sys.executable, command, environment)


def reset(root: Path, ask: bool = True) -> None:
    """Remove the demo's data and Dagster's history.

    Raises:
        LauncherError: The person at the keyboard says no, or there is no keyboard to ask at.
    """
    doomed = [path for path in (root / "demo" / "data", root / HOME_FOLDER) if path.exists()]
    if not doomed:
        console.print("Nothing to remove.")
        return
    names = " and ".join(_short(path, root) for path in doomed)
    if ask:
        if not sys.stdin.isatty():
            raise LauncherError(f"--reset removes {names} and asks first. Add --yes to answer.")
        if console.input(f"Remove {names}? Stop a running demo first. \\[y/N] ").strip().lower() not in (
            "y",
            "yes",
        ):
            raise LauncherError("Nothing was removed.")
    for path in doomed:
        shutil.rmtree(path)
    console.print(f"Removed {names}.")


def find_root() -> Path:
    """The repository: where this package is installed from, else the current directory or one above it.

    Raises:
        LauncherError: Neither is the repository.
    """
    here = Path.cwd()
    for folder in (Path(__file__).resolve().parents[3], here, *here.parents):
        if (folder / "demo" / "app.yaml").is_file() and (folder / "workspace.yaml").is_file():
            return folder
    raise LauncherError("The repository is not here. Start the demo in a clone of it: `uv run demo`.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo",
        description="Prepares and starts the demo. Other arguments go to `dagster dev`, such as -p 3001.",
    )
    parser.add_argument("--prepare", action="store_true", help="prepare everything, start nothing")
    parser.add_argument(
        "--live", action="store_true", help="start the streams at once; a day lands every other minute"
    )
    parser.add_argument("--reset", action="store_true", help="remove the demo's data and Dagster's history")
    parser.add_argument("--yes", action="store_true", help="with --reset: do not ask")
    parser.add_argument(
        "--days",
        type=int,
        choices=range(1, 366),
        metavar="1..365",
        default=feed.FIRST_DAYS,
        help=f"how many days have landed before the first run ({feed.FIRST_DAYS}, January)",
    )
    return parser


def _run_child(program: str, environment: dict[str, str], seconds: float) -> tuple[int | None, str]:
    """Run a Python program; its exit code (None at the time limit) and all it said."""
    # A file, not a pipe: the JVM inherits it and would keep a pipe open after the child ends.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        child = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code: int | None = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(seconds)
        finally:
            if code is None:
                # The whole group: a JVM that still resolves jars does not notice that its parent died.
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        output.seek(0)
        return code, output.read()


def _jar_failure(code: int | None, words: str) -> str:
    said = words.rpartition("SETUP:")[2].strip() if "SETUP:" in words else ""
    if said:
        return said
    if code is None:
        return (
            f"Delta's jars did not arrive within {JARS_SECONDS // 60} minutes. "
            "Check that this machine reaches Maven Central, and start again."
        )
    return "Spark did not start while fetching Delta's jars:\n" + "\n".join(words.strip().splitlines()[-15:])


def _say(number: int, what: str, result: str) -> None:
    console.print(f"\\[{number}/5] {what}: {escape(result)}")


def _short(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
