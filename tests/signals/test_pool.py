from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from kindling_dagster.signals.pool import DaemonThreadPool

WAIT = 30.0


def test_it_works_as_an_executor() -> None:
    with DaemonThreadPool(2) as pool:
        assert list(pool.map(lambda n: n * 2, range(50))) == [n * 2 for n in range(50)]
        failed = pool.submit(lambda: 1 // 0)
        assert isinstance(failed.exception(WAIT), ZeroDivisionError)
    with pytest.raises(RuntimeError):
        pool.submit(print)


def test_threads_are_bounded_daemons_and_end_when_idle() -> None:
    pool = DaemonThreadPool(3, "bounded", idle_seconds=0.01)
    barrier = threading.Barrier(4)
    seen: set[threading.Thread] = set()

    def work() -> None:
        seen.add(threading.current_thread())
        barrier.wait(WAIT)

    futures = [pool.submit(work) for _ in range(6)]
    barrier.wait(WAIT)
    barrier.wait(WAIT)
    for future in futures:
        future.result(WAIT)
    assert len(seen) == 3
    for thread in seen:
        assert thread.daemon
        thread.join(WAIT)
        assert not thread.is_alive()
    assert pool.submit(lambda: "again").result(WAIT) == "again"
    pool.shutdown()


def test_shutdown_does_what_was_submitted_or_cancels_it() -> None:
    entered, go = threading.Event(), threading.Event()

    def block() -> str:
        entered.set()
        assert go.wait(WAIT)
        return "done"

    pool = DaemonThreadPool(1)
    running, waiting = pool.submit(block), pool.submit(block)
    assert entered.wait(WAIT)
    pool.shutdown(wait=False)
    go.set()
    assert (running.result(WAIT), waiting.result(WAIT)) == ("done", "done")

    entered.clear(), go.clear()
    pool = DaemonThreadPool(1)
    running, waiting = pool.submit(block), pool.submit(block)
    assert entered.wait(WAIT)
    pool.shutdown(wait=False, cancel_futures=True)
    go.set()
    assert running.result(WAIT) == "done"
    with pytest.raises(CancelledError):
        waiting.result(WAIT)


def test_at_least_one_worker() -> None:
    with pytest.raises(ValueError):
        DaemonThreadPool(0)
