"""Signals: typed emits against plain blinker, what async emits cost, and the bridge to Dagster per pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from time import perf_counter, sleep, thread_time
from typing import Any

import blinker
from dagster import AssetKey, AssetSpec, DagsterInstance, MaterializeResult, materialize, multi_asset
from kindling.signaling import BlinkerSignalProvider, SignalEmitter

from benchmarks.harness import Case
from kindling_dagster.dag.results import PipeResult, PipeStatus
from kindling_dagster.engines.base import PipeFinished, PipeStarted, RunEvent, SignalSeen
from kindling_dagster.manifest import AppRef, EntitySpec, Location, Manifest, PipeSpec
from kindling_dagster.signals.bridge import StepAsset, StepReporter
from kindling_dagster.signals.bridge_outputs import BridgeContext
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
    yield from bridge_cases()


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


# -- the bridge

PIPES = 100
SIGNALS = (
    "orchestrator.pipe_started",
    "datapipes.before_run",
    "datapipes.before_pipe",
    "entity.before_read",
    "entity.after_read",
    "read.after_read",
    "persist.before_persist",
    "entity.before_merge",
    "entity.after_merge",
    "persist.after_persist",
    "datapipes.after_pipe",
    "datapipes.after_run",
    "orchestrator.pipe_completed",
)
"""What one pipe sends that reads one table and merges into another."""


def bridge_cases() -> Iterator[Case]:
    """A step of 100 pipes: reported by the bridge, against one that yields bare MaterializeResults."""
    app, events = run_of_pipes(PIPES)
    yield Case(
        f"bridge, {PIPES} pipes in a step, per pipe",
        ours=per_pipe(lambda: run_step(app, lambda context: reported(context, app, events))),
        other=per_pipe(lambda: run_step(app, lambda _: bare(app))),
        other_name="bare MaterializeResults",
        goal=GOAL,
        units="µs",
        runs=3,
    )
    yield Case(
        "bridge alone, its log lines and events discarded, per pipe",
        ours=per_pipe(lambda: list(reported(Discarding(), app, events))),
        units="µs",
    )


def run_of_pipes(count: int) -> tuple[Manifest, list[RunEvent]]:
    """An app of so many pipes, and what a run of them tells."""
    ids = [f"silver.t{number}" for number in range(count)]
    entities = tuple(
        EntitySpec(id_, id_, "delta", Location("path", f"lake/{id_}")) for id_ in ("bronze.s", *ids)
    )
    pipes = tuple(
        PipeSpec(f"p{number}", f"p{number}", input_entity_ids=("bronze.s",), output_entity_id=id_)
        for number, id_ in enumerate(ids)
    )
    events: list[RunEvent] = []
    for number, id_ in enumerate(ids):
        events.append(PipeStarted(f"p{number}", 1, 1_000.0))
        events += [SignalSeen(name, told(name, f"p{number}", id_)) for name in SIGNALS]
        events.append(PipeFinished(committed(f"p{number}", id_)))
    return Manifest(AppRef("bench", "local", "packages", "recorder"), entities, pipes), events


def told(name: str, pipe_id: str, entity_id: str) -> Mapping[str, Any]:
    """A signal's payload as an engine hands it on."""
    about = {"pipe_id": pipe_id, "pipe_ids": [pipe_id], "output_entity_id": entity_id, "entity_id": entity_id}
    return decode(name, {**about, "duration_seconds": 1.5, "run_id": "run"}).to_data()


def committed(pipe_id: str, entity_id: str) -> PipeResult:
    """The end of a pipe that wrote a Delta table of ten columns."""
    metrics = {"rows_written": 1_000, "rows_inserted": 400, "rows_updated": 600}
    metadata = {
        "rows": 10_000,
        "bytes": 1 << 20,
        "files": 4,
        "version": 7,
        "uri": f"lake/{entity_id}",
        "schema": [{"name": f"column{number}", "type": "string"} for number in range(10)],
        "commits": [{"operation": "MERGE", "metrics": metrics}],
    }
    return PipeResult(pipe_id, PipeStatus.SUCCEEDED, 0, 1_000.0, 1_010.0, attempts=1, metadata=metadata)


def keys(app: Manifest) -> list[AssetKey]:
    """The assets of the step, by pipe."""
    return [AssetKey(pipe.output_entity_id.split(".")) for pipe in app.pipes]


def reported(context: Any, app: Manifest, events: Sequence[RunEvent]) -> Iterator[MaterializeResult[Any]]:
    """The step's body with the bridge."""
    assets = [
        StepAsset(key, pipe.output_entity_id, (pipe.id,))
        for key, pipe in zip(keys(app), app.pipes, strict=True)
    ]
    reporter = StepReporter(context, assets, BridgeContext(app))
    for event in events:
        yield from reporter.handle(event)
    reporter.finish()


def bare(app: Manifest) -> Iterator[MaterializeResult[Any]]:
    """The step's body without anything of ours."""
    for key in keys(app):
        yield MaterializeResult(asset_key=key, metadata={"dagster/row_count": 10_000})


def run_step(app: Manifest, body: Callable[[Any], Iterator[MaterializeResult[Any]]]) -> None:
    """Materialize the app's assets with this body, in this process, in an instance in memory."""

    @multi_asset(specs=[AssetSpec(key, skippable=True) for key in keys(app)], can_subset=True)
    def step(context):  # type: ignore[no-untyped-def]
        yield from body(context)

    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    assert materialize([step], instance=DagsterInstance.ephemeral(), run_config=quiet).success


class Discarding:
    """A step's context that stores nothing."""

    @property
    def log(self) -> Discarding:
        """Itself: every level of a log."""
        return self

    def info(self, *line: Any, **extra: Any) -> None:
        """Nothing."""

    debug = warning = error = log_event = info


def per_pipe(run: Callable[[], object]) -> Callable[[], float]:
    """A measurement of microseconds per pipe, of this thread's own time."""

    def measured() -> float:
        started = thread_time()
        run()
        return (thread_time() - started) / PIPES * 1e6

    return measured
