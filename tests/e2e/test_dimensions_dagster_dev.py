"""Dimensions in a real `dagster dev`, changed by programs that know of neither Kindling nor Dagster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from e2e.driver import DagsterDev, wait_for

from kindling_dagster.project import KindlingProject
from kindling_dagster.streaming.client import StreamsClient
from kindling_dagster.streaming.identity import store_project
from kindling_dagster.streaming.restart_ticks import DOCUMENT
from kindling_dagster.streaming.store import StreamStore, default_store_url

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(900)]

DEFINITIONS = """
from dagster_pyspark import LazyPySparkResource
from kindling_dagster import (
    DimensionPolicy, KindlingProject, KindlingResource, RestartConfig, build_kindling_definitions
)

SPARK = {{
    "spark.sql.shuffle.partitions": "1", "spark.databricks.delta.snapshotPartitions": "1", "spark.ui.enabled": "false"
}}
defs = build_kindling_definitions(
    KindlingProject({app!r}),
    resource=KindlingResource(spark=LazyPySparkResource(spark_config=SPARK)),
    dimensions=DimensionPolicy(
        # The listing of files does not tell columns, their contents do.
        detection={{"ref.rates": "hash"}}, restarts=RestartConfig(delay=1, min_interval=0), interval=2
    ),
)
"""
FILES = """
import sys
from pathlib import Path
import pyarrow as pa
import pyarrow.parquet as pq

folder, rate, *notes = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
before = list(folder.glob("*"))
folder.mkdir(parents=True, exist_ok=True)
rows = {"kind": ["even", "odd"], "rate": [rate, rate + 1], **{name: ["x", "y"] for name in notes}}
pq.write_table(pa.table(rows), folder / f"rates-{rate}.parquet")
for file in before:
    file.unlink()
"""
DELTA = """
import sys
import pyarrow as pa
from deltalake import write_deltalake

