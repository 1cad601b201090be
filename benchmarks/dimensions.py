"""Dimensions: what looking at them costs, and how soon a stream has restarted for a change.

*Looking*: 100 unchanged dimensions, over tables of 1, 100 and 1,000 commits, against Spark asked for the same.
*Restart*: a commit to a dimension, by delta-rs, to the stream's next query running in a real host; with no
waiting for further changes, and looks in a loop in the sensor's place.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from benchmarks._stream_app import PRICES, Hosted, Stage
from benchmarks.harness import Case
from kindling_dagster.spark import build_session
from kindling_dagster.streaming.dimensions.look import look
from kindling_dagster.streaming.dimensions.model import Dimension
from kindling_dagster.streaming.looking import look_at_all
from kindling_dagster.streaming.restart_ticks import tick_restarts
from kindling_dagster.streaming.restarts import Cascade, RestartConfig
from kindling_dagster.streaming.watched import DimensionPolicy, WatchedDimensions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DIMENSIONS = 100
SIZES = (1, 100, 1_000)
SPARK_LOOKS = 10
"""How many of the tables Spark looks at; its time is taken for all 100. It would take minutes otherwise."""
RATIO_GOAL = 50.0
SECONDS_GOAL = 1.0


def make_tables(folder: Path, commits: int) -> list[str]:
    """Copies of one table of that many commits, with a checkpoint at the end as its writer leaves one.

    Commits after the first are those of a table that is only maintained. Copies are hard links: no look writes.
    """
    first = folder / "dimension0"
    write_deltalake(str(first), pa.table({"id": range(1_000), "name": [f"name {n}" for n in range(1_000)]}))
    for version in range(1, commits):
        info = {"timestamp": int(time.time() * 1000), "operation": "VACUUM END", "operationParameters": {}}
        (first / "_delta_log" / f"{version:020d}.json").write_text(json.dumps({"commitInfo": info}) + "\n")
    if commits > 1:
        DeltaTable(str(first)).create_checkpoint()
    tables = [first]
    for number in range(1, DIMENSIONS):
        tables.append(folder / f"dimension{number}")
        shutil.copytree(first, tables[-1], copy_function=os.link)
    return [str(table) for table in tables]


def compare(spark: SparkSession, tables: list[str], commits: int) -> Iterator[Case]:
    """A tick over all tables: the ratio, and the time itself."""
    dimensions = [Dimension(f"ref.d{number}", location=path) for number, path in enumerate(tables)]
    seen = {item.entity_id: look(item).fingerprint for item in dimensions}

    def ours() -> None:
        for item in dimensions:
            found = look(item, seen[item.entity_id])
            assert found.problem is None
            assert not found.changed
            assert found.version == commits - 1

    def other() -> float:
        started = time.perf_counter()
        for path in tables[:SPARK_LOOKS]:
            newest = spark.sql(f"DESCRIBE HISTORY delta.`{path}` LIMIT 1").collect()[0]
            assert newest["version"] == commits - 1
        return (time.perf_counter() - started) * len(tables) / SPARK_LOOKS

    size = f"{len(tables)} unchanged tables of {commits:,} commit{'s' if commits > 1 else ''}"
    yield Case(
        size,
        ours=ours,
        other=other,
        other_name="Spark, its session up and warm",
        goal=RATIO_GOAL,
        better="at least",
        runs=3,
    )
    yield Case(f"{size}, in seconds", ours=ours, goal=SECONDS_GOAL)


class Restarting(Hosted):
    """A host, and the sensor's work in a loop: each change of the dimension restarts the stream that joins it."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        at_once = RestartConfig(delay=0, max_wait=0, min_interval=0)
        policy = DimensionPolicy(restart="always", restarts=at_once)
        self._watched = WatchedDimensions(stage.project.manifest, policy, stage.project.working_dir)
        self._price = 100

    def up(self) -> None:
        """Start the host, and see each dimension as it is."""
        super().up()
        self._tick()

    def change(self) -> float:
        """Seconds from one commit to the running query."""
        self._price += 1
        before = self._tick()
        self.stage.put_items({**PRICES, "pen": self._price})
        committed = time.time()
        found: list[Cascade] = []

        def restarted() -> bool:
            last = self._tick()
            found[:] = [last] if last is not None and last != before else []
            return bool(found)

        self.wait_for("a restart", restarted)
        # The stream of the other chain is not meant to run, and left alone.
        [step] = [step for step in found[0].steps if step.stream_id in self.streams]
        assert step.status == "done", step
        assert step.ended_at is not None
        return step.ended_at - committed

    def _tick(self) -> Cascade | None:
        """As the dimension sensor does it; gives the last cascade that has ended."""
        store, watched = self.store, self._watched
        looked = look_at_all(watched.dimensions, store.fingerprints())
        tick = tick_restarts(
            store,
            watched.dependencies,
            watched.order,
            watched.policy.restarts,
            looked.looks.values(),
            clock=time.time,
        )
        for entity_id, found in looked.looks.items():
            assert found.fingerprint is not None, found.reason
            store.put_fingerprint(entity_id, found.fingerprint)
        return tick.state.last


def cases() -> Iterator[Case]:
    """All sizes over one Spark session, restarts over another."""
    spark = build_session({"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2"})
    try:
        for commits in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                yield from compare(spark, make_tables(Path(folder), commits), commits)
    finally:
        spark.stop()
    with ExitStack() as undo:
        restarting = Restarting(Stage(undo))
        yield Case(
            "change committed to stream running again",
            restarting.change,
            setup=restarting.up,
            teardown=restarting.down,
        )
