"""Runs one order of the Pipes engine on this machine's Spark driver, and tells Dagster of everything as it happens."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kindling_dagster import __version__
from kindling_dagster.engines.in_process import InProcessEngine
from kindling_dagster.engines.wire import error_to_json, event_to_json
from kindling_dagster.project import KindlingProject
from kindling_dagster.remote.protocol import EXTRA, MESSAGE, Order
from kindling_dagster.spark import attach_session

if TYPE_CHECKING:
    from dagster_pipes import PipesContext

_LOOK_SECONDS = 1.0


def run_job(pipes: PipesContext, create_session: Callable[[], Any] = attach_session) -> bool:
    """Run what the Pipes context orders.

    SIGTERM and SIGINT cancel: Spark's jobs are ended and awaited, and nothing is committed afterwards.

    Args:
        pipes: The opened Pipes context.
        create_session: Gives the Spark session; by default the one that spark-submit, or the platform, set up.

    Returns:
        Whether the order was carried out, whatever became of its pipes; the process should end with an
        error where it was not.
    """
    numbers = itertools.count()

    def tell(**what: Any) -> None:
        pipes.report_custom_message({MESSAGE: {"n": next(numbers), **what}})

    tell(hello={"pid": os.getpid(), "host": socket.gethostname(), "version": __version__})
    try:
        order = Order.from_json(pipes.get_extra(EXTRA), __version__)
        project = KindlingProject(**order.project)
        with (
            closing(InProcessEngine(project, create_session)) as engine,
            _cancelled_by_signals(engine, order),
        ):
            for event in engine.run(order.request):
                tell(event=event_to_json(event))
    except Exception as error:
        tell(end=error_to_json(error))
        return False
    tell(end=None)
    return True


@contextmanager
def _cancelled_by_signals(engine: InProcessEngine, order: Order) -> Iterator[None]:
    """Cancel on signals, and when Dagster's side of this machine is gone."""
    ended = threading.Event()

    def cancel(reason: str) -> None:
        # Again and again: the run may not have begun, and a cancelled one ends by itself.
        while not ended.wait(_LOOK_SECONDS / 10):
            engine.cancel(order.request.run_id, reason)

    def on_signal(number: int, _frame: object) -> None:
        reason = f"the job got {signal.Signals(number).name}"
        threading.Thread(target=cancel, args=(reason,), daemon=True).start()

    def watch() -> None:
        while not ended.wait(_LOOK_SECONDS):
            if _is_free(order.alive):
                cancel("Dagster's process is gone")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    # On another machine there is no such file; here it outlives even a process that is killed.
    if order.alive and Path(order.alive).exists():
        threading.Thread(target=watch, daemon=True, name="alive").start()
    try:
        yield
    finally:
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_free(path: str) -> bool:
    """Whether nobody holds the lock on a file any more; a file that is gone was let go of, too."""
    try:
        with Path(path).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True
