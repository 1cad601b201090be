"""ProbePool: a few threads for calls that may hang; one that does is given up and replaced."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

logger = logging.getLogger("kindling_dagster.streaming")


class Probe:
    """One call. ``began`` is when it started to run (monotonic seconds), None while it waits for a thread."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.began: float | None = None
        self.done = False
        self.given_up = False


class ProbePool:
    """Runs calls on daemon threads, at most ``size`` at a time besides those that were given up.

    A thread whose call hangs is lost until the call returns. ``give_up`` makes room for another one, so
    that there are never fewer than ``size`` threads for calls that do return.

    Args:
        size: Threads for calls that return.
        name: Threads are called ``name-1`` and so on.
    """

    def __init__(self, size: int, name: str = "probe") -> None:
        if size < 1:
            raise ValueError("size must be at least 1")
        self._limit = size
        self._name = name
        self._changed = threading.Condition()
        self._waiting: deque[Probe] = deque()
        self._threads = 0
        self._idle = 0
        self._started = 0
        self._closed = False

    def submit(self, call: Callable[[], None]) -> Probe:
        """Have ``call()`` made; what it raises is logged, so it should catch what it can."""
        probe = Probe(call)
        with self._changed:
            self._waiting.append(probe)
            self._help()
        return probe

    def give_up(self, probe: Probe) -> None:
        """Count on this call no more; its thread joins the others again if it returns after all."""
        with self._changed:
            if probe.began is None or probe.done or probe.given_up:
                return
            probe.given_up = True
            self._limit += 1
            self._help()

    def close(self) -> None:
        """Drop what waits and end the threads that are free; waits for none."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _help(self) -> None:
        if self._waiting and self._idle < len(self._waiting) and self._threads < self._limit:
            self._threads += 1
            self._started += 1
            threading.Thread(target=self._run, name=f"{self._name}-{self._started}", daemon=True).start()
        self._changed.notify()

    def _run(self) -> None:
        while (probe := self._next()) is not None:
            try:
                probe.call()
            except Exception:  # a probe reports by itself; this is a defect, and must not cost the thread
                logger.exception("A look at a query failed")
            with self._changed:
                probe.done = True
                if probe.given_up:
                    self._limit -= 1

    def _next(self) -> Probe | None:
        with self._changed:
            while not self._closed and self._threads <= self._limit:
                if self._waiting:
                    probe = self._waiting.popleft()
                    probe.began = time.monotonic()
                    return probe
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            self._threads -= 1
            return None
