"""Streams in a real `dagster dev`: started, watched, killed, brought back, terminated, stopped."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from deltalake import DeltaTable, write_deltalake
from driver import CODE_SERVER, DagsterDev, wait_for

from kindling_dagster.project import KindlingProject
from kindling_dagster.streaming.client import StreamsClient
from kindling_dagster.streaming.identity import store_project
from kindling_dagster.streaming.model import HostInfo
from kindling_dagster.streaming.store import StreamStore, default_store_url

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

DEFINITIONS = """
from dagster_pyspark import LazyPySparkResource
from kindling_dagster import KindlingProject, KindlingResource, build_kindling_definitions

SPARK = {{
    "spark.sql.shuffle.partitions": "1", "spark.databricks.delta.snapshotPartitions": "1", "spark.ui.enabled": "false"
}}
defs = build_kindling_definitions(
    KindlingProject({app!r}), resource=KindlingResource(spark=LazyPySparkResource(spark_config=SPARK))
)
"""
BACK_SECONDS = 180.0
"""How long a machine that does much else may take from a killed host to running streams; the time is printed."""
_ASSET = """
query ($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) { ... on Asset {
    assetObservations(limit: 50) { runId description metadataEntries { label } }
    assetMaterializations(limit: 50) { runId metadataEntries { label ... on IntMetadataEntry { intValue } } }
  } }
  assetNodeOrError(assetKey: $key) { ... on AssetNode { assetChecksOrError { ... on AssetChecks { checks {
    name executionForLatestMaterialization { evaluation { success } } } } } } }
}"""


class Streams:
    """The app's streams in their store, and its tables."""

    def __init__(self, dev: DagsterDev, app: Path) -> None:
        self.dev, self.app = dev, app
        project = KindlingProject(app)
        url = default_store_url(str(dev.home / "storage"))
        self.client = StreamsClient(StreamStore.open(url, store_project(project)), project.manifest)
        self.last = 0

    def add(self, count: int) -> None:
        """More numbers for the streams."""
        import pyarrow as pa

        ids = range(self.last + 1, self.last + count + 1)
        self.last += count
        schema = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("value", pa.int64())])
        table = pa.table({"id": list(ids), "value": list(ids)}, schema=schema)
        write_deltalake(self._path("bronze.numbers"), table, mode="append")

    def _path(self, entity_id: str) -> str:
        return str(self.app / "data" / "lake" / entity_id.replace(".", "/"))

    def _rows(self, entity_id: str) -> list[tuple[int, int]]:
        if not DeltaTable.is_deltatable(self._path(entity_id)):
            return []
        rows = DeltaTable(self._path(entity_id)).to_pyarrow_table().to_pylist()
        return sorted((row["id"], row["value"]) for row in rows)

    @property
    def exact(self) -> bool:
        """Whether every number has arrived in both tables, once."""
        ids = range(1, self.last + 1)
        return self._rows("silver.live") == [(id_, id_) for id_ in ids] and self._rows("gold.squares") == [
            (id_, id_ * id_) for id_ in ids
        ]

    @property
    def up(self) -> bool:
        """Whether both streams run in a host that lives."""
        return all(view.progressed for view in self.client.list())

    @property
    def host(self) -> HostInfo:
        host = self.client.store.host()
        assert host is not None
        return host


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streams]:
    folder = tmp_path_factory.mktemp("dev")
    app = folder / "app"
    shutil.copytree(Path(__file__).parent / "streams_app", app)
    definitions = folder / "defs.py"
    definitions.write_text(DEFINITIONS.format(app=str(app)))
    server = DagsterDev(folder, definitions)
    try:
        server.start()
        yield Streams(server, app)
    finally:
        server.stop()


def shown(streams: Streams, key: str) -> dict[str, Any]:
    return streams.dev.query(_ASSET, key={"path": key.split("/")})


def health(found: dict[str, Any]) -> Any:
    """The check of the latest materialization; none while Dagster shows it as not evaluated."""
    checks = found["assetNodeOrError"]["assetChecksOrError"]["checks"]
    [check] = [check for check in checks if check["name"] == "stream_health"]
    return check["executionForLatestMaterialization"]


def beats(found: dict[str, Any]) -> list[int]:
    """Rows of the heartbeats, which belong to no run."""
    return [
        entry["intValue"]
        for event in found["assetOrError"]["assetMaterializations"]
        for entry in event["metadataEntries"]
        if not event["runId"] and entry["label"] == "kindling/rows"
    ]


