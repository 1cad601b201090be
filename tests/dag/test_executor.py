from __future__ import annotations

import contextvars
import json
import random
import threading
from collections import Counter
from types import SimpleNamespace

import pytest
from fake_pipes import (
    FAILED,
    OK,
    PATIENCE,
    SKIPPED,
    STRATEGIES,
    STUCK,
    UPSTREAM,
    FakeCanceller,
    Watch,
    statuses,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kindling_dagster.dag.executor import GenerationExecutor
from kindling_dagster.dag.results import PipeOutcome
from kindling_dagster.engines.base import LogLine, PipeOptions, PipeStarted, RunOptions
from kindling_dagster.errors import PlanError, RunError


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
        mine = {"pipe long", "pipe short", "pipe later"}
        assert not mine & {thread.name for thread in threading.enumerate()}


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
