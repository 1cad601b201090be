from __future__ import annotations

import contextvars
import itertools
import json
import random
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindling_dagster.dag.executor import GenerationExecutor
from kindling_dagster.dag.results import PipeOutcome, PipeStatus
from kindling_dagster.engines.base import LogLine, PipeFinished, PipeOptions, PipeStarted, RunOptions
from kindling_dagster.errors import PlanError, RunError

OK, SKIPPED, FAILED = PipeStatus.SUCCEEDED, PipeStatus.SKIPPED, PipeStatus.FAILED
TIMED_OUT, CANCELLED, STUCK = PipeStatus.TIMED_OUT, PipeStatus.CANCELLED, PipeStatus.STUCK
UPSTREAM, NOT_STARTED = PipeStatus.UPSTREAM_FAILED, PipeStatus.NOT_STARTED
STRATEGIES = ["fail_fast", "continue", "skip_dependents"]
PATIENCE = 20.0
"""Seconds after which a wait that should have ended fails the test."""


class JobCancelled(Exception):
    """What a Spark action raises once its job group was cancelled."""


@dataclass
class FakeCanceller:
    """Spark's part, played with events: ``work`` is a Spark job that never ends by itself."""

    calls: Counter = field(default_factory=Counter)
    interrupts: Counter = field(default_factory=Counter)
    wrote: set = field(default_factory=set)
    entered: list = field(default_factory=list)
    jobs: dict = field(default_factory=dict)
    broken: bool = False

    @contextmanager
    def scope(self, pipe_id):
        self.entered.append((pipe_id, threading.get_ident()))
        yield

    def cancel(self, pipe_id):
        self.calls[pipe_id] += 1
        if job := self.jobs.get(pipe_id):
            job.set()
        if self.broken:
            raise ConnectionError("no JVM")

    def interrupt(self, pipe_id):
        self.interrupts[pipe_id] += 1

    def committed(self, pipe_id):
        return pipe_id in self.wrote

    def work(self, pipe_id):
        self.jobs[pipe_id] = job = threading.Event()
        assert job.wait(PATIENCE)
        raise JobCancelled(f"Job of {pipe_id} cancelled")


@dataclass
class Watch:
    """Keeps events, and lets pipes wait for them."""

    events: list = field(default_factory=list)
    threads: set = field(default_factory=set)
    moments: dict = field(default_factory=dict)
    then: object = None

    def __call__(self, event):
        self.events.append(event)
        self.threads.add(threading.get_ident())
        if isinstance(event, PipeStarted):
            self.moment("started", event.pipe_id).set()
        if isinstance(event, PipeFinished):
            self.moment("finished", event.result.pipe_id).set()
        if self.then:
            self.then(event)

    def moment(self, what, pipe_id):
        return self.moments.setdefault((what, pipe_id), threading.Event())

    def wait(self, what, pipe_id):
        assert self.moment(what, pipe_id).wait(PATIENCE), f"{pipe_id} never {what}"

    def results(self):
        return [event.result for event in self.events if isinstance(event, PipeFinished)]

    def log(self):
        return [event.message for event in self.events if isinstance(event, LogLine)]


def statuses(result):
    return {pipe_id: each.status for pipe_id, each in result.results.items()}


def spin_for_ever():
    """Python code that never ends, and swallows what ordinary exceptions it can."""
    for number in itertools.count():
        try:
            int(str(number % 7))
        except Exception:
            continue


GRAPH = {"bad": (), "good": (), "child": ("bad",), "grandchild": ("child",), "other": ("good",)}
ENDED_BADLY = {"failing": FAILED, "slow": TIMED_OUT, "spinning": TIMED_OUT, "stuck": STUCK}
REST = {
    "fail_fast": {"good": CANCELLED, "other": NOT_STARTED, "child": UPSTREAM, "grandchild": UPSTREAM},
    "continue": dict.fromkeys(("good", "other", "child", "grandchild"), OK),
    "skip_dependents": {"good": OK, "other": OK, "child": UPSTREAM, "grandchild": UPSTREAM},
}


