"""A Kindling app on a real standalone cluster: the same as on one machine, by settings alone, also when a worker dies."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    ExecuteInProcessResult,
)
from deltalake import DeltaTable
from materializations import comparable
from standalone import CLUSTER_CONF, StandaloneCluster, running_cluster, wait_for

from kindling_dagster import KindlingProject, build_kindling_definitions
from kindling_dagster.engines.commits import NO_TABLE, CommitReader
from kindling_dagster.spark import build_session, session_is_up

pytestmark = [pytest.mark.spark, pytest.mark.slow]

APP = Path(__file__).parent / "app"
KEYS = ("silver/orders", "gold/totals", "ref/items")
TASKS = 40  # of the pipe totals
ORDERS = "id,item,amount\n1,pen,10\n2,ink,20\n3,pen,30\n4,cap,0\n"


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    success: bool
    metadata: Mapping[str, Mapping[str, Any]]
    rows: Mapping[str, list[tuple[Any, ...]]]
    log: str


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneCluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture(scope="module")
def by_settings(
    cluster: StandaloneCluster, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Outcome]:
    """One app, run twice: on one machine and on the cluster. Only spark-defaults.conf differs."""
    outcomes = {}
    for master in ("local[2]", cluster.url):
        assert not session_is_up()
        folder = tmp_path_factory.mktemp("settings")
        settings = {"spark.master": master, **CLUSTER_CONF}
        (folder / "spark-defaults.conf").write_text("".join(f"{k} {v}\n" for k, v in settings.items()))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPARK_CONF_DIR", str(folder))
            app = new_app(folder)
            outcomes[master] = outcome(app, run(app, *KEYS))
    return outcomes


@pytest.fixture(scope="module")
def on_one_machine(by_settings: Mapping[str, Outcome]) -> Outcome:
    return by_settings["local[2]"]


@pytest.fixture(scope="module")
def spark(cluster: StandaloneCluster, by_settings: Mapping[str, Outcome]) -> Iterator[Any]:
    """A session on the cluster that outlives runs, so that it can be asked what they left running."""
    # Not on the main thread, where pyspark would take over SIGINT.
    with ThreadPoolExecutor(1) as pool:
        session = pool.submit(build_session, {"spark.master": cluster.url, **CLUSTER_CONF}).result()
    yield session
    session.stop()


@pytest.fixture(scope="module")
def app(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The app for runs that are ended; the cluster's executors are up."""
    assert spark.range(0, 4, 1, 4).count() == 4
    return new_app(tmp_path_factory.mktemp("app"))


def new_app(folder: Path) -> Path:
    """The app, with its landed file and no tables."""
    shutil.copytree(APP, folder / "app")
    (folder / "app" / "data").mkdir()
    (folder / "app" / "data" / "orders.csv").write_text(ORDERS)
    # What it declares is the same wherever it lies, so it is recorded once.
    KindlingProject(APP).manifest.write(folder / "manifest.json")
    return folder / "app"


def run(app: Path, *keys: str, config: Mapping[str, Any] | None = None) -> ExecuteInProcessResult:
    """Materialize assets of the app, in this process."""
    defs = build_kindling_definitions(KindlingProject(app, manifest=app.with_name("manifest.json")))
    job = defs.resolve_implicit_global_asset_job_def()
    with DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(
            run_config={"ops": {"kindling_shop": {"config": dict(config or {})}}},
            asset_selection=[AssetKey(key.split("/")) for key in keys],
            instance=instance,
            raise_on_error=False,
        )