path, zone, *country = sys.argv[1:]
rows = {"kind": ["even", "odd"], "zone": [zone, zone + "!"], **{"country": [name] * 2 for name in country}}
write_deltalake(path, pa.table(rows), mode="overwrite", schema_mode="merge" if country else None)
"""
UP_SECONDS = 240.0
"""How long a slow machine may take until all streams run."""
_OBSERVATIONS = """
query ($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) { ... on Asset { assetObservations(limit: 20) { description } } }
}"""
_RUNS = """
{ runsOrError(filter: {pipelineName: "flow_restart_streams"}) { ... on Runs { results { runId } } } }
"""


class Stack:
    """One `dagster dev`, the app's streams, and the tables that others write."""

    def __init__(self, folder: Path) -> None:
        self.app = folder / "app"
        shutil.copytree(Path(__file__).parent / "dimensions_app", self.app)
        self.lake = self.app / "data" / "lake"
        (folder / "defs.py").write_text(DEFINITIONS.format(app=str(self.app)))
        self.dev = DagsterDev(folder, folder / "defs.py")
        self.dev.home.mkdir()
        (self.dev.home / "storage").mkdir()
        project = KindlingProject(self.app)
        url = default_store_url(str(self.dev.home / "storage"))
        self.client = StreamsClient(StreamStore.open(url, store_project(project)), project.manifest)
        self.expected: dict[str, Counter[tuple[Any, ...]]] = {
            table: Counter() for table in ("silver/rated", "silver/zoned", "gold/onward")
        }
        self.count = 0
        self.put_rates(10)
        self.put_zones("a")
        self.add()
        self.client.start()

    def put_rates(self, rate: int, *more_columns: str) -> None:
        """Have a program of somebody else replace the files."""
        self.rate = rate
        self._run(FILES, "ref/rates", str(rate), *more_columns)

    def put_zones(self, zone: str, country: str | None = None) -> None:
        """Have a program of somebody else write the Delta table; with a country it has one column more."""
        self.zone, self.country = zone, country
        self._run(DELTA, "ref/zones", zone, *([country] if country else []))

    def _run(self, program: str, table: str, *arguments: str) -> None:
        command = [sys.executable, "-c", program, str(self.lake / table), *arguments]
        subprocess.run(command, check=True, env={"PATH": os.environ["PATH"]}, timeout=60)

    def add(self) -> None:
        """Two more numbers, and what they have to come to."""
        for id_, rate, zone in (
            (self.count, self.rate, self.zone),
            (self.count + 1, self.rate + 1, f"{self.zone}!"),
        ):
            self.expected["silver/rated"][(id_, rate)] += 1
            self.expected["gold/onward"][(id_, rate)] += 1
            self.expected["silver/zoned"][(id_, zone, self.country)] += 1
        rows = {"id": pa.array([self.count, self.count + 1], pa.int64()), "kind": ["even", "odd"]}
        self.count += 2
        write_deltalake(str(self.lake / "bronze/numbers"), pa.table(rows), mode="append")

    def rows(self, table: str) -> Counter[tuple[Any, ...]]:
        columns = ["id", "zone", "country"] if table == "silver/zoned" else ["id", "rate"]
        if not DeltaTable.is_deltatable(str(self.lake / table)):
            return Counter()
        frame = DeltaTable(str(self.lake / table)).to_pyarrow_table(columns=columns)
        return Counter(zip(*(frame.column(name).to_pylist() for name in columns), strict=True))

    def await_exact(self) -> None:
        """Wait until all tables hold row for row what they have to; fails on one row too many."""

        def exact() -> bool:
            found = {table: self.rows(table) for table in self.expected}
            for table, rows in found.items():
                assert not rows - self.expected[table], (table, rows, self.expected[table])
            return found == self.expected

        wait_for("all rows are there", exact, 60)

    # -- what is seen

    @property
    def up(self) -> bool:
        return all(view.progressed for view in self.client.list())

    def generations(self) -> dict[str, int]:
        return {id_: desired.generation for id_, desired in self.client.store.desired().items()}

    def restarted(self, before: dict[str, int]) -> dict[str, int]:
        """How often each stream was asked to restart since."""
        now = self.generations()
        return {id_: now[id_] - number for id_, number in before.items() if now[id_] != number}

    def observations(self, key: str) -> list[str]:
        """What a dimension's observations say, newest first."""
        asset = self.dev.query(_OBSERVATIONS, key={"path": key.split("/")})["assetOrError"]
        return [event["description"] or "" for event in asset.get("assetObservations", [])]

    def await_observation(self, key: str, count: int) -> str:
        """The newest of so many observations of a dimension, once there are as many."""
        seen = wait_for(
            f"{key} observed",
            lambda: found if len(found := self.observations(key)) >= count else None,
            60,
        )
        assert len(seen) == count, seen
        return seen[0]

    def await_run(self, count: int) -> str:
        """Wait for the end of the newest of so many runs that follow restarts; gives its log."""

        def newest() -> str | None:
            runs = self.dev.query(_RUNS)["runsOrError"]["results"]
            assert len(runs) <= count, runs
            return runs[0]["runId"] if len(runs) == count else None

        run_id = wait_for("a run that follows the restarts", newest, 60)
        status, log = self.dev.wait(run_id, UP_SECONDS), self.dev.messages(run_id)
        assert status == "SUCCESS", log
        return log

    def cascade(self) -> list[tuple[str, str]]:
        """The streams of the cascade under way, and how far each is."""
        document, _ = self.client.store.document(*DOCUMENT)
        steps = (document or {}).get("cascade") or {"steps": []}
        return [(step["stream_id"], step["status"]) for step in steps["steps"]]

    def heard(self) -> list[tuple[str, dict[str, Any]]]:
        """What the app's own subscriber was told, in order."""
        path = self.app / "data" / "heard.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(name.removeprefix("streaming."), payload) for name, payload in map(json.loads, lines)]

    def await_heard(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        """What the subscriber was told, once a cascade's end was told so often."""

        def ended() -> bool:
            return [name for name, _ in self.heard()].count("cascade_restart_completed") >= count

        wait_for("the cascade's end is told", ended, 30)
        return self.heard()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("dev"))
    try:
        made.dev.start()
        wait_for("all streams run", lambda: made.up, UP_SECONDS)
        for key in ("ref/rates", "ref/zones"):
            assert "Watched from now on" in made.await_observation(key, 1)
        made.await_exact()
        yield made
    finally:
        made.dev.stop()
        made.client.store.close()


