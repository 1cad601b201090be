from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from emitters import SIGNAL, WAIT, AsyncLoader, Gate, Loader, stats_of, subscribe
from kindling.signaling import BlinkerSignalProvider

from kindling_dagster.signals.dispatch import SignalDispatcher
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.payloads import PipeExecutePayload
from kindling_dagster.signals.settings import Backpressure, SignalSettings


@pytest.fixture
def provider() -> BlinkerSignalProvider:
    return BlinkerSignalProvider()


@pytest.mark.parametrize(
    ("cls", "setting", "expected"),
    [
        (Loader, None, False),
        (Loader, True, True),
        (Loader, ("orders.after_*",), True),
        (Loader, ("persist.*",), False),
        (AsyncLoader, None, True),
        (AsyncLoader, False, False),
        (AsyncLoader, ("!orders.*",), False),
        (Loader, ("orders.*", "!orders.after_load"), False),
        (Loader, ("!orders.after_load", "orders.*"), True),
        (AsyncLoader, ("persist.*",), True),
    ],
)
def test_sync_or_async_by_class_and_settings(
    provider: BlinkerSignalProvider, cls: type[Loader], setting: Any, expected: bool
) -> None:
    threads: list[str] = []
    subscribe(provider, SIGNAL, lambda sender: threads.append(threading.current_thread().name))
    loader = cls(provider, asynchronous=setting)
    loader.emit(SIGNAL)
    assert loader.shutdown_signals(WAIT)
    assert [name.startswith("kindling-signals") for name in threads] == [expected]


def test_the_call_overrides_class_and_settings(provider: BlinkerSignalProvider) -> None:
    here = threading.current_thread()
    seen: list[bool] = []
    name = "datapipes.after_pipe"
    subscribe(provider, name, lambda sender, **kwargs: seen.append(threading.current_thread() is here))
    payload = PipeExecutePayload(signal=name)
    loader = AsyncLoader(provider, asynchronous=True)
    loader.emit_payload(payload, asynchronous=False)
    loader.emit_payload(payload)
    loader.shutdown_signals(WAIT)
    sync = Loader(provider, asynchronous=False)
    sync.emit_async(name)
    sync.shutdown_signals(WAIT)
    assert seen == [True, False, False]


@pytest.mark.parametrize("pool", ["own", "ThreadPoolExecutor"])
def test_nothing_is_lost_from_eight_threads_under_block(provider: BlinkerSignalProvider, pool: str) -> None:
    """10,000 signals of four names, a queue of 50, a subscriber slower than the emitters."""
    names = ["orders.after_load", "orders.before_load", "orders.row_changed", "datapipes.after_pipe"]
    got: dict[str, list[tuple[int, int]]] = {name: [] for name in names}

    def slow(name: str) -> Any:
        def receiver(sender: Any, thread: int, n: int) -> None:
            if n % 50 == 0:
                time.sleep(0.001)
            got[name].append((thread, n))

        return receiver

    for name in names:
        subscribe(provider, name, slow(name))
    settings = SignalSettings(capacity=50)
    executor = ThreadPoolExecutor(4) if pool != "own" else None
    dispatcher = SignalDispatcher(settings, executor)
    loader = AsyncLoader(provider, capacity=50, dispatcher=dispatcher)

    def emit(thread: int) -> None:
        for n in range(1250):
            loader.emit(names[n % 4], thread=thread, n=n)

    with ThreadPoolExecutor(8) as emitters:
        list(emitters.map(emit, range(8)))
    assert dispatcher.shutdown(WAIT)
    if executor:
        executor.shutdown()

    assert sum(map(len, got.values())) == 10_000
    for index, name in enumerate(names):
        for thread in range(8):
            numbers = [n for t, n in got[name] if t == thread]
            assert numbers == list(range(index, 1250, 4)), (
                "each thread's signals in its order, none lost or twice"
            )
    for row in loader.signal_stats():
        sent = len(got[row.signal])
        assert (row.emitted, row.delivered, row.dropped, row.pending) == (sent, sent, 0, 0)


def test_counts_add_up_when_the_oldest_are_dropped(provider: BlinkerSignalProvider) -> None:
    gate = subscribe(provider, SIGNAL, Gate())
    loader = AsyncLoader(provider, capacity=10, backpressure=Backpressure.DROP_OLDEST)
    loader.emit(SIGNAL, n=-1)
    assert gate.entered.wait(WAIT)

    def emit(thread: int) -> None:
        for n in range(1250):
            loader.emit(SIGNAL, n=thread * 1250 + n)

    with ThreadPoolExecutor(8) as emitters:
        list(emitters.map(emit, range(8)))
    held = stats_of(loader)
    assert (held.emitted, held.delivered, held.dropped, held.pending) == (10_001, 0, 9_990, 11)
    loader.emit(SIGNAL, n="last")
    gate.opened.set()
    assert loader.shutdown_signals(WAIT)
    done = stats_of(loader)
    assert done.emitted == done.delivered + done.dropped == 10_002
    assert done.delivered == len(gate.got) == 11
    assert gate.got[0] == -1
    assert gate.got[-1] == "last"


