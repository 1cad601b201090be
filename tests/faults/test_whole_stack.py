"""A real `dagster dev` with streams: parts of it and the whole are killed, stopped, reloaded; the tables are exact."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from e2e.driver import CODE_SERVER, DagsterDev
from faults.harness import QUICK, Flow, flow, wait_for

from kindling_dagster.streaming.model import HostInfo
from kindling_dagster.streaming.model import StreamingQueryState as State

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(900)]

DEFINITIONS = """
from dagster_pyspark import LazyPySparkResource
from kindling_dagster import (
    KindlingProject, KindlingResource, KindlingStreamsResource, build_kindling_definitions
)

SPARK = {{
    "spark.master": "local[2]", "spark.sql.shuffle.partitions": "2", "spark.ui.enabled": "false",
    "spark.databricks.delta.snapshotPartitions": "1", "spark.driver.memory": "1g",
}}
project = KindlingProject({app!r})
defs = build_kindling_definitions(
    project,
    resource=KindlingResource(spark=LazyPySparkResource(spark_config=SPARK)),
    streams_resource=KindlingStreamsResource(project, store_url={url!r}, options={options!r}),
)
"""
BACK_SECONDS = 240.0
"""How long a slow machine may take until all streams run again; the time is printed."""


class Stack:
    """One `dagster dev` and the flow that its host runs."""

    def __init__(self, dev: DagsterDev, running: Flow) -> None:
        self.dev, self.flow = dev, running

    @property
    def host(self) -> HostInfo:
        host = self.flow.store.host()
        assert host is not None
        return host

    def mid_batch(self) -> HostInfo:
        """Land orders until a batch is under way; gives the host that has it."""

        def landed() -> bool:
            self.flow.land(3)
            return self.flow.mid_batch("priced")

        wait_for("a batch under way", landed, 60, 0.02)
        return self.host

    def another_host_runs(self, before: HostInfo, since: float) -> None:
        """Wait until all streams run in a host after ``before``, and all that was landed has arrived."""

        def up() -> bool:
            return self.host.token > before.token and self.flow.all_run()

        try:
            wait_for("another host runs the streams", up, BACK_SECONDS, 0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.flow.told()}\n{self.dev.log.read_text()[-4000:]}") from None
        print(f"back after {time.monotonic() - since:.1f} s")
        self.flow.land(3)
        self.flow.await_exact()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with flow(folder) as running:
        text = DEFINITIONS.format(app=str(running.app), url=running.url, options=QUICK)
        (folder / "defs.py").write_text(text)
        dev = DagsterDev(folder, folder / "defs.py")
        try:
            dev.start()
            running.ask("start")
            running.await_state(State.RUNNING, seconds=BACK_SECONDS)
            running.await_exact()
            yield Stack(dev, running)
        finally:
            dev.stop()


def test_code_change_rolls_the_host(stack: Stack) -> None:
    """The host drains; the next one runs the new code, over the same checkpoints."""
    before, since = stack.mid_batch(), time.monotonic()
    pipes = stack.flow.app / "flow/pipes/streams.py"
    old = pipes.read_text()
    new = old.replace('F.col("amount") * price', '(price * F.col("amount"))')
    assert new != old
    pipes.write_text(new)
    stack.dev.reload()
    stack.flow.land(5)
    stack.another_host_runs(before, since)
    assert stack.host.code_version != before.code_version
    assert stack.dev.wait(before.run_id, 60) == "SUCCESS"
    assert "code changed" in stack.dev.messages(before.run_id)


def kill_code_server_and_host(dev: DagsterDev) -> None:
    """What knew of the host's run dies with it; `dagster dev` starts a new code server by itself."""
    dev.kill(*CODE_SERVER, "multiprocessing.spawn")


@pytest.mark.parametrize(
    ("fault", "ended"),
    [(kill_code_server_and_host, False), (DagsterDev.kill_all, True), (DagsterDev.stop, True)],
    ids=["code server and host killed", "everything killed", "Ctrl-C"],
)
def test_comes_back(stack: Stack, fault: Callable[[DagsterDev], None], ended: bool) -> None:
    before, since = stack.mid_batch(), time.monotonic()
    fault(stack.dev)
    stack.flow.land(5)
    if ended:
        stack.dev.start()
    stack.another_host_runs(before, since)
    # What Dagster shows is true again.
    final = ("FAILURE", "CANCELED", "SUCCESS")
    wait_for("the former run has ended", lambda: stack.dev.status(before.run_id) in final, 180, 0.5)


def test_killed_daemon_leaves_the_streams_alone(stack: Stack) -> None:
    """`dagster dev` gives up without its daemon; the host goes on, and the next `dagster dev` takes it over."""
    before = stack.mid_batch()
    stack.dev.kill("dagster._daemon")
    stack.dev.wait_for_end(90)
    stack.flow.land(5)
    stack.flow.await_exact()
    stack.dev.start()
    stack.flow.land(5)
    stack.flow.await_exact()
    assert stack.host.token == before.token
    assert stack.dev.status(before.run_id) == "STARTED"
    since = time.monotonic()
    stack.dev.terminate(before.run_id)
    stack.another_host_runs(before, since)
    assert stack.dev.wait(before.run_id, 60) == "CANCELED"
