from __future__ import annotations

import threading
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from dag_apps import app, pipe
from fake_pipes import (
    CANCELLED,
    FAILED,
    NOT_STARTED,
    OK,
    PATIENCE,
    SKIPPED,
    STUCK,
    TIMED_OUT,
    UPSTREAM,
    FakeCanceller,
    Watch,
    statuses,
)
from kindling.signaling import BlinkerSignalProvider

from kindling_dagster.dag.graph import PipeGraph
from kindling_dagster.dag.orchestrator import ExecutionOrchestrator
from kindling_dagster.dag.plan import ExecutionPlan
from kindling_dagster.dag.results import PipeOutcome
from kindling_dagster.dag.strategy import ExecutionStrategy
from kindling_dagster.engines.base import PipeFinished, PipeOptions, PipeStarted, RunOptions
from kindling_dagster.errors import CycleError, PlanError
from kindling_dagster.signals.payloads import decode

DIAMOND = app(
    [
        pipe("start", "src", "e.start"),
        pipe("slow", "e.start", "e.slow"),
        pipe("fast", "e.start", "e.fast"),
        pipe("after_fast", "e.fast", "e.after_fast"),
        pipe("end", "e.slow e.after_fast", "e.end"),
    ]
)
PIPES = ["end", "after_fast", "slow", "fast", "start"]


@dataclass
class Heard:
    """Every signal of the orchestrator, decoded, in the order it was sent."""

    payloads: list = field(default_factory=list)
    provider: BlinkerSignalProvider = field(default_factory=BlinkerSignalProvider)

    def __post_init__(self):
        for name in ExecutionOrchestrator.EMITS:
            self.provider.create_signal(name).connect(self._receiver(name), weak=False)

    def _receiver(self, name):
        def receive(sender, **payload):
            assert None not in payload.values(), "what is not known is left out"
            self.payloads.append(decode(name, payload))

        return receive

    def names(self):
        return [payload.signal.removeprefix("orchestrator.") for payload in self.payloads]

    def lines(self):
        """Names with the generation's number or the pipe's id."""
        return [
            " ".join(
                str(part)
                for part in (
                    payload.signal.removeprefix("orchestrator."),
                    getattr(payload, "generation", None),
                    getattr(payload, "pipe_id", None),
                )
                if part is not None
            )
            for payload in self.payloads
        ]

    def of(self, *names):
        return [p for p in self.payloads if p.signal.removeprefix("orchestrator.") in names]

    def one(self, name):
        (found,) = self.of(name)
        return found


def execute(run, manifest=DIAMOND, pipes=PIPES, **given):
    heard = Heard()
    orchestrator = ExecutionOrchestrator(manifest, run, signals=heard.provider, run_id="run-1", **given)
    return heard, orchestrator.execute(pipes)


def test_graph_plan_run_and_the_signals_that_tell_of_it():
    ran = []
    heard, result = execute(ran.append, durations=dict.fromkeys(PIPES, 2.0) | {"slow": 1.0})
    assert ran == ["start", "fast", "after_fast", "slow", "end"], "the head of the longest path first"
    assert result.ok
    assert [list(part.results) for part in result.generations] == [
        ["start"],
        ["slow", "fast"],
        ["after_fast"],
        ["end"],
    ]
    assert heard.lines() == [
        "plan_generated",
        "execution_started",
        "generation_started 0",
        "pipe_started start",
        "pipe_completed start",
        "generation_completed 0",
        "generation_started 1",
        "pipe_started fast",
        "pipe_completed fast",
        "generation_started 2",
        "pipe_started after_fast",
        "pipe_completed after_fast",
        "generation_completed 2",
        "pipe_started slow",
        "pipe_completed slow",
        "generation_completed 1",
        "generation_started 3",
        "pipe_started end",
        "pipe_completed end",
        "generation_completed 3",
        "execution_completed",
    ]
    assert {payload.run_id for payload in heard.payloads} == {"run-1"}


