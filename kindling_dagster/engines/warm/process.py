"""Finding, starting and ending warm processes."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from kindling_dagster.engines.warm.channel import Channel, ChannelClosed, greet
from kindling_dagster.engines.warm.spec import WarmPlace, WarmSpec, places, warm_folder
from kindling_dagster.errors import RunError
from kindling_dagster.project import KindlingProject

START_SECONDS = 60.0
"""How long a new process may take to listen; Spark starts later, with the first run."""

_POLL_SECONDS = 0.05


def connect(place: WarmPlace) -> Channel | None:
    """A conversation with the process at a place; None where none answers."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        token = place.token.read_bytes()
        end.connect(str(place.socket))
    except OSError:
        end.close()
        return None
    try:
        return greet(end, token, first=False)
    except ChannelClosed:
        return None


def ensure(spec: WarmSpec) -> tuple[Channel, WarmPlace, bool]:
    """A conversation with the process that serves a spec, started where there is none; says whether it was.

    Processes of older versions of the project end when they are free.

    Raises:
        RunError: It does not start.
    """
    place = WarmPlace(warm_folder(), spec.key)
    with _locked(place.lock):
        channel = connect(place)
        if channel is not None:
            return channel, place, False
        for other in places(place.folder):
            if other.key.startswith(f"{spec.family}-") and other.key != spec.key:
                ask(other, {"ask": "stop"})
        return _start(spec, place), place, True


def ask(place: WarmPlace, message: dict[str, Any]) -> dict[str, Any] | None:
    """One question and its answer; None where no process answers, whose traces are removed."""
    channel = connect(place)
    if channel is None:
        place.socket.unlink(missing_ok=True)
        return None
    with closing(channel), suppress(ChannelClosed):
        channel.send(message)
        return channel.receive()
    return None


def _start(spec: WarmSpec, place: WarmPlace) -> Channel:
    with suppress(FileNotFoundError):
        place.log.replace(place.log.with_suffix(".log.1"))
    place.socket.unlink(missing_ok=True)
    run_dir = KindlingProject.from_json(spec.project).run_dir
    descriptor = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kindling_dagster.engines.warm", str(place.folder), place.key],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=run_dir,
            # It outlives the run that starts it, and what is sent to that run's group is not meant for it.
            start_new_session=True,
        )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(spec.to_json().encode())
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        channel = connect(place)
        if channel is not None:
            return channel
        time.sleep(_POLL_SECONDS)
    process.kill()
    raise RunError(
        f"A warm process for {spec.project} did not start: {_last_words(place.log)}",
        f"See {place.log}, or run without a warm engine.",
    )


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing."


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among all processes of the user, as long as it lasts."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
