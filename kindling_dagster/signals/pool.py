"""DaemonThreadPool: a bounded pool whose threads never keep the process alive."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThreadPool(Executor):
    """ThreadPoolExecutor with daemon threads that end when idle.

    The standard one joins its threads when the interpreter exits, so a single subscriber that never
    returns would keep a finished run's process alive for ever.

    Args:
        max_workers: At most so many threads; they are started when there is work for them.
        name: Threads are called ``name-1`` and so on.
        idle_seconds: After how long without work a thread ends.
    """

    def __init__(self, max_workers: int, name: str = "pool", idle_seconds: float = 10.0) -> None:
        if max_workers < 1:
            raise ValueError("max_workers must be at least 1")
        self._max_workers = max_workers
        self._name = name
        self._idle_seconds = idle_seconds
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._started = 0
        self._shut = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have ``fn(*args, **kwargs)`` called by a thread of the pool.

        Raises:
            RuntimeError: The pool was shut down.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._shut:
                raise RuntimeError("The pool was shut down.")
            self._work.append((future, lambda: fn(*args, **kwargs)))
            if self._idle < len(self._work) and len(self._threads) < self._max_workers:
                self._start_thread()
            self._changed.notify()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; what was submitted is still done.

        Args:
            wait: Return only when it is. A thread that hangs makes this hang.
            cancel_futures: Cancel what has not begun.
        """
        with self._changed:
            self._shut = True
            if cancel_futures:
                while self._work:
                    self._work.popleft()[0].cancel()
            self._changed.notify_all()
            threads = list(self._threads)
        if wait:
            for thread in threads:
                thread.join()

    def _start_thread(self) -> None:
        self._started += 1
        thread = threading.Thread(target=self._run, name=f"{self._name}-{self._started}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _run(self) -> None:
        while (task := self._next()) is not None:
            future, call = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # the future carries it, as in the standard executors
                future.set_exception(error)
            else:
                future.set_result(result)
            del task, future, call  # keep nothing alive while waiting

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            while not self._work:
                if self._shut:
                    break
                self._idle += 1
                woken = self._changed.wait(self._idle_seconds)
                self._idle -= 1
                if not woken and not self._work:
                    break
            if self._work:
                return self._work.popleft()
            self._threads.discard(threading.current_thread())
            return None
