"""The table of bad endings again, with Spark's own jobs: what hangs is ended, under every rule."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_pipes import CANCELLED, FAILED, NOT_STARTED, OK, STRATEGIES, TIMED_OUT, UPSTREAM, Watch, statuses

from kindling_dagster.dag.cancellation import SparkCanceller
from kindling_dagster.dag.executor import GenerationExecutor
from kindling_dagster.delta_log import table_version
from kindling_dagster.engines.base import PipeOptions
from kindling_dagster.spark import build_session, session_is_up

pytestmark = pytest.mark.spark

GRAPH = {"bad": (), "good": (), "child": ("bad",), "other": ("good",)}
KINDS = {"failing": FAILED, "slow": TIMED_OUT, "endless_sql": TIMED_OUT, "endless_python": TIMED_OUT}
REST = {
    "fail_fast": {"good": CANCELLED, "other": NOT_STARTED, "child": UPSTREAM},
    "continue": {"good": OK, "other": OK, "child": OK},
    "skip_dependents": {"good": OK, "other": OK, "child": UPSTREAM},
}


@pytest.fixture(scope="module")
def spark():
    started_here = not session_is_up()
    with ThreadPoolExecutor(1) as pool:  # never on the main thread, as in a run
        session = pool.submit(build_session, {"spark.master": "local[2]"}).result()
    yield session
    if started_here:
        session.stop()


@pytest.fixture(scope="module")
def table(spark, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("endings") / "table")
    spark.range(3).selectExpr("id", "id AS other").write.format("delta").save(path)
    return path


def endless(spark):
    """A frame of 10²⁰ rows."""
    many = spark.range(10**10)
    return many.crossJoin(many.withColumnRenamed("id", "other"))


def turn_bad(kind, spark, table):
    """What the pipe does: three that Spark is at work for, and one that only Python is."""
    if kind == "failing":
        spark.read.format("delta").load(table).selectExpr("missing + id").collect()
    elif kind == "slow":
        # It would end by itself, in minutes.
        summed = spark.range(10**11).selectExpr("sum(id % 7) AS id", "count(id) AS other")
        summed.write.format("delta").mode("append").save(table)
    elif kind == "endless_sql":
        endless(spark).write.format("delta").mode("append").save(table)
    else:
        while True:
            time.sleep(0.01)


@pytest.mark.parametrize("barrier", [False, True], ids=["dataflow", "barrier"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_under_each_strategy(kind, strategy, barrier, spark, table):
    """``good`` runs beside ``bad`` and ends after it, unless it is cancelled in the middle of its Spark job."""
    watch, canceller = Watch(), SparkCanceller(spark, "run")
    before = table_version(table)

    def run(pipe_id):
        if pipe_id == "bad":
            watch.wait("started", "good")
            turn_bad(kind, spark, table)
        elif pipe_id == "good" and strategy == "fail_fast":
            endless(spark).count()
        elif pipe_id == "good":
            watch.wait("finished", "bad")
            assert spark.range(10).count() == 10
        return None

    executor = GenerationExecutor(
        2,
        True,
        error_strategy=strategy,
        barrier=barrier,
        pipe_options={} if kind == "failing" else {"bad": PipeOptions(timeout=1.0)},
        canceller=canceller,
        on_event=watch,
        grace=1.5 if kind == "endless_python" else 10.0,
    )
    result = executor.execute_plan(GRAPH, run)
    canceller.gate.close()
    assert statuses(result) == {"bad": KINDS[kind], **REST[strategy]}, result.to_json()
    assert spark.sparkContext.statusTracker().getActiveJobsIds() == []
    assert table_version(table) == before
    assert result.results["bad"].error.where.startswith(__file__)
