from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kindling.signaling import BlinkerSignalProvider, SignalEmitter

from kindling_dagster.dag.cancellation import SparkCanceller, WriteGate
from kindling_dagster.dag.executor import GenerationExecutor
from kindling_dagster.dag.pipe_thread import PipeInterrupt
from kindling_dagster.dag.results import PipeStatus
from kindling_dagster.delta_log import table_version
from kindling_dagster.engines.base import PipeOptions
from kindling_dagster.errors import PipeCancelledError, SparkSetupError
from kindling_dagster.spark import build_session, session_is_up

PATIENCE = 120.0


class Persister(SignalEmitter):
    """Does what Kindling's persist step does around a write."""

    def __init__(self, signals):
        self._init_signal_emitter(signals)
        self.written = []

    def persist(self, pipe_id):
        payload = {"pipe_id": pipe_id, "output_entity_id": "gold.x"}
        self.emit_chained("persist.before_persist", "df", lambda _: False, df=None, **payload)
        self.written.append(pipe_id)
        self.emit("persist.after_persist", df=None, **payload)


class TestWriteGate:
    @pytest.fixture
    def persister(self):
        return Persister(BlinkerSignalProvider())

    @staticmethod
    def gate(persister):
        gate = WriteGate()
        gate.connect(persister._signal_provider)
        return gate

    def test_lets_through_and_remembers_what_is_not_barred(self, persister):
        gate = self.gate(persister)
        gate.bar("other")
        with gate.scope("a"):
            assert not gate.wrote("a")
            persister.persist("a")
        assert persister.written == ["a"]
        assert gate.wrote("a")

    def test_stops_a_barred_pipe_before_its_write(self, persister):
        gate = self.gate(persister)
        with gate.scope("a"):
            gate.bar("a")
            with pytest.raises(PipeCancelledError, match=r"Pipe a was cancelled before it wrote gold\.x"):
                persister.persist("a")
        assert persister.written == []
        assert not gate.wrote("a")

    def test_bars_the_late_pipe_and_not_the_same_pipe_of_the_next_run(self, persister):
        first, second = self.gate(persister), self.gate(persister)
        woken, inside, raised = threading.Event(), threading.Event(), []

        def late():
            with first.scope("a"):
                inside.set()
                woken.wait(PATIENCE)
                with pytest.raises(PipeCancelledError) as caught:
                    persister.persist("a")
                raised.append(caught.type)

        thread = threading.Thread(target=late)
        thread.start()
        inside.wait(PATIENCE)
        first.bar("a")
        first.close()  # its run ended without the pipe
        with second.scope("a"):
            persister.persist("a")
        woken.set()
        thread.join(PATIENCE)
        assert raised == [PipeCancelledError]
        assert persister.written == ["a"]
        assert not first._disconnects  # it let go of the signals once the late pipe had left

    def test_closed_it_hears_nothing_more(self, persister):
        gate = self.gate(persister)
        gate.close()
        gate.close()
        with gate.scope("a"):
            gate.bar("a")
            persister.persist("a")
        assert persister.written == ["a"]


class SharedProperties:
    """A session whose Python threads share JVM threads."""

    _jsparkSession = property(lambda self: self)
    sparkContext = property(lambda self: self)

    def __init__(self):
        self.properties = {}

    def setLocalProperty(self, name, value):
        self.properties[name] = value

    def getLocalProperty(self, name):
        return self.properties.get(name)


@pytest.mark.parametrize(
    ("session", "message"),
    [(object(), "Spark Connect"), (SharedProperties(), "pinned-thread mode is off")],
)
def test_sessions_that_cannot_be_served_are_refused(session, message):
    with pytest.raises(SparkSetupError, match=message):
        SparkCanceller(session, "run")


@pytest.fixture(scope="module")
def spark():
    started_here = not session_is_up()
    with ThreadPoolExecutor(1) as pool:  # never on the main thread, as in a run
        session = pool.submit(
            build_session, {"spark.master": "local[2]", "spark.app.name": "cancellation"}
        ).result()
    yield session
    if started_here:
        session.stop()


@pytest.fixture
def canceller(spark):
    canceller = SparkCanceller(spark, "run-1")
    yield canceller
    canceller.gate.close()
    assert spark.sparkContext.statusTracker().getActiveJobsIds() == []


@pytest.fixture
def table(spark, tmp_path):
    path = str(tmp_path / "table")
    spark.range(3).selectExpr("id", "id AS other").write.format("delta").save(path)
    return path