def labels_of(found: dict[str, Any]) -> list[set[str]]:
    """What each of the supervisor's observations tells; those of the host's run are left out."""
    return [
        {entry["label"] for entry in event["metadataEntries"]}
        for event in found["assetOrError"]["assetObservations"]
        if not event["runId"]
    ]


def test_materializing_launches_a_host_and_waits_for_the_streams(streams: Streams) -> None:
    streams.add(100)
    run_id = streams.dev.launch("silver/live", "gold/squares")
    assert streams.dev.wait(run_id, 240) == "SUCCESS", streams.dev.messages(run_id)
    assert set(streams.dev.materialized(run_id)) == {"silver/live", "gold/squares"}
    wait_for("all rows are there", lambda: streams.exact, 60)
    assert streams.dev.status(streams.host.run_id) == "STARTED"
    # At the supervisor's next look; the next heartbeat may be minutes away.
    wait_for("the check of this materialization", lambda: health(shown(streams, "silver/live")), 30)


def test_the_asset_shows_its_stream(streams: Streams) -> None:
    def told() -> dict[str, Any] | None:
        found = shown(streams, "silver/live")
        observed = any("kindling/batch_id" in labels for labels in labels_of(found))
        return found if observed and health(found) and sum(beats(found)) == 120 else None

    streams.add(20)
    found = wait_for("observation, heartbeat and check", told, 120)  # heartbeats come each minute
    assert health(found)["evaluation"]["success"]
    shown_of_it = {"kindling/state", "kindling/batch_id", "kindling/host_run", "kindling/restarts"}
    assert any(shown_of_it <= labels for labels in labels_of(found))


def test_a_reload_and_a_killed_code_server_leave_the_host_alone(streams: Streams) -> None:
    before = streams.host
    streams.add(20)
    streams.dev.reload()
    streams.dev.kill(*CODE_SERVER)
    streams.add(20)
    wait_for("all rows are there", lambda: streams.exact, 60)
    wait_for("another code server", lambda: streams.dev.find("code-server start"), 60)
    wait_for("the code location is loaded again", streams.dev.location, 60)
    streams.add(20)
    wait_for("all rows are there", lambda: streams.exact, 60)
    assert (streams.host.token, streams.up) == (before.token, True)


def test_a_killed_host_comes_back_and_no_row_is_lost_or_doubled(streams: Streams) -> None:
    before = streams.host
    streams.add(500)
    os.kill(before.pid, signal.SIGKILL)
    killed = time.monotonic()
    streams.add(100)
    wait_for(
        "another host runs the streams",
        lambda: streams.host.token > before.token and streams.up,
        BACK_SECONDS,
    )
    print(f"from the kill to running streams: {time.monotonic() - killed:.1f} s")
    wait_for("all rows are there", lambda: streams.exact, 60)
    wait_for("the killed run has failed", lambda: streams.dev.status(before.run_id) == "FAILURE", 60)


def test_terminate_drains_the_host_and_the_supervisor_launches_the_next(streams: Streams) -> None:
    before = streams.host
    streams.add(50)
    started = time.monotonic()
    streams.dev.terminate(before.run_id)
    assert streams.dev.wait(before.run_id, 40) == "CANCELED", streams.dev.messages(before.run_id)
    print(f"from Terminate to CANCELED: {time.monotonic() - started:.1f} s")
    assert "Told to end" in streams.dev.messages(before.run_id)
    wait_for(
        "another host runs the streams",
        lambda: streams.host.token > before.token and streams.up,
        BACK_SECONDS,
    )
    wait_for("all rows are there", lambda: streams.exact, 60)


def test_stop_streams_ends_them_for_good(streams: Streams) -> None:
    run_id = streams.dev.launch_job("flow_stop_streams")
    assert streams.dev.wait(run_id) == "SUCCESS", streams.dev.messages(run_id)
    wait_for("both are stopped", lambda: {view.state for view in streams.client.list()} == {"stopped"}, 30)
    host = streams.host
    streams.dev.terminate(host.run_id)
    assert streams.dev.wait(host.run_id, 40) == "CANCELED"
    wait_for("the JVM is gone", lambda: not streams.dev.jvms(), 60)
    wait_for("the host's process is gone", lambda: not psutil.pid_exists(host.pid), 30)
