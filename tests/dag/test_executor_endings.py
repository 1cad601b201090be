from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter

import fake_pipes
import pytest
from fake_pipes import (
    CANCELLED,
    FAILED,
    NOT_STARTED,
    OK,
    PATIENCE,
    STRATEGIES,
    STUCK,
    TIMED_OUT,
    UPSTREAM,
    FakeCanceller,
    JobCancelled,
    Watch,
    spin_for_ever,
    statuses,
)

from kindling_dagster.dag.executor import GenerationExecutor
from kindling_dagster.dag.results import PipeOutcome
from kindling_dagster.engines.base import LogLine, PipeFinished, PipeOptions, PipeStarted

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
        assert error.where.startswith(fake_pipes.__file__)
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
