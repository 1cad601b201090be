"""The demo, unchanged, on a standalone cluster that loses a worker in the middle: its gold tables equal pandas."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.standalone import CLUSTER_CONF, StandaloneCluster, running_cluster, wait_for

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))
import expected
from comparing import (
    PARTITIONED,
    TABLES,
    DemoProcess,
    assert_equals_pandas,
    copy_demo,
    rows_of,
    running_demo,
    table_path,
)

pytestmark = [pytest.mark.spark, pytest.mark.faults, pytest.mark.timeout(1800)]

SILVER = ("silver.flights", "silver.weather_hourly")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[StandaloneCluster]:
    with running_cluster(tmp_path) as started:
        yield started


@pytest.fixture
def conf_dir(cluster: StandaloneCluster, tmp_path: Path) -> Path:
    """All that says where the demo runs."""
    folder = tmp_path / "conf"
    folder.mkdir()
    settings = {
        **CLUSTER_CONF,
        "spark.master": cluster.url,
        "spark.executor.memory": "768m",
        "spark.pyspark.python": sys.executable,
    }
    (folder / "spark-defaults.conf").write_text(
        "".join(f"{key} {value}\n" for key, value in settings.items())
    )
    return folder


def is_written(app: Path, entity_id: str) -> bool:
    """Whether a table has a commit of rows; Kindling makes an empty one first."""
    log = table_path(app, entity_id) / "_delta_log"
    return any('"add"' in commit.read_text() for commit in log.glob("*.json"))


def test_gold_equals_pandas_though_a_worker_dies(
    cluster: StandaloneCluster, conf_dir: Path, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    root.mkdir()
    app = copy_demo(root)
    with running_demo(root, "--once", env={**os.environ, "SPARK_CONF_DIR": str(conf_dir)}) as running:
        left = lose_a_worker(cluster, app, running)
        report = running.report(1200)
    assert left, "all of gold was there before the worker died"
    assert "Lost executor" in running.errors.read_text()  # the run noticed
    materialized = {*report["first"]["assets"], *report["span"]["assets"]}
    assert {entity_id.replace(".", "/") for entity_id in TABLES} <= materialized
    wanted = expected.gold(app / "data" / "landing")
    assert wanted.keys() == TABLES.keys()
    for entity_id, keys in TABLES.items():
        assert_equals_pandas(rows_of(app, entity_id), wanted[entity_id], keys)


def lose_a_worker(cluster: StandaloneCluster, app: Path, running: DemoProcess) -> list[str]:
    """Kill a worker once silver is written; gives the gold tables that are still to come."""

    def silver() -> bool:
        assert running.process.poll() is None, running.errors.read_text()[-4000:]
        return all(is_written(app, entity_id) for entity_id in SILVER)

    wait_for("silver is written", silver, 900)
    wait_for("an executor on each worker", lambda: len(cluster.executors()) == 2, 60)
    left = [entity_id for entity_id in TABLES.keys() - {PARTITIONED} if not is_written(app, entity_id)]
    cluster.kill_worker()
    return left
