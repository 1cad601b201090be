"""The pool for calls that may hang: bounded, never short of threads for calls that return, no thread left over."""

from __future__ import annotations

import threading
import time

import pytest
from stream_fakes import WAIT

from kindling_dagster.streaming.probes import Probe, ProbePool


def threads(name: str) -> int:
    return sum(thread.name.startswith(f"{name}-") for thread in threading.enumerate())


def until(true: object) -> None:
    limit = time.monotonic() + WAIT
    while not true():  # type: ignore[operator]
        assert time.monotonic() < limit
        time.sleep(0.002)


def test_no_more_than_its_size_at_once() -> None:
    pool = ProbePool(3, "bounded")
    lock, running, most, done = threading.Lock(), 0, 0, threading.Semaphore(0)

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        done.release()

    for _ in range(30):
        pool.submit(call)
    for _ in range(30):
        assert done.acquire(timeout=WAIT)
    assert 1 < most <= 3
    pool.close()
    until(lambda: threads("bounded") == 0)


def test_calls_that_hang_are_replaced_and_their_threads_end() -> None:
    pool = ProbePool(2, "hanging")
    release = threading.Event()
    probes: list[Probe] = []
    for _ in range(6):
        probe = pool.submit(lambda: release.wait(WAIT) and None)
        probes.append(probe)
        until(lambda probe=probe: probe.began is not None)
        pool.give_up(probe)
        pool.give_up(probe)  # twice makes no further room
    assert threads("hanging") <= 8
    answered = threading.Event()
    pool.submit(answered.set)
    assert answered.wait(WAIT)
    release.set()
    until(lambda: all(probe.done for probe in probes))
    until(lambda: threads("hanging") <= 2)
    again = threading.Event()
    pool.submit(again.set)
    assert again.wait(WAIT)
    pool.close()
    until(lambda: threads("hanging") == 0)


def test_what_has_not_begun_cannot_be_given_up() -> None:
    pool = ProbePool(1, "waiting")
    release, begun = threading.Event(), threading.Event()
    pool.submit(lambda: begun.set() or (release.wait(WAIT) and None))
    assert begun.wait(WAIT)
    waiting = pool.submit(lambda: None)
    pool.give_up(waiting)
    assert not waiting.given_up
    assert threads("waiting") == 1
    release.set()
    until(lambda: waiting.done)
    pool.close()


def test_a_call_that_raises_costs_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    pool = ProbePool(1, "raising")
    pool.submit(lambda: 1 / 0 and None)
    answered = threading.Event()
    pool.submit(answered.set)
    assert answered.wait(WAIT)
    assert "A look at a query failed" in caplog.text
    pool.close()
    with pytest.raises(ValueError, match="size"):
        ProbePool(0)