def test_emitting_costs_the_same_whatever_the_subscriber_takes(provider: BlinkerSignalProvider) -> None:
    """Median of an emit with a subscriber that hangs, against one that returns at once: far below its time."""
    gate = Gate()
    subscribe(provider, "orders.before_load", gate)
    subscribe(provider, SIGNAL, lambda sender, n: None)
    loader = AsyncLoader(provider, capacity=5_000)

    def median_seconds(name: str) -> float:
        taken = []
        for n in range(2_000):
            start = time.perf_counter()
            loader.emit(name, n=n)
            taken.append(time.perf_counter() - start)
        return sorted(taken)[len(taken) // 2]

    hanging = median_seconds("orders.before_load")
    assert gate.entered.wait(WAIT)
    quick = median_seconds(SIGNAL)
    gate.opened.set()
    assert loader.shutdown_signals(WAIT)
    assert hanging < 0.001
    assert hanging < 10 * quick


def test_a_hanging_subscriber_holds_up_its_own_signal_only_and_shows(provider: BlinkerSignalProvider) -> None:
    gate = subscribe(provider, SIGNAL, Gate())
    others: list[int] = []
    subscribe(provider, "orders.before_load", lambda sender, n: others.append(n))
    loader = AsyncLoader(provider, max_workers=2)
    loader.emit(SIGNAL, n=0)
    assert gate.entered.wait(WAIT)
    for n in range(100):
        loader.emit("orders.before_load", n=n)
        loader.emit(SIGNAL, n=n + 1)

    assert not loader.flush_signals(0.05)
    row = stats_of(loader)
    assert row.pending == 101
    assert row.running_seconds > 0
    gate.opened.set()
    assert loader.flush_signals(WAIT)
    assert others == list(range(100))
    assert gate.got == list(range(101))
    assert stats_of(loader).running_seconds == 0
    loader.shutdown_signals(WAIT)


def test_under_block_an_emit_waits_for_space(provider: BlinkerSignalProvider) -> None:
    gate = subscribe(provider, SIGNAL, Gate())
    loader = AsyncLoader(provider, capacity=1)
    loader.emit(SIGNAL, n=0)
    assert gate.entered.wait(WAIT)
    loader.emit(SIGNAL, n=1)
    emitted = threading.Event()
    thread = threading.Thread(target=lambda: (loader.emit(SIGNAL, n=2), emitted.set()))
    thread.start()
    assert not emitted.wait(0.1)
    gate.opened.set()
    assert emitted.wait(WAIT)
    thread.join()
    assert loader.shutdown_signals(WAIT)
    assert gate.got == [0, 1, 2]


def test_a_run_goes_on_past_a_subscriber_that_hangs_under_block(
    provider: BlinkerSignalProvider, caplog: pytest.LogCaptureFixture
) -> None:
    gate = subscribe(provider, SIGNAL, Gate())
    loader = AsyncLoader(provider, capacity=2, stall_after=0.05)
    loader.emit(SIGNAL, n=0)
    assert gate.entered.wait(WAIT)
    for n in range(1, 8):
        loader.emit(SIGNAL, n=n)
    row = stats_of(loader)
    assert row.stalled
    assert (row.emitted, row.dropped, row.pending) == (8, 5, 3)
    assert sum("no progress" in record.message for record in caplog.records) == 1
    gate.opened.set()
    assert loader.flush_signals(WAIT)
    assert not stats_of(loader).stalled
    assert gate.got == [0, 6, 7]
    loader.shutdown_signals(WAIT)


def test_all_threads_hanging_stalls_the_others_but_never_the_emitter(provider: BlinkerSignalProvider) -> None:
    gate = subscribe(provider, SIGNAL, Gate())
    got: list[int] = []
    subscribe(provider, "orders.before_load", lambda sender, n: got.append(n))
    loader = AsyncLoader(provider, max_workers=1, capacity=1, stall_after=0.05)
    loader.emit(SIGNAL)
    assert gate.entered.wait(WAIT)
    for n in range(4):
        loader.emit("orders.before_load", n=n)
    assert stats_of(loader, "orders.before_load").dropped == 3
    gate.opened.set()
    assert loader.shutdown_signals(WAIT)
    assert got == [3]


def test_a_subscriber_that_emits_its_own_signal_does_not_wait_for_itself(
    provider: BlinkerSignalProvider,
) -> None:
    got: list[int] = []

    def receiver(sender: AsyncSignalEmitter, n: int) -> None:
        got.append(n)
        if n < 50:
            sender.emit(SIGNAL, n=2 * n)
            sender.emit(SIGNAL, n=2 * n + 1)
            assert not sender.flush_signals(WAIT), "it would wait for itself"

    subscribe(provider, SIGNAL, receiver)
    loader = AsyncLoader(provider, capacity=1, max_workers=1)
    loader.emit(SIGNAL, n=1)
    deadline = time.monotonic() + WAIT
    while len(got) < 99 and time.monotonic() < deadline:
        assert loader.flush_signals(WAIT)
    assert sorted(got) == list(range(1, 100))
    assert loader.subscriber_failures() == {}
    loader.shutdown_signals(WAIT)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_what_a_subscriber_raises_in_the_pool_ends_nothing(
    provider: BlinkerSignalProvider, error: BaseException
) -> None:
    got: list[int] = []

    def receiver(sender: Any, n: int) -> None:
        if n == 0:
            raise error
        got.append(n)

    subscribe(provider, SIGNAL, receiver)
    loader = AsyncLoader(provider)
    for n in range(3):
        loader.emit(SIGNAL, n=n)
    assert loader.shutdown_signals(WAIT)
    assert got == [1, 2]
    assert stats_of(loader).failures == 1
    assert sum(loader.subscriber_failures().values()) == 1


def test_after_shutdown_signals_are_still_delivered(provider: BlinkerSignalProvider) -> None:
    here = threading.current_thread()
    seen: list[bool] = []
    subscribe(provider, SIGNAL, lambda sender: seen.append(threading.current_thread() is here))
    loader = AsyncLoader(provider)
    loader.emit(SIGNAL)
    assert loader.shutdown_signals(WAIT)
    assert loader.shutdown_signals(WAIT), "twice is no error"
    loader.emit(SIGNAL)
    assert seen == [False, True]


def test_emitting_while_shutting_down_loses_nothing(provider: BlinkerSignalProvider) -> None:
    for _ in range(20):
        got: list[int] = []
        signal = provider.create_signal(SIGNAL)
        receiver = subscribe(provider, SIGNAL, lambda sender, n, got=got: got.append(n))
        loader = AsyncLoader(provider)
        started = threading.Event()

        def emit(loader: Loader = loader, started: threading.Event = started) -> None:
            for n in range(300):
                loader.emit(SIGNAL, n=n)
                if n == 50:
                    started.set()

        thread = threading.Thread(target=emit)
        thread.start()
        assert started.wait(WAIT)
        loader.shutdown_signals(WAIT)
        thread.join()
        loader.flush_signals(WAIT)
        signal.disconnect(receiver)
        assert sorted(got) == list(range(300))


def test_a_shared_dispatcher_keeps_order_across_emitters_and_is_not_shut(
    provider: BlinkerSignalProvider,
) -> None:
    got: list[int] = []
    subscribe(provider, SIGNAL, lambda sender, n: got.append(n))
    dispatcher = SignalDispatcher()
    first, second = (AsyncLoader(provider, dispatcher=dispatcher) for _ in range(2))
    for n in range(0, 100, 2):
        first.emit(SIGNAL, n=n)
        second.emit(SIGNAL, n=n + 1)
    assert first.shutdown_signals(WAIT)
    second.emit(SIGNAL, n=100)
    assert dispatcher.shutdown(WAIT)
    assert got == list(range(101))


def test_an_async_emit_without_subscribers_starts_no_thread(provider: BlinkerSignalProvider) -> None:
    loader = AsyncLoader(provider)
    loader.emit(SIGNAL)
    assert loader.signal_stats() == ()


def test_the_end_of_the_process() -> None:
    """What still waits is delivered; a subscriber that never returns does not keep the process."""
    script = """
import atexit, time
from kindling.signaling import BlinkerSignalProvider
from kindling_dagster.signals import dispatch
from kindling_dagster.signals.emitter import AsyncSignalEmitter
got = []
class Loader(AsyncSignalEmitter):
    EMITS = ["orders.after_load", "orders.before_load"]
provider = BlinkerSignalProvider()
def slow(sender, n):
    if n % 50 == 0: time.sleep(0.001)
    got.append(n)
provider.create_signal("orders.after_load").connect(slow, weak=False)
provider.create_signal("orders.before_load").connect(lambda sender, n: time.sleep(3600), weak=False)
atexit.register(lambda: print(len(got)))
dispatch._EXIT_SECONDS = 2.0
for name, count in (("orders.before_load", 900), ("orders.after_load", 2000)):
    loader = Loader()
    loader._init_signal_emitter(provider)
    for n in range(count):
        loader.emit_async(name, n=n)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "2000"), ended.stderr