def test_payloads_say_what_was_planned_and_what_came_of_it():
    heard, result = execute(lambda _: None, options=RunOptions(parallel=True, max_workers=2))
    plan = heard.one("plan_generated")
    assert (plan.strategy, plan.pipe_count, plan.generation_count, plan.max_parallelism) == ("batch", 5, 4, 2)
    assert sorted(plan.pipe_ids) == sorted(PIPES)
    assert list(map(sorted, plan.metadata["generations"])) == [
        ["start"],
        ["fast", "slow"],
        ["after_fast"],
        ["end"],
    ]
    begun = heard.one("execution_started")
    assert (begun.strategy, begun.mode, begun.parallel) == ("batch", "data_flow", True)
    assert (begun.pipe_count, begun.generation_count) == (5, 4)
    first = heard.of("generation_started")[0]
    assert (first.generation, first.pipe_ids, first.pipe_count) == (0, ["start"], 1)
    for part, told in zip(result.generations, sorted_by_generation(heard), strict=True):
        assert (told.success_count, told.failed_count, told.skipped_count) == (len(part.results), 0, 0)
        assert told.duration_seconds >= 0
    ended = heard.one("execution_completed")
    assert (ended.success_count, ended.failed_count, ended.skipped_count) == (5, 0, 0)
    assert ended.all_succeeded is True
    assert ended.duration_seconds == result.duration_seconds


def sorted_by_generation(heard):
    return sorted(heard.of("generation_completed"), key=lambda payload: payload.generation)


@pytest.mark.parametrize("barrier", [False, True], ids=["data_flow", "barrier"])
def test_generations_overlap_unless_there_is_a_barrier(barrier):
    watch = Watch()

    def run(pipe_id):
        if pipe_id == "slow" and not barrier:
            watch.wait("finished", "after_fast")

    heard, result = execute(
        run, options=RunOptions(parallel=True, max_workers=2, barrier=barrier), on_event=watch
    )
    assert result.ok
    assert heard.one("execution_started").mode == ("barrier" if barrier else "data_flow")
    generations = [line for line in heard.lines() if line.startswith("generation")]
    one_by_one = [f"generation_{what} {number}" for number in range(4) for what in ("started", "completed")]
    assert (generations == one_by_one) == barrier
    assert sorted(generations) == sorted(one_by_one)
    assert heard.names()[-1] == "execution_completed"


ENDINGS = {
    "succeeded": (OK, "pipe_completed"),
    "nothing_new": (SKIPPED, "pipe_skipped"),
    "failing": (FAILED, "pipe_failed"),
    "slow": (TIMED_OUT, "pipe_timed_out"),
    "stuck": (STUCK, "pipe_stuck"),
}


@pytest.mark.parametrize("kind", ENDINGS)
def test_each_end_of_a_pipe_has_its_signal(kind, monkeypatch):
    release, spark = threading.Event(), FakeCanceller()

    def run(pipe_id):
        if pipe_id == "child" or kind == "succeeded":
            return None
        if kind == "nothing_new":
            return PipeOutcome(skipped=True, reason="no new data")
        if kind == "failing":
            raise ModuleNotFoundError("no module named polars")
        return spark.work(pipe_id) if kind == "slow" else release.wait(PATIENCE)

    heard = Heard()
    orchestrator = ExecutionOrchestrator(
        app([pipe("p", "src", "e.p"), pipe("child", "e.p", "e.child")]),
        run,
        signals=heard.provider,
        options=RunOptions(
            pipes={"p": PipeOptions(timeout=0.05, attempts=1)} if kind in ("slow", "stuck") else {}
        ),
        canceller=spark,
        grace=0.1 if kind == "stuck" else 5.0,
    )
    result = orchestrator.execute(["p", "child"])
    release.set()
    status, signal = ENDINGS[kind]
    assert statuses(result) == {"p": status, "child": OK if status.ok else UPSTREAM}
    told = next(payload for payload in heard.of(signal) if payload.pipe_id == "p")
    assert told.duration_seconds == result.results["p"].duration_seconds
    child = heard.of("pipe_completed" if status.ok else "pipe_skipped")[-1]
    assert child.pipe_id == "child"
    if kind == "nothing_new":
        assert (told.reason, told.upstream_pipe) == ("no new data", None)
        return
    if status.ok:
        assert (told.attempts, told.is_streaming) == (1, False)
        return
    error = result.results["p"].error
    assert (told.error, told.error_type) == (error.message, error.type)
    assert told.suggestion
    assert child.upstream_pipe == "p"
    assert child.reason == f"not started: p did not succeed ({status.value})"
    if kind == "slow":
        assert told.limit_seconds == 0.05
    failed = heard.one("execution_failed")
    assert (failed.failed_pipes, failed.error) == (["p"], "1 of 2 pipes failed")
    assert failed.error_type == error.type
    completed = heard.one("execution_completed")
    assert (completed.success_count, completed.failed_count, completed.skipped_count) == (0, 1, 1)
    assert completed.all_succeeded is False
    assert heard.names()[-2:] == ["execution_failed", "execution_completed"]


