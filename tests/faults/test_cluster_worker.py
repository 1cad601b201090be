"""Streams on a Spark standalone cluster, one worker of which is killed in the middle of their batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from cluster.standalone import StandaloneCluster, running_cluster
from faults.harness import Flow, flow, wait_for

from kindling_dagster.streaming.model import StreamingQueryState as State

pytestmark = [pytest.mark.spark, pytest.mark.faults]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[StandaloneCluster]:
    with running_cluster(tmp_path) as started:
        yield started


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Flow]:
    with flow(tmp_path / "flow") as made:
        made.ask("start")
        yield made


def test_a_killed_worker_costs_no_row_and_no_host(cluster: StandaloneCluster, running: Flow) -> None:
    """Its tasks run again on the other worker; the host and its lease notice nothing."""
    host = running.host(
        conf={
            "spark.master": cluster.url,
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.executor.memory": "512m",
        }
    )
    running.await_state(State.RUNNING, seconds=240)
    running.await_exact(seconds=240)
    wait_for("an executor on each worker", lambda: len(cluster.executors()) == 2, 60)

    def landed() -> bool:
        running.land(3)
        return running.mid_batch("priced") and running.mid_batch("history")

    wait_for("batches under way", landed, 60, pause=0.02)
    cluster.kill_worker()
    running.land(5)
    running.await_exact(seconds=240)
    cluster.add_worker()
    wait_for("an executor on each worker", lambda: len(cluster.executors()) == 2, 60)
    running.land(5)
    running.await_exact(seconds=240)
    assert host.process.poll() is None, host.text()
    running.await_state(State.RUNNING)
    assert running.store.dead_letters() == {}