def test_replaced_files_restart_their_stream_and_no_other(stack: Stack) -> None:
    before, since = stack.generations(), time.monotonic()
    stack.put_rates(20)
    log = stack.await_run(1)
    print(f"from the change to the end of the run: {time.monotonic() - since:.1f} s")
    assert stack.restarted(before) == {"rated": 1}
    assert "To restart: rated." in stack.await_observation("ref/rates", 2)
    assert "rated: restarted for ref.rates, down for" in log
    stack.add()
    stack.await_exact()


def test_other_rows_of_a_delta_table_are_observed_and_restart_nothing(stack: Stack) -> None:
    before = stack.generations()
    stack.put_zones("b")
    assert "Reported only: no stream restarts." in stack.await_observation("ref/zones", 2)
    stack.add()
    stack.await_exact()
    assert stack.restarted(before) == {}


def test_another_column_of_a_delta_table_restarts_its_stream_and_no_other(stack: Stack) -> None:
    before = stack.generations()
    stack.put_zones("b", "here")
    log = stack.await_run(2)
    assert stack.restarted(before) == {"zoned": 1}
    assert "zoned: restarted for ref.zones" in log
    assert "To restart: zoned." in stack.await_observation("ref/zones", 3)
    stack.add()
    stack.await_exact()


def test_the_apps_own_subscriber_was_told_of_each_once(stack: Stack) -> None:
    told = stack.await_heard(2)
    assert [(name, payload.get("entity_id") or payload["entity_ids"]) for name, payload in told] == [
        ("dimension_changed", "ref.rates"),
        ("cascade_restart_started", ["ref.rates"]),
        ("restart_triggered", ["ref.rates"]),
        ("cascade_restart_completed", ["ref.rates"]),
        ("dimension_changed", "ref.zones"),
        ("dimension_changed", "ref.zones"),
        ("cascade_restart_started", ["ref.zones"]),
        ("restart_triggered", ["ref.zones"]),
        ("cascade_restart_completed", ["ref.zones"]),
    ]


def test_a_host_killed_between_two_restarts_of_a_cascade(stack: Stack) -> None:
    """Other columns of the files restart the stream's consumer first; the host dies when that has been asked for."""
    before, runs = stack.generations(), len(stack.dev.query(_RUNS)["runsOrError"]["results"])
    heard = len(stack.heard())
    host = stack.client.store.host()
    assert host is not None
    stack.put_rates(30, "note")
    middle = [("onward", "asked"), ("rated", "waiting")]
    wait_for("the cascade's middle", lambda: stack.cascade() == middle, 60)
    os.kill(host.pid, signal.SIGKILL)
    assert stack.cascade() == middle
    log = stack.await_run(runs + 1)
    wait_for("all streams run", lambda: stack.up, UP_SECONDS)
    after = stack.client.store.host()
    assert after is not None
    assert after.token > host.token
    assert "onward: restarted for ref.rates" in log
    assert "rated: restarted for ref.rates" in log
    stack.add()
    stack.await_exact()
    told = stack.await_heard(
        1 + sum(name == "cascade_restart_completed" for name, _ in stack.heard()[:heard])
    )
    names = Counter(name for name, _ in told[heard:])
    assert names == {
        "dimension_changed": 1,
        "cascade_restart_started": 1,
        "restart_triggered": 2,
        "cascade_restart_completed": 1,
    }
    # Two more looks of the sensor at a cascade that is over.
    time.sleep(5)
    assert stack.cascade() == []
    assert stack.restarted(before) == {"onward": 1, "rated": 1}
