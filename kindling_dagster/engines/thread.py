"""One thread that owns Spark: whoever needs Py4J hands it a call and waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


class SparkThread:
    """Runs calls one after another on a thread of its own.

    PySpark takes over SIGINT when a session is made on the main thread, and a signal that lands in a
    Py4J call there leaves later replies off by one; so the main thread only ever waits. The thread is
    a daemon: a call that hangs in the JVM must not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, call: Callable[[], Result]) -> Future[Result]:
        """Run ``call`` after those handed in before; gives its result, or its exception."""
        future: Future[Result] = Future()

        def work() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(work)
        return future

    def stop(self) -> None:
        """End the thread once the calls handed in so far are done. Does not wait."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread = None

    def _loop(self) -> None:
        while (work := self._calls.get()) is not None:
            work()