@pytest.mark.parametrize("barrier", [False, True], ids=["dataflow", "barrier"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", [*ENDED_BADLY, "cancelled"])
def test_each_way_to_end_badly_under_each_strategy(kind, strategy, barrier):
    spark, watch, release = FakeCanceller(), Watch(), threading.Event()

    def run(pipe_id):
        if pipe_id == "bad":
            watch.wait("started", "good")
            if kind == "failing":
                raise ValueError("no good")
            if kind in ("slow", "cancelled"):
                spark.work("bad")
            if kind == "spinning":
                spin_for_ever()
            release.wait(PATIENCE)
        elif pipe_id == "good":
            if strategy == "fail_fast" or kind == "cancelled":
                spark.work("good")
            watch.wait("finished", "bad")
        return None

    executor = GenerationExecutor(
        2,
        True,
        error_strategy=strategy,
        barrier=barrier,
        pipe_options={"bad": PipeOptions(timeout=0.1)} if kind in ("slow", "spinning", "stuck") else {},
        canceller=spark,
        on_event=watch,
        grace=0.1 if kind == "stuck" else 1.0,
    )
    if kind == "cancelled":

        def cancel_once_both_run():
            watch.wait("started", "bad")
            watch.wait("started", "good")
            executor.cancel("Terminate was pressed")

        threading.Thread(target=cancel_once_both_run).start()
    result = executor.execute_plan(GRAPH, run)
    release.set()

    never = dict.fromkeys(("other", "child", "grandchild"), NOT_STARTED)
    expected = (
        {"bad": CANCELLED, "good": CANCELLED, **never}
        if kind == "cancelled"
        else {"bad": ENDED_BADLY[kind], **REST[strategy]}
    )
    assert statuses(result) == expected
    assert result.cancelled == ("Terminate was pressed" if kind == "cancelled" else "")
    assert Counter(each.pipe_id for each in watch.results()) == Counter(GRAPH.keys())
    for each in result.results.values():
        if each.status is UPSTREAM:
            assert each.cause == "bad"
        if kind != "cancelled" and each.status in (CANCELLED, NOT_STARTED):
            assert each.cause == "bad"
        assert (each.started_at is None) == (each.status in (UPSTREAM, NOT_STARTED))
    assert (result.results["bad"].error is None) == (kind == "cancelled")


@pytest.mark.parametrize("barrier", [False, True], ids=["dataflow", "barrier"])
def test_a_slow_arm_holds_up_only_a_barrier(barrier):
    watch = Watch()
    early = []

    def run(pipe_id):
        if pipe_id == "slow" and barrier:
            watch.wait("finished", "fast")
            early.append(watch.moment("started", "after_fast").wait(0.3))
        elif pipe_id == "slow":
            watch.wait("finished", "after_fast")  # fails unless it ends before the slow arm does

    diamond = {
        "a": (),
        "slow": ("a",),
        "fast": ("a",),
        "after_fast": ("fast",),
        "end": ("slow", "after_fast"),
    }
    result = GenerationExecutor(2, True, barrier=barrier, on_event=watch).execute_plan(diamond, run)
    assert result.ok
    assert early == ([False] if barrier else [])
    order = [each.pipe_id for each in watch.results()]
    assert (order.index("slow") < order.index("after_fast")) == barrier


def test_one_after_the_other_unless_parallel():
    watch, overlaps = Watch(), []

    def run(pipe_id):
        if pipe_id == "c":
            overlaps.append(watch.moment("started", "a").wait(0.2))

    result = GenerationExecutor(4, on_event=watch).execute_generation(["c", "a", "b"], run, index=3)
    assert overlaps == [False]
    assert [event.pipe_id for event in watch.events if isinstance(event, PipeStarted)] == ["c", "a", "b"]
    assert list(result.results) == ["c", "a", "b"]
    assert (result.generation, {each.generation for each in result.results.values()}) == (3, {3})
    assert result.counts == {"succeeded": 3}


def test_pipes_run_side_by_side_when_parallel():
    together = threading.Barrier(3, timeout=PATIENCE)
    assert GenerationExecutor(3, True).execute_generation(["a", "b", "c"], lambda _: together.wait()).ok


def test_what_a_pipe_returns_is_in_its_result():
    outcomes = {
        "rows": PipeOutcome(metadata={"rows": 3}),
        "nothing_new": PipeOutcome(skipped=True, reason="no new data"),
        "anything": {"not": "an outcome"},
    }
    result = GenerationExecutor().execute_plan(
        {"rows": (), "nothing_new": (), "anything": (), "after": ("nothing_new",)}, outcomes.get
    )
    assert statuses(result) == {"rows": OK, "nothing_new": SKIPPED, "anything": OK, "after": OK}
    assert result.results["rows"].metadata == {"rows": 3}
    assert result.results["nothing_new"].reason == "no new data"


def test_the_error_says_what_where_and_what_to_do():
    def run(pipe_id):
        return {}["missing"]

    result = GenerationExecutor().execute_generation(["a"], run)
    error = result.failed[0].error
    assert (error.pipe_id, error.type, error.message) == ("a", "KeyError", "'missing'")
    assert error.where == f"{__file__}:{run.__code__.co_firstlineno + 1}"
    assert "keyword" in error.suggestion
    assert "kindling_dagster/dag/" not in error.traceback


def test_results_are_plain_data():
    def run(pipe_id):
        if pipe_id == "b":
            raise ValueError("no")
        return PipeOutcome(metadata={"rows": 1})

    result = GenerationExecutor().execute_plan({"a": (), "b": ("a",), "c": ("b",)}, run)
    plain = json.loads(result.to_json())
    assert plain["counts"] == {"succeeded": 1, "failed": 1, "upstream_failed": 1}
    assert plain["results"]["b"]["error"]["type"] == "ValueError"
    assert plain["results"]["c"]["cause"] == "b"
    assert [each.pipe_id for each in result.not_run] == ["c"]
    assert [list(part.results) for part in result.generations] == [["a"], ["b"], ["c"]]
    assert (
        result.started_at <= result.results["a"].started_at <= result.results["b"].ended_at <= result.ended_at
    )


class TestAttempts:
    def test_tries_again_until_it_works(self):
        left, watch = Counter(a=2), Watch()

        def run(pipe_id):
            if left[pipe_id]:
                left[pipe_id] -= 1
                raise OSError("flaky")

        result = GenerationExecutor(attempts=3, backoff=0.01, on_event=watch).execute_plan(
            {"a": (), "b": ("a",)}, run
        )
        assert statuses(result) == {"a": OK, "b": OK}
        assert (result.results["a"].attempts, result.results["b"].attempts) == (3, 1)
        started = [(event.pipe_id, event.attempt) for event in watch.events if isinstance(event, PipeStarted)]
        assert started == [("a", 1), ("a", 2), ("a", 3), ("b", 1)]
        assert [line.split(" failed")[0] for line in watch.log()] == ["Pipe a", "Pipe a"]
        assert "next attempt in 0.02 s" in watch.log()[1]

    def test_other_pipes_run_in_the_pause(self):
        watch, tries = Watch(), []

        def run(pipe_id):
            if pipe_id == "a":
                tries.append(watch.moment("finished", "b").is_set())
                if len(tries) == 1:
                    raise OSError("flaky")

        result = GenerationExecutor(attempts=2, backoff=0.3, on_event=watch).execute_generation(
            ["a", "b"], run
        )
        assert result.ok
        assert tries == [False, True]

    @pytest.mark.parametrize(
        ("options", "error", "reason"),
        [
            (
                PipeOptions(attempts=3, backoff=0.01),
                ModuleNotFoundError("no polars"),
                "until something is changed",
            ),
            (
                PipeOptions(attempts=3, backoff=50.0, timeout=40.0),
                OSError("flaky"),
                "limit of 40 s would pass",
            ),
        ],
    )
    def test_does_not_try_where_it_is_of_no_use(self, options, error, reason):
        def run(pipe_id):
            raise error

        result = GenerationExecutor(pipe_options={"a": options}).execute_generation(["a"], run)
        assert (result.results["a"].status, result.results["a"].attempts) == (FAILED, 1)
        assert reason in result.results["a"].reason

    @pytest.mark.parametrize("how", ["fail_fast", "cancel"])
    def test_a_pause_ends_with_the_run(self, how):
        watch = Watch()

        def run(pipe_id):
            if pipe_id == "flaky":
                raise OSError("flaky")
            watch.wait("log", "flaky")
            if how == "cancel":
                executor.cancel("enough")
            else:
                raise ValueError("broken")

        watch.then = lambda event: isinstance(event, LogLine) and watch.moment("log", "flaky").set()
        executor = GenerationExecutor(
            2,
            True,
            error_strategy="fail_fast",
            pipe_options={"flaky": PipeOptions(attempts=2, backoff=1000.0)},
            on_event=watch,
        )
        flaky = executor.execute_generation(["flaky", "other"], run).results["flaky"]
        assert (flaky.status, flaky.attempts, flaky.error.type) == (FAILED, 1, "OSError")
        assert flaky.reason.startswith("not tried again")


class TestLimits:
    def test_cancelling_goes_on_until_the_thread_has_ended(self):
        """Each cancel ends one job; the pipe starts three, one after the other."""
        spark = FakeCanceller()

        def run(pipe_id):
            for _ in range(2):
                with pytest.raises(JobCancelled):
                    spark.work(pipe_id)
            spark.work(pipe_id)

        executor = GenerationExecutor(pipe_timeout=0.05, canceller=spark, grace=PATIENCE)
        result = executor.execute_generation(["a"], run)
        assert result.results["a"].status is TIMED_OUT
        assert spark.calls["a"] >= 3
        assert spark.interrupts["a"] == 0

    def test_the_error_shows_where_the_pipe_was_at_its_limit(self):
        result = GenerationExecutor(pipe_timeout=0.05, grace=1.0).execute_generation(
            ["a"], lambda _: spin_for_ever()
        )
        error = result.results["a"].error
        assert "did not finish within 0.05 s" in error.message
        assert error.where.startswith(__file__)
        assert "spin_for_ever" in error.traceback

    @pytest.mark.parametrize("committed", [False, True])
    def test_a_pipe_that_committed_all_the_same_has_succeeded(self, committed):
        spark = FakeCanceller()

        def run(pipe_id):
            with pytest.raises(JobCancelled):
                spark.work(pipe_id)
            if committed:
                return PipeOutcome(metadata={"version": 7})
            raise ValueError("cancelled")

        executor = GenerationExecutor(pipe_timeout=0.05, canceller=spark)
        result = executor.execute_plan({"a": (), "b": ("a",)}, lambda p: run(p) if p == "a" else None)
        assert statuses(result) == ({"a": OK, "b": OK} if committed else {"a": TIMED_OUT, "b": UPSTREAM})
        if committed:
            assert result.results["a"].metadata == {"version": 7}
            assert "finished while being cancelled" in result.results["a"].reason

    def test_a_pipe_that_raised_after_its_commit_has_succeeded(self):
        spark = FakeCanceller(wrote={"a"})
        executor = GenerationExecutor(pipe_timeout=0.05, canceller=spark)
        result = executor.execute_generation(["a"], spark.work)
        assert result.results["a"].status is OK
        assert "had committed when it was cancelled" in result.results["a"].reason

    def test_stuck_is_reported_with_its_stack_and_told_when_it_ends(self):
        spark, watch, release = FakeCanceller(), Watch(), threading.Event()

        def run(pipe_id):
            if pipe_id == "stuck":
                release.wait(PATIENCE)
            else:
                watch.wait("finished", "stuck")
                release.set()
                watch.wait("log", "stuck")

        watch.then = lambda event: isinstance(event, LogLine) and watch.moment("log", "stuck").set()
        executor = GenerationExecutor(
            2,
            True,
            pipe_options={"stuck": PipeOptions(timeout=0.05)},
            canceller=spark,
            on_event=watch,
            grace=0.3,
        )
        result = executor.execute_generation(["stuck", "other"], run)
        error = result.results["stuck"].error
        assert statuses(result) == {"stuck": STUCK, "other": OK}
        assert "release.wait(PATIENCE)" in error.traceback
        assert error.where.startswith(__file__)
        assert spark.interrupts["stuck"] >= 1
        assert watch.log() == ["Pipe stuck, reported as stuck, has ended: no write of it is known."]

    def test_a_stuck_pipe_gives_its_worker_back(self):
        release = threading.Event()
        executor = GenerationExecutor(pipe_options={"stuck": PipeOptions(timeout=0.05)}, grace=0.05)
        result = executor.execute_generation(
            ["stuck", "next"], lambda p: release.wait(PATIENCE) if p == "stuck" else None
        )
        release.set()
        assert statuses(result) == {"stuck": STUCK, "next": OK}

    def test_a_broken_canceller_is_told_once_and_the_pipe_still_ends(self):
        spark, watch = FakeCanceller(broken=True), Watch()
        executor = GenerationExecutor(pipe_timeout=0.05, canceller=spark, on_event=watch, grace=1.0)
        result = executor.execute_generation(["a"], lambda _: spin_for_ever())
        assert result.results["a"].status is TIMED_OUT
        assert spark.calls["a"] >= 2
        assert watch.log() == ["Pipe a cannot be cancelled in Spark: ConnectionError."]


def test_a_stuck_pipe_does_not_keep_the_process_alive():
    script = """
import threading
from kindling_dagster.dag.executor import GenerationExecutor
executor = GenerationExecutor(pipe_timeout=0.05, grace=0.05)
print(executor.execute_generation(["a"], lambda _: threading.Event().wait()).results["a"].status.value)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.returncode, done.stderr) == ("stuck", 0, "")


class TestCancel:
    def test_before_the_start_nothing_runs(self):
        executor = GenerationExecutor()
        executor.cancel("too late")
        result = executor.execute_plan({"a": (), "b": ("a",)}, lambda _: pytest.fail("ran"))
        assert statuses(result) == {"a": NOT_STARTED, "b": NOT_STARTED}
        assert result.cancelled == "too late"
        assert "too late" in result.results["a"].reason

    def test_it_holds_for_later_generations_too(self):
        executor = GenerationExecutor()
        first = executor.execute_generation(["a"], lambda _: executor.cancel())
        second = executor.execute_generation(["b"], lambda _: pytest.fail("ran"))
        assert (statuses(first), statuses(second)) == ({"a": OK}, {"b": NOT_STARTED})

    def test_what_fails_by_itself_while_others_are_stopped_stays_a_failure(self):
        """``second`` raises after ``first`` has ended and before the loop gets to cancelling it."""
        watch = Watch()

        def run(pipe_id):
            if pipe_id == "second":
                watch.wait("finished", "first")
            raise ValueError(pipe_id)

        def hold_the_loop(event):
            if isinstance(event, PipeFinished) and event.result.pipe_id == "first":
                for thread in threading.enumerate():
                    if thread.name == "pipe second":
                        thread.join(PATIENCE)

        watch.then = hold_the_loop
        executor = GenerationExecutor(
            2,
            True,
            error_strategy="fail_fast",
            pipe_options={"second": PipeOptions(attempts=2, backoff=0.0)},
            on_event=watch,
        )
        result = executor.execute_generation(["first", "second"], run)
        assert statuses(result) == {"first": FAILED, "second": FAILED}
        assert result.results["second"].attempts == 1
        assert "first did not succeed" in result.results["second"].reason


class TestPlan:
    """Two writers of one entity, a reader, and one that has to do with neither."""

    PLAN = SimpleNamespace(
        generations=[["first", "apart"], ["second"], ["reader"]],
        predecessors={"second": ("first",), "reader": ("first", "second")},
        ordering={"second": ("first",)},
    )

    def test_generations_are_the_plans(self):
        result = GenerationExecutor().execute_plan(self.PLAN, lambda _: None)
        assert [list(part.results) for part in result.generations] == self.PLAN.generations

    def test_a_writer_runs_though_the_one_before_it_failed(self):
        def run(pipe_id):
            if pipe_id == "first":
                raise ValueError("no good")

        result = GenerationExecutor().execute_plan(self.PLAN, run)
        assert statuses(result) == {"first": FAILED, "apart": OK, "second": OK, "reader": UPSTREAM}

    def test_a_writer_does_not_run_beside_one_that_is_stuck(self):
        release = threading.Event()
        executor = GenerationExecutor(pipe_options={"first": PipeOptions(timeout=0.05)}, grace=0.05)
        result = executor.execute_plan(self.PLAN, lambda p: release.wait(PATIENCE) if p == "first" else None)
        release.set()
        assert statuses(result) == {"first": STUCK, "apart": OK, "second": UPSTREAM, "reader": UPSTREAM}


class TestListener:
    def test_events_come_in_the_calling_thread_and_in_order(self):
        watch = Watch()
        GenerationExecutor(3, True, on_event=watch).execute_plan({"a": (), "b": ("a",)}, lambda _: None)
        assert watch.threads == {threading.get_ident()}
        told = [
            ("start", event.pipe_id) if isinstance(event, PipeStarted) else ("end", event.result.pipe_id)
            for event in watch.events
        ]
        assert told == [("start", "a"), ("end", "a"), ("start", "b"), ("end", "b")]

    @pytest.mark.parametrize("at", ["later", "short"])
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_one_that_raises_cancels_the_run_and_gets_its_error_back(self, at, error):
        """At the start of ``later``, or the end of ``short``; ``long`` is running either way."""
        spark, ended, seen = FakeCanceller(), [], []

        def run(pipe_id):
            try:
                if pipe_id == "long":
                    spark.work(pipe_id)
            finally:
                ended.append(pipe_id)

        def listen(event):
            assert not any(seen)
            pipe_id = event.pipe_id if isinstance(event, PipeStarted) else event.result.pipe_id
            seen.append(pipe_id == at and isinstance(event, PipeStarted) == (at == "later"))
            if seen[-1]:
                raise error("listener")

        executor = GenerationExecutor(2, True, canceller=spark, on_event=listen)
        with pytest.raises(error, match="listener"):
            executor.execute_plan({"long": (), "short": (), "later": ("short",)}, run)
        assert set(ended) == {"long", "short"}
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("pipe ")]


def test_pipes_see_the_callers_context_variables_and_cannot_change_them():
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("caller's")
    seen = []

    def run(pipe_id):
        seen.append(variable.get())
        variable.set(pipe_id)

    GenerationExecutor().execute_generation(["a", "b"], run)
    assert seen == ["caller's", "caller's"]
    assert variable.get() == "caller's"


def test_each_pipe_runs_inside_the_cancellers_scope_in_its_own_thread():
    spark, ran = FakeCanceller(), []
    GenerationExecutor(canceller=spark).execute_generation(
        ["a", "b"], lambda p: ran.append((p, threading.get_ident()))
    )
    assert spark.entered == ran
    assert threading.get_ident() not in dict(ran).values()


def test_an_executor_runs_one_thing_at_a_time():
    executor = GenerationExecutor()
    result = executor.execute_generation(["a"], lambda _: executor.execute_generation(["b"], print))
    assert result.failed[0].error.type == RunError.__name__


def test_options_of_a_run_are_taken_over():
    options = RunOptions(
        max_workers=2,
        parallel=True,
        error_strategy="continue",
        pipes={"a": PipeOptions(attempts=2, backoff=0.0)},
    )
    together = threading.Barrier(2, timeout=PATIENCE)

    def run(pipe_id):
        if pipe_id != "after":
            together.wait()  # a and b on their first attempts; then a alone would wait in vain
        raise OSError("flaky")

    watch = Watch(then=lambda event: isinstance(event, LogLine) and together.abort())
    executor = GenerationExecutor.from_options(options, on_event=watch)
    result = executor.execute_plan({"a": (), "b": (), "after": ("b",)}, run)
    assert {pipe_id: each.attempts for pipe_id, each in result.results.items()} == {
        "a": 2,
        "b": 1,
        "after": 1,
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GenerationExecutor(0), "max_workers is 0"),
        (lambda: GenerationExecutor(attempts=0), "attempts is 0"),
        (lambda: GenerationExecutor(pipe_timeout=0), "timeout is 0"),
        (lambda: GenerationExecutor(pipe_options={"a": PipeOptions(backoff=-1)}), "backoff is -1"),
        (lambda: GenerationExecutor(error_strategy="sometimes"), "sometimes"),
        (lambda: GenerationExecutor().execute_generation(["a", "a"], print), "twice"),
        (lambda: GenerationExecutor().execute_plan({"a": ("b",), "b": ("a",)}, print), "circle"),
    ],
)
def test_nonsense_is_refused_before_anything_runs(make, message):
    with pytest.raises(PlanError, match=message):
        make()


@st.composite
def runs(draw):
    names = [f"p{number}" for number in range(draw(st.integers(1, 8)))]
    graph = {
        name: tuple(draw(st.sets(st.sampled_from(names[:index])))) if index else ()
        for index, name in enumerate(names)
    }
    failures = {name: draw(st.sampled_from([0, 0, 0, 1, 2])) for name in names}
    return graph, failures


@settings(max_examples=60, deadline=None)
@given(
    runs(), st.sampled_from(STRATEGIES), st.booleans(), st.integers(1, 4), st.integers(1, 2), st.integers()
)
def test_any_graph_with_any_failures(run, strategy, barrier, workers, attempts, seed):
    """``failures`` says how often each pipe fails before it works."""
    graph, failures = run
    dice, lock = random.Random(seed), threading.Lock()
    tries, ended, running, most = Counter(), {}, set(), [0]
    watch = Watch()

    def body(pipe_id):
        with lock:
            for earlier in graph[pipe_id]:
                assert earlier in ended
                assert ended[earlier] or strategy == "continue"
            running.add(pipe_id)
            most[0] = max(most[0], len(running))
            tries[pipe_id] += 1
            works = tries[pipe_id] > failures[pipe_id]
            turns = dice.randrange(200)
        for _ in range(turns):
            pass
        with lock:
            running.remove(pipe_id)
            if works or tries[pipe_id] == attempts:
                ended[pipe_id] = works
        if not works:
            raise OSError("flaky")

    executor = GenerationExecutor(
        workers,
        True,
        error_strategy=strategy,
        barrier=barrier,
        attempts=attempts,
        backoff=0.0,
        on_event=watch,
    )
    result = executor.execute_plan(graph, body)
    assert list(result.results) == list(graph)
    assert Counter(each.pipe_id for each in watch.results()) == Counter(graph.keys())
    assert most[0] <= workers
    for pipe_id, each in result.results.items():
        assert each.attempts == tries[pipe_id]
        assert each.error is None or each.error.type == "OSError", each.error
        if each.status is OK:
            assert tries[pipe_id] == failures[pipe_id] + 1
        elif each.status is UPSTREAM:
            assert strategy != "continue"
            assert not tries[pipe_id]
        if strategy != "fail_fast" and each.status is FAILED:
            assert tries[pipe_id] == attempts