def endless(spark):
    """A frame of 10²⁰ rows."""
    many = spark.range(10**10)
    return many.crossJoin(many.withColumnRenamed("id", "other"))


def append_endlessly(spark, path):
    endless(spark).write.format("delta").mode("append").save(path)


def until(true, seconds=PATIENCE):
    """Wait for what has no event to wait for: the state of Spark's scheduler."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it never came true"
        time.sleep(0.02)


@pytest.mark.spark
class TestSparkCanceller:
    def test_at_its_limit_an_endless_write_is_ended_and_commits_nothing(self, spark, canceller, table):
        started = time.monotonic()
        result = GenerationExecutor(pipe_timeout=2.0, canceller=canceller).execute_plan(
            {"endless": (), "after": ("endless",)}, lambda _: append_endlessly(spark, table)
        )
        took = time.monotonic() - started
        assert result.counts == {"timed_out": 1, "upstream_failed": 1}
        assert 2.0 <= took < 30.0
        assert canceller.active_jobs("endless") == []
        assert table_version(table) == 0
        time.sleep(10)  # the promise is about time: nothing moves for ten seconds
        assert table_version(table) == 0
        assert spark.read.format("delta").load(table).count() == 3

    def test_a_pipe_that_starts_job_after_job_is_ended(self, spark, canceller):
        ended = []

        def stubborn(pipe_id):
            for _ in range(3):
                try:
                    endless(spark).count()
                except Exception as error:
                    ended.append(error)
            raise ended[-1]

        result = GenerationExecutor(pipe_timeout=0.5, canceller=canceller).execute_generation(["a"], stubborn)
        assert result.results["a"].status is PipeStatus.TIMED_OUT
        assert len(ended) == 3

    def test_fail_fast_cancels_what_runs(self, spark, canceller, table):
        def run(pipe_id):
            if pipe_id == "long":
                append_endlessly(spark, table)
            until(lambda: canceller.active_jobs("long"))
            spark.range(1).select("missing").collect()

        executor = GenerationExecutor(2, True, error_strategy="fail_fast", canceller=canceller)
        result = executor.execute_generation(["long", "bad"], run)
        bad, long = result.results["bad"], result.results["long"]
        assert (bad.status, long.status, long.cause) == (PipeStatus.FAILED, PipeStatus.CANCELLED, "bad")
        assert bad.error.type == "AnalysisException"
        assert "`missing`" in bad.error.message
        assert "Project" not in bad.error.message
        assert bad.error.where.startswith(__file__)
        assert "columns" in bad.error.suggestion
        assert canceller.active_jobs("long") == []
        assert table_version(table) == 0

    def test_cancel_from_another_thread(self, spark, canceller, table):
        executor = GenerationExecutor(canceller=canceller)

        def terminate():
            until(lambda: canceller.active_jobs("long"))
            executor.cancel("Terminate")

        thread = threading.Thread(target=terminate)
        thread.start()
        result = executor.execute_generation(["long", "next"], lambda _: append_endlessly(spark, table))
        thread.join()
        assert result.counts == {"cancelled": 1, "not_started": 1}
        assert table_version(table) == 0

    def test_only_the_one_pipe_is_cancelled(self, spark, canceller):
        def run(pipe_id):
            if pipe_id == "endless":
                endless(spark).count()
            while canceller.active_jobs("endless") or not counted:
                counted.append(spark.range(10**6).selectExpr("sum(id)").first()[0])

        counted = []
        executor = GenerationExecutor(
            2, True, pipe_options={"endless": PipeOptions(timeout=1.0)}, canceller=canceller
        )
        result = executor.execute_generation(["endless", "other"], run)
        assert result.counts == {"timed_out": 1, "succeeded": 1}
        assert set(counted) == {499999500000}

    def test_jobs_of_the_threads_spark_starts_for_the_pipe_end_too(self, spark, canceller):
        """A broadcast is built by a thread of a pool that lives longer than the pipe."""
        from pyspark.sql.functions import broadcast

        def warm(pipe_id):
            spark.range(5).join(broadcast(spark.range(3)), "id").collect()

        def run(pipe_id):
            keys = endless(spark).selectExpr("(id + other) % 3 AS id").distinct()
            spark.range(5).join(broadcast(keys), "id").collect()

        GenerationExecutor(canceller=canceller).execute_generation(["warm"], warm)
        result = GenerationExecutor(pipe_timeout=1.0, canceller=canceller).execute_generation(["a"], run)
        assert result.results["a"].status is PipeStatus.TIMED_OUT
        assert canceller.active_jobs("a") == []

    def test_every_job_of_a_pipe_is_in_its_group(self, spark, canceller, table):
        from delta.tables import DeltaTable
        from pyspark.sql.functions import broadcast

        tracker = spark.sparkContext.statusTracker()

        def run(pipe_id):
            frame = spark.range(100).selectExpr("id", "id % 4 AS other")
            frame.repartition(4).write.format("delta").mode("append").partitionBy("other").save(table + "2")
            frame.repartition(4).write.format("delta").mode("append").save(table + "2")
            source = frame.join(broadcast(spark.range(50)), "id")
            merge = DeltaTable.forPath(spark, table).alias("t").merge(source.alias("s"), "t.id = s.id")
            merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
            DeltaTable.forPath(spark, table + "2").optimize().executeCompaction()

        before = set(tracker.getJobIdsForGroup(None))
        result = GenerationExecutor(canceller=canceller).execute_generation(["all"], run)
        assert result.ok, result.to_json()
        assert len(tracker.getJobIdsForGroup(canceller.group("all"))) >= 6
        assert set(tracker.getJobIdsForGroup(None)) == before

    def test_a_pipe_that_sets_a_job_group_itself_is_ended(self, spark, canceller):
        def run(pipe_id):
            spark.sparkContext.setJobGroup("my own", "mine")
            endless(spark).count()

        result = GenerationExecutor(pipe_timeout=1.0, canceller=canceller).execute_generation(["a"], run)
        assert result.results["a"].status is PipeStatus.TIMED_OUT

    def test_a_wait_inside_the_jvm_is_interrupted(self, spark, canceller):
        def run(pipe_id):
            spark._jvm.java.lang.Thread.sleep(600_000)

        executor = GenerationExecutor(pipe_timeout=0.2, canceller=canceller, grace=2.0)
        result = executor.execute_generation(["a"], run)
        assert result.results["a"].status is PipeStatus.TIMED_OUT
        assert spark.range(4).count() == 4

    def test_the_pipes_thread_knows_its_session_group_and_pool(self, spark, canceller):
        from pyspark.sql import SparkSession

        seen = {}

        def run(pipe_id):
            session = SparkSession.getActiveSession()
            seen["session"] = session and session.range(2).count()
            for name in ("spark.jobGroup.id", "spark.job.description", "spark.scheduler.pool"):
                seen[name] = spark.sparkContext.getLocalProperty(name)

        assert GenerationExecutor(canceller=canceller).execute_generation(["gold.x"], run).ok
        assert seen == {
            "session": 2,
            "spark.jobGroup.id": canceller.group("gold.x"),
            "spark.job.description": "Kindling pipe gold.x",
            "spark.scheduler.pool": "kindling-dagster-1",
        }
        assert canceller.group("gold.x").startswith("kindling-dagster/run-1/gold.x#")

    @pytest.mark.parametrize("raised", [None, ValueError, PipeInterrupt])
    def test_the_scope_leaves_the_thread_as_it_was_unless_interrupted(self, spark, canceller, raised):
        names = ("spark.jobGroup.id", "spark.job.description", "spark.scheduler.pool", "spark.job.tags")

        def enter():
            try:
                with canceller.scope("a"):
                    if raised:
                        raise raised
            except (ValueError, PipeInterrupt):
                pass
            return [spark.sparkContext.getLocalProperty(name) or "" for name in names]

        with ThreadPoolExecutor(1) as pool:
            left = pool.submit(enter).result()
        assert any(left) == (raised is PipeInterrupt)

    def test_two_cancellers_of_one_run_do_not_meet(self, spark):
        assert SparkCanceller(spark, "run").group("a") != SparkCanceller(spark, "run").group("a")

    def test_threads_do_not_pile_up_in_the_jvm(self, spark, canceller):
        count = spark._jvm.java.lang.Thread.activeCount
        executor = GenerationExecutor(2, True, canceller=canceller)
        before = count()
        started = time.monotonic()
        assert executor.execute_generation([f"p{number}" for number in range(100)], lambda _: None).ok
        print(f"{(time.monotonic() - started) * 10:.1f} ms per pipe, {count() - before} threads more")
        gc.collect()
        until(lambda: count() - before < 10, seconds=10)
