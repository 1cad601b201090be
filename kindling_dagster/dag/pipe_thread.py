"""The thread one pipe runs in: it ends with a result, can be interrupted, and never keeps the process alive."""

from __future__ import annotations

import ctypes
import sys
import threading
import traceback
from collections.abc import Callable

from kindling_dagster.dag.failures import Failure, Place, describe, stack_frames
from kindling_dagster.dag.results import PipeOutcome


class PipeInterrupt(BaseException):
    """Raised inside a pipe's thread to end its Python code; no ``except Exception`` of the app catches it."""


class PipeThread(threading.Thread):
    """Runs one attempt of one pipe.

    A daemon: a pipe that hangs must not keep the process from exiting, as the threads of a
    ThreadPoolExecutor do. A new thread for each attempt: nothing thread-bound (Spark's local
    properties above all) leaks from one pipe into another.

    Args:
        pipe_id: The pipe; also names the thread.
        attempt: Which try this is, from 1.
        call: What to run.
        on_end: Called as the last thing in this thread, with the thread.
    """

    def __init__(
        self,
        pipe_id: str,
        attempt: int,
        call: Callable[[], PipeOutcome | None],
        on_end: Callable[[PipeThread], None],
    ) -> None:
        super().__init__(name=f"pipe {pipe_id}", daemon=True)
        self.pipe_id = pipe_id
        self.attempt = attempt
        self.outcome: PipeOutcome | None = None
        """What the pipe returned; None when it raised, or has not ended."""
        self.failure: Failure | None = None
        """What the pipe raised; None when it returned, or has not ended."""
        self._call = call
        self._on_end = on_end
        self._ending = threading.Lock()
        self._ended = False

    def run(self) -> None:
        """Run the pipe; every way out of it is kept, none leaves the thread as an exception."""
        self._run_and_tell()
        while not self._ended:
            try:
                with self._ending:
                    self._ended = True
            except PipeInterrupt:  # it landed in these very lines
                continue

    def _run_and_tell(self) -> None:
        try:
            try:
                outcome = self._call()
                # Callers may pass any function; only a PipeOutcome says more than "it is done".
                self.outcome = outcome if isinstance(outcome, PipeOutcome) else PipeOutcome()
            except BaseException as error:
                self.failure = describe(self.pipe_id, error)
            self._on_end(self)
        except PipeInterrupt:
            # It landed after the pipe's own code had ended. Whoever interrupts also joins this
            # thread, so the end is seen without the call that was cut short.
            return

    def interrupt(self) -> None:
        """Make the thread's Python code raise PipeInterrupt at its next step.

        Code inside a C call (a sleep, a lock, a socket) goes on until that call returns. Can be
        repeated. Uses ``PyThreadState_SetAsyncExc``, CPython's documented way.
        """
        # Thread ids are used again at once: without the lock this could hit another pipe's thread.
        with self._ending:
            if self._ended or self.ident is None:
                return
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self.ident), ctypes.py_object(PipeInterrupt)
            )

    def places(self) -> list[Place]:
        """Where the thread is now, outermost first; empty once it has ended."""
        frame = sys._current_frames().get(self.ident or 0) if self.is_alive() else None
        return stack_frames(frame) if frame else []

    def stack(self) -> str:
        """The thread's Python stack as text; empty once it has ended."""
        frame = sys._current_frames().get(self.ident or 0) if self.is_alive() else None
        return "".join(traceback.format_stack(frame)) if frame else ""
