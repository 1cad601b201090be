"""Emitting signals: typed payloads against plain blinker, one receiver; and what async emits cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from time import perf_counter, sleep, thread_time
from typing import Any

import blinker
from kindling.signaling import BlinkerSignalProvider, SignalEmitter

from benchmarks.harness import Case
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.payloads import PersistPayload, PipeExecutePayload, decode

EMITS = 1_000
BATCHES = 30
GOAL = 2.0
NAME = "datapipes.after_pipe"


class Emitter(AsyncSignalEmitter):
    """Ours."""

    EMITS = [NAME]  # noqa: RUF012


class KindlingEmitter(SignalEmitter):
    """Kindling's own."""

    EMITS = [NAME]  # noqa: RUF012


def receive(sender: Any, **kwargs: Any) -> None:
    """The one receiver, on every side."""


def typed() -> PipeExecutePayload:
    """The payload that is sent."""
    return PipeExecutePayload(
        signal=NAME, pipe_id="silver.orders", pipe_name="Orders", duration_seconds=1.5, run_id="run"
    )


def emitters() -> tuple[Emitter, KindlingEmitter, blinker.Signal]:
    """One of each kind, with the receiver."""
    provider = BlinkerSignalProvider()
    provider.create_signal(NAME).connect(receive)
    ours, theirs, plain = Emitter(), KindlingEmitter(), blinker.Signal()
    ours._init_signal_emitter(provider)
    theirs._init_signal_emitter(provider)
    plain.connect(receive)
    return ours, theirs, plain


class Paired:
    """Nanoseconds of one call of each side, of this thread's own time, from batches that take turns.

    A batch takes a few milliseconds, so that a machine that slows down slows both sides; of each side the
    best batch counts, as timeit advises: what is above it is other work on the machine.
    """

    def __init__(self, ours: Callable[[], Any], other: Callable[[], Any]) -> None:
        self.calls = (ours, other)
        self.waiting: list[float | None] = [None, None]

    def ours(self) -> float:
        """Our side's figure."""
        return self._figure(0)

    def other(self) -> float:
        """The other side's figure."""
        return self._figure(1)

    def _figure(self, side: int) -> float:
        # The harness asks each side once a round: the first to be asked measures both.
        figure = self.waiting[side]
        if figure is None:
            batches = [(batch(self.calls[0]), batch(self.calls[1])) for _ in range(BATCHES)]
            self.waiting = [min(times) for times in zip(*batches, strict=True)]
            figure = self.waiting[side]
            assert figure is not None
        self.waiting[side] = None
        return figure


def batch(call: Callable[[], Any]) -> float:
    """Nanoseconds of one call, as the mean of a short batch."""
    started = thread_time()
    for _ in repeat(None, EMITS):
        call()
    return (thread_time() - started) / EMITS * 1e9


def nanoseconds(call: Callable[[], Any]) -> Callable[[], float]:
    """A measurement of one call's nanoseconds: the best batch."""
    return lambda: min(batch(call) for _ in range(BATCHES))


def cases() -> Iterator[Case]:
    """Synchronous emits with one receiver, asynchronous ones, and decoding."""
    ours, theirs, plain = emitters()
    payload = typed()

    def send_plain() -> None:
        plain.send(ours, pipe_id="silver.orders", pipe_name="Orders", duration_seconds=1.5, run_id="run")

    def send_kindling() -> None:
        theirs.emit(NAME, pipe_id="silver.orders", pipe_name="Orders", duration_seconds=1.5, run_id="run")

    sides: list[tuple[str, Callable[[], Any], str, Callable[[], Any], float | None]] = [
        (
            "make and emit a typed payload",
            lambda: ours.emit_payload(typed()),
            "plain blinker",
            send_plain,
            GOAL,
        ),
        ("emit a typed payload", lambda: ours.emit_payload(payload), "plain blinker", send_plain, GOAL),
        ("make and emit, against Kindling", lambda: ours.emit_payload(typed()), "emit", send_kindling, None),
    ]
    for name, mine, other_name, theirs_, goal in sides:
        pair = Paired(mine, theirs_)
        yield Case(name, ours=pair.ours, other=pair.other, other_name=other_name, goal=goal, units="ns")
    yield Case("emit asynchronously, receiver returns at once", ours=async_latency(busy=False), units="ns")
    yield Case(
        "emit asynchronously, receiver takes 1 ms",
        ours=async_latency(busy=True),
        other=async_latency(busy=False),
        other_name="receiver returns at once",
        units="ns",
    )
    committed = PersistPayload(signal="persist.after_persist", pipe_id="p", output_entity_id="silver.orders")
    kwargs = committed.to_kwargs()
    yield Case(
        "decode a payload", ours=nanoseconds(lambda: decode("persist.after_persist", kwargs)), units="ns"
    )
    yield Case(
        "decode and write as JSON", ours=nanoseconds(lambda: decode(NAME, kwargs).to_json()), units="ns"
    )


def async_latency(busy: bool) -> Callable[[], float]:
    """A measurement of the median nanoseconds an asynchronous emit keeps its caller."""

    def measured() -> float:
        provider = BlinkerSignalProvider()

        def slow(sender: Any, **kwargs: Any) -> None:  # noqa: ARG001
            if busy:
                sleep(0.001)

        provider.create_signal(NAME).connect(slow, weak=False)
        emitter = Emitter()
        emitter._init_signal_emitter(provider)
        payload = typed()
        taken = []
        for _ in range(900):  # below the queue's capacity: what is measured is not the waiting
            started = perf_counter()
            emitter.emit_payload(payload, asynchronous=True)
            taken.append(perf_counter() - started)
        emitter.shutdown_signals()
        return sorted(taken)[len(taken) // 2] * 1e9

    return measured