def outcome(app: Path, result: ExecuteInProcessResult) -> Outcome:
    metadata = {
        "/".join(event.asset_key.path): {k: v.value for k, v in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    tables = {key: DeltaTable(str(app / "data" / "lake" / key)).to_pyarrow_table() for key in metadata}
    # Without what tells when a row came to be: the columns of SCD2.
    rows = {
        key: sorted(
            tuple(row.values())
            for row in table.select([n for n in table.column_names if not n.startswith("__")]).to_pylist()
        )
        for key, table in tables.items()
    }
    return Outcome(result.success, metadata, rows, "\n".join(e.message or "" for e in result.all_events))


def in_the_meantime(act: Callable[[], None]) -> Callable[[], None]:
    """Start ``act`` beside the test; call what is given to wait for its end and to raise what it raised."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            act()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()

    def join() -> None:
        thread.join(240)
        assert not thread.is_alive()
        if raised:
            raise raised[0]

    return join


def stages(spark: Any) -> list[Any]:
    """The stages that run now."""
    tracker = spark.sparkContext.statusTracker()
    found = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
    return [stage for stage in found if stage is not None]


def endless_runs(spark: Any) -> bool:
    return any(stage.numTasks == 4 and stage.numActiveTasks > 0 for stage in stages(spark))


def nothing_runs(spark: Any) -> bool:
    """No active job, and no task on any executor: nothing is left that could write."""
    context = spark.sparkContext
    executors = context._jsc.sc().statusStore().executorList(True)
    busy = sum(executors.apply(number).activeTasks() for number in range(executors.size()))
    return not context.statusTracker().getActiveJobsIds() and busy == 0


def test_settings_alone_make_it_run_on_the_cluster(
    cluster: StandaloneCluster, by_settings: Mapping[str, Outcome]
) -> None:
    local, remote = by_settings["local[2]"], by_settings[cluster.url]
    assert (local.success, remote.success) == (True, True)
    assert remote.rows == local.rows
    assert local.rows == {
        "silver/orders": [(1, "pen", 10), (2, "ink", 20), (3, "pen", 30)],
        "gold/totals": [("ink", 20 * TASKS), ("pen", 40 * TASKS)],
        "ref/items": [("ink", 20 * TASKS), ("pen", 40 * TASKS)],
    }
    told = [{key: comparable(values) for key, values in run.metadata.items()} for run in (remote, local)]
    assert told[0] == told[1]
    assert told[0]["gold/totals"]["dagster/row_count"] == 2


def rows_in(app: Path, table: str) -> int:
    """Rows of a table, 0 also where there is none: Kindling makes an empty one before it writes."""
    path = str(app / "data" / "lake" / table)
    return DeltaTable(path).to_pyarrow_table().num_rows if DeltaTable.is_deltatable(path) else 0


def test_a_time_limit_ends_the_job_on_the_cluster(app: Path, spark: Any) -> None:
    seen = in_the_meantime(lambda: wait_for("the endless job runs", lambda: endless_runs(spark)))
    result = run(app, "gold/endless", config={"pipe_timeout": 45.0})
    seen()
    [event] = [e for e in result.all_events if e.event_type == DagsterEventType.STEP_FAILURE]
    told = event.event_specific_data.user_failure_data.metadata["kindling/failures"].value
    assert {item["pipe"]: item["status"] for item in told} == {"endless": "timed_out"}
    wait_for("nothing runs any more", lambda: nothing_runs(spark), 10)
    assert rows_in(app, "gold/endless") == 0


def test_terminating_the_run_ends_the_job_on_the_cluster(app: Path, spark: Any) -> None:
    def terminate() -> None:
        wait_for("the endless job runs", lambda: endless_runs(spark))
        # What Dagster does to the process of a run that is terminated.
        os.kill(os.getpid(), signal.SIGINT)

    ended = in_the_meantime(terminate)
    result = run(app, "gold/endless")
    ended()
    [event] = [e for e in result.all_events if e.event_type == DagsterEventType.STEP_FAILURE]
    assert event.event_specific_data.error.cls_name == "DagsterExecutionInterruptedError"
    wait_for("nothing runs any more", lambda: nothing_runs(spark), 10)
    assert rows_in(app, "gold/endless") == 0


def test_a_path_without_a_scheme_is_one_of_the_clusters_file_system(spark: Any, tmp_path: Path) -> None:
    """As on Hadoop clusters, where it is one of HDFS; here one that only Spark knows the way to."""
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    before = hadoop.get("fs.defaultFS")
    hadoop.set("fs.viewfs.mounttable.lake.link./tables", tmp_path.as_uri())
    hadoop.set("fs.defaultFS", "viewfs://lake/")
    entity = SimpleNamespace(tags={"provider.access_mode": "storage"})
    entities = SimpleNamespace(get_entity_definition=lambda _: entity)
    runtime: Any = SimpleNamespace(entities=entities, table_path=lambda _: "/tables/orders")
    try:
        logs = CommitReader(runtime, spark)
        assert logs.version("orders") == NO_TABLE
        spark.range(3).write.format("delta").save("/tables/orders")
        told = logs.metadata("orders", logs.version("orders"))
    finally:
        hadoop.set("fs.defaultFS", before)
    assert (tmp_path / "orders" / "_delta_log").is_dir()
    assert (told["uri"], told["version"]) == ("viewfs://lake/tables/orders", 0)
    assert "through Spark" in told["unavailable"]


def test_a_worker_that_dies_costs_time_not_rows(
    cluster: StandaloneCluster, spark: Any, on_one_machine: Outcome, tmp_path: Path
) -> None:
    def halfway() -> bool:
        return any(
            stage.numTasks == TASKS and TASKS > stage.numCompletedTasks >= 6 for stage in stages(spark)
        )

    def kill() -> None:
        wait_for("both workers have executors", lambda: len(cluster.executors()) == 2)
        wait_for("the pipe is halfway", halfway)
        cluster.kill_worker()

    killed = in_the_meantime(kill)
    app = new_app(tmp_path)
    try:
        left = outcome(app, run(app, *KEYS))
    finally:
        killed()
        cluster.add_worker()
    assert left.success, left.log
    assert left.rows == on_one_machine.rows
    assert [values["dagster/row_count"] for values in left.metadata.values()] == [3, 2, 2]