def test_a_pipe_that_is_tried_again_starts_once_and_each_try_to_come_is_told():
    left, watch = ["second", "first"], Watch()

    def run(pipe_id):
        if left:
            raise OSError(left.pop())

    options = RunOptions(pipes={"start": PipeOptions(attempts=3, backoff=0.01)})
    heard, result = execute(run, pipes=["start"], options=options, on_event=watch)
    assert [line for line in heard.lines() if line.endswith(" start")] == [
        "pipe_started start",
        "pipe_retrying start",
        "pipe_retrying start",
        "pipe_completed start",
    ]
    told = heard.of("pipe_retrying")
    assert [(p.attempt, p.max_attempts, p.interval_seconds) for p in told] == [(1, 3, 0.01), (2, 3, 0.02)]
    assert [(p.error_type, p.error) for p in told] == [("OSError", "first"), ("OSError", "second")]
    assert heard.one("pipe_completed").attempts == result.results["start"].attempts == 3
    assert watch.log() == [], "the signal says it already"


def test_without_signals_a_pipe_that_is_tried_again_is_a_log_line():
    left, watch = ["once"], Watch()

    def run(pipe_id):
        if left:
            raise OSError(left.pop())

    options = RunOptions(pipes={"start": PipeOptions(attempts=2, backoff=0.0)})
    ExecutionOrchestrator(DIAMOND, run, options=options, on_event=watch).execute(["start"])
    assert watch.log() == ["Pipe start failed on attempt 1 of 2 (OSError: once); next attempt in 0 s."]


def test_cancelled_before_the_start_nothing_runs_and_that_is_told():
    heard = Heard()
    orchestrator = ExecutionOrchestrator(DIAMOND, lambda _: pytest.fail("ran"), signals=heard.provider)
    orchestrator.cancel("not needed any more")
    result = orchestrator.execute(PIPES)
    assert set(statuses(result).values()) == {NOT_STARTED}
    assert heard.of("pipe_started", "generation_started") == []
    assert len(heard.of("pipe_skipped")) == 5
    assert [p.skipped_count for p in sorted_by_generation(heard)] == [1, 2, 1, 1]
    ended = heard.one("execution_cancelled")
    assert (ended.reason, ended.cancelled_count, ended.success_count) == ("not needed any more", 5, 0)
    assert heard.names()[-1] == "execution_cancelled"
    assert heard.of("execution_completed", "execution_failed") == []


def test_cancelled_while_it_runs_the_running_pipe_ends_and_that_is_told():
    spark, watch = FakeCanceller(), Watch()
    heard = Heard()

    def run(pipe_id):
        if pipe_id == "slow":
            spark.work(pipe_id)

    orchestrator = ExecutionOrchestrator(
        DIAMOND,
        run,
        signals=heard.provider,
        options=RunOptions(parallel=True, max_workers=1),
        durations=dict.fromkeys(PIPES, 1.0) | {"slow": 100.0},
        canceller=spark,
        on_event=watch,
    )

    def terminate():
        watch.wait("started", "slow")
        orchestrator.cancel("Terminate was pressed")

    thread = threading.Thread(target=terminate)
    thread.start()
    result = orchestrator.execute(PIPES)
    thread.join(PATIENCE)
    never = dict.fromkeys(("fast", "after_fast", "end"), NOT_STARTED)
    assert statuses(result) == {"start": OK, "slow": CANCELLED, **never}
    assert heard.one("pipe_cancelled").reason == "Terminate was pressed"
    ended = heard.one("execution_cancelled")
    assert (ended.reason, ended.success_count, ended.cancelled_count) == ("Terminate was pressed", 1, 4)
    assert heard.names()[-1] == "execution_cancelled"


def test_it_stays_cancelled():
    orchestrator = ExecutionOrchestrator(DIAMOND, lambda _: None)
    orchestrator.cancel("for good")
    assert orchestrator.execute(["start"]).cancelled == "for good"
    assert orchestrator.execute(["start"]).cancelled == "for good"


