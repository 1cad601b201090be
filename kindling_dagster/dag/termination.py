"""Ends one pipe that was told to end, however long that takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from kindling_dagster.dag.cancellation import Canceller
from kindling_dagster.dag.pipe_thread import PipeThread
from kindling_dagster.engines.base import LogLine

INTERVAL = 0.2
"""Seconds between two calls of ``cancel``: a pipe may start its next Spark job right after one was ended."""


class Terminator(threading.Thread):
    """Cancels a pipe again and again until its thread has ended, then tells so.

    A thread of its own, so that a JVM that does not answer holds up neither the scheduler loop nor
    the cancellation of other pipes. It outlives the execution as long as the pipe is stuck, so that
    a pipe that wakes up late finds no Spark job of its own going on for long.

    Args:
        pipe_thread: The pipe to end.
        canceller: Ends its Spark work.
        grace: Seconds until its Python code is interrupted as well.
        tell: Called with a LogLine when cancelling fails, and with the pipe's thread when it has ended.
    """

    def __init__(
        self,
        pipe_thread: PipeThread,
        canceller: Canceller,
        grace: float,
        tell: Callable[[PipeThread | LogLine], None],
    ) -> None:
        super().__init__(name=f"ends pipe {pipe_thread.pipe_id}", daemon=True)
        self._pipe_thread = pipe_thread
        self._canceller = canceller
        self._grace = grace
        self._tell = tell
        self._told: set[str] = set()

    def run(self) -> None:
        """Cancel, wait, interrupt, until the pipe's thread has ended."""
        interrupt_at = time.monotonic() + self._grace
        pipe_id = self._pipe_thread.pipe_id
        while self._pipe_thread.is_alive():
            self._try(self._canceller.cancel, pipe_id)
            self._pipe_thread.join(max(0.0, min(INTERVAL, interrupt_at - time.monotonic())))
            if time.monotonic() >= interrupt_at and self._pipe_thread.is_alive():
                self._try(self._canceller.interrupt, pipe_id)
                self._pipe_thread.interrupt()
                # Time for `finally` blocks, before code that swallowed the interrupt gets another.
                interrupt_at = time.monotonic() + max(1.0, self._grace / 4)
        self._tell(self._pipe_thread)

    def _try(self, action: Callable[[str], None], pipe_id: str) -> None:
        try:
            action(pipe_id)
        except Exception as error:  # the JVM may be gone; the pipe's thread must be ended all the same
            text = f"Pipe {pipe_id} cannot be cancelled in Spark: {type(error).__name__}."
            if text not in self._told:
                self._told.add(text)
                self._tell(LogLine("warning", text))
