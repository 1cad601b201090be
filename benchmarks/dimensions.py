"""Looking at 100 unchanged dimensions, over tables of 1, 100 and 1,000 commits, against Spark asked for the same."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from benchmarks.harness import Case
from kindling_dagster.spark import build_session
from kindling_dagster.streaming.dimensions.look import look
from kindling_dagster.streaming.dimensions.model import Dimension

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


def cases() -> Iterator[Case]:
    """All sizes, one Spark session for them."""
    spark = build_session({"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2"})
    try:
        for commits in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                yield from compare(spark, make_tables(Path(folder), commits), commits)
    finally:
        spark.stop()