class OneByOne(ExecutionStrategy):
    """By name, one after another."""

    name = "one_by_one"

    def plan(self, graph: PipeGraph) -> ExecutionPlan:
        order = sorted(graph.pipe_ids)
        waits = {later: (earlier,) for earlier, later in pairwise(order)}
        return ExecutionPlan.arrange(self.name, graph, waits)


def test_a_strategy_of_ones_own_orders_the_run():
    ran = []
    heard = Heard()
    orchestrator = ExecutionOrchestrator(
        app([pipe(name, "src", f"e.{name}") for name in "cab"]), ran.append, signals=heard.provider
    )
    assert orchestrator.execute("cab", OneByOne()).ok
    assert ran == ["a", "b", "c"]
    plan = heard.one("plan_generated")
    assert (plan.strategy, plan.generation_count, plan.max_parallelism) == ("one_by_one", 3, 1)


@pytest.mark.parametrize(
    ("manifest", "pipes", "error"),
    [
        (DIAMOND, [], PlanError),
        (DIAMOND, ["start", "unknown"], PlanError),
        (app([pipe("a", "e.b", "e.a"), pipe("b", "e.a", "e.b")]), ["a", "b"], CycleError),
    ],
)
def test_what_cannot_be_planned_is_raised_and_nothing_is_told(manifest, pipes, error):
    heard = Heard()
    with pytest.raises(error):
        ExecutionOrchestrator(manifest, lambda _: None, signals=heard.provider).execute(pipes)
    assert heard.payloads == []


def test_a_signal_comes_before_its_event_on_the_same_thread():
    heard, order, threads = Heard(), [], set()
    for name in ("pipe_started", "pipe_completed"):
        heard.provider.create_signal(f"orchestrator.{name}").connect(
            lambda sender, name=name, **_: (order.append(name), threads.add(threading.get_ident())),
            weak=False,
        )

    def listen(event):
        order.append(type(event).__name__)
        threads.add(threading.get_ident())

    orchestrator = ExecutionOrchestrator(DIAMOND, lambda _: None, signals=heard.provider, on_event=listen)
    orchestrator.execute(["start"])
    assert order == ["pipe_started", PipeStarted.__name__, "pipe_completed", PipeFinished.__name__]
    assert threads == {threading.get_ident()}


def test_a_subscriber_that_raises_costs_the_run_nothing():
    heard = Heard()

    def failing(sender, **payload):
        raise ValueError("broken subscriber")

    for name in ExecutionOrchestrator.EMITS:
        heard.provider.create_signal(name).connect(failing, weak=False)
    orchestrator = ExecutionOrchestrator(DIAMOND, lambda _: None, signals=heard.provider)
    assert orchestrator.execute(PIPES).ok
    assert len(heard.payloads) == 21


def test_without_signals_it_runs_all_the_same():
    ran = []
    assert ExecutionOrchestrator(DIAMOND, ran.append).execute(PIPES).ok
    assert sorted(ran) == sorted(PIPES)


class FakeCache:
    """Records what the orchestrator asks of a cache."""

    def __init__(self):
        self.asked = []

    def begin(self, plan):
        self.asked.append(("begin", *sorted(plan.pipe_ids)))

    def done(self, pipe_id):
        self.asked.append(("done", pipe_id))

    def end(self):
        self.asked.append(("end",))

    def metrics(self):
        return {"e.start": {"hits": 1, "misses": 1}}


def test_the_cache_hears_of_begin_each_pipes_end_and_the_end():
    cache = FakeCache()
    heard, _ = execute(
        lambda pipe_id: cache.asked.append(("ran", pipe_id)), cache=cache, pipes=["start", "slow"]
    )
    assert cache.asked == [
        ("begin", "slow", "start"),
        ("ran", "start"),
        ("done", "start"),
        ("ran", "slow"),
        ("done", "slow"),
        ("end",),
    ]
    assert heard.one("execution_completed").cache_metrics == {"e.start": {"hits": 1, "misses": 1}}


def test_the_cache_ends_though_the_listener_raises():
    cache = FakeCache()

    def listen(event):
        raise RuntimeError("listener")

    with pytest.raises(RuntimeError, match="listener"):
        execute(lambda _: None, cache=cache, on_event=listen)
    assert cache.asked[-1] == ("end",)
