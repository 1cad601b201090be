"""The Kindling apps that the benchmarks ``step`` and ``chain`` run: Delta tables of one shape, merged by key."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

PACKAGE = "sales"
SOURCE = "raw.orders"

SETTINGS = """
kindling:
  delta:
    access_mode: storage
  storage:
    table_root: lake
  telemetry:
    logging:
      level: ERROR
      print: false
"""
ENTITIES = """
from kindling.data_entities import DataEntities
from pyspark.sql.types import DoubleType, LongType, StringType, StructField, StructType

COLUMNS = StructType(
    [
        StructField("id", LongType(), False),
        StructField("customer", StringType()),
        StructField("amount", DoubleType()),
    ]
)

for entity in {entities}:
    DataEntities.entity(
        entityid=entity,
        name=entity.replace(".", "_"),
        merge_columns=["id"],
        tags={{}},
        schema=COLUMNS,
    )
"""
PIPES = """
from functools import reduce

from kindling.data_pipes import DataPipes
from pyspark.sql import functions as F


def declare(output, inputs):
    @DataPipes.pipe(
        pipeid=output,
        name=output,
        tags={{}},
        input_entity_ids=list(inputs),
        output_entity_id=output,
        output_type="table",
    )
    def orders(**frames):
        together = reduce(lambda one, more: one.unionByName(more), frames.values())
        return together.groupBy("id").agg(
            F.max(F.sha2("customer", 256)).alias("customer"), F.avg(F.col("amount") * 1.01).alias("amount")
        )


for output, inputs in {pipes}.items():
    declare(output, inputs)
"""


@dataclass(frozen=True)
class App:
    """One app: each pipe is named after the entity it writes; ``pipes`` are their inputs."""

    directory: Path
    pipes: Mapping[str, tuple[str, ...]]

    @property
    def lake(self) -> Path:
        """Where its tables are."""
        return self.directory / "lake"


def chain(length: int) -> dict[str, tuple[str, ...]]:
    """Pipes in a row, each reading what the one before writes."""
    names = [f"silver.step_{number}" for number in range(length)]
    return {name: (before,) for name, before in zip(names, [SOURCE, *names], strict=False)}


def layers(width: int, depth: int) -> dict[str, tuple[str, ...]]:
    """Layers of so many pipes; each pipe reads two tables of the layer below."""
    pipes: dict[str, tuple[str, ...]] = {f"layer0.table_{column}": (SOURCE,) for column in range(width)}
    for layer in range(1, depth):
        for column in range(width):
            below = {f"layer{layer - 1}.table_{reads % width}" for reads in (column, column + 1)}
            pipes[f"layer{layer}.table_{column}"] = tuple(sorted(below))
    return pipes


def write_app(directory: Path, pipes: Mapping[str, tuple[str, ...]]) -> App:
    """Write an app as the scaffold lays it out, without data."""
    package = directory / PACKAGE
    for folder, text in (
        ("entities", ENTITIES.format(entities=[SOURCE, *pipes])),
        ("pipes", PIPES.format(pipes=dict(pipes))),
    ):
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").touch()
        (package / folder / "tables.py").write_text(text)
    (package / "__init__.py").touch()
    (directory / "app.yaml").write_text(f"name: {PACKAGE}\n")
    (directory / "settings.yaml").write_text(SETTINGS)
    (directory / "lake-reqs.txt").write_text(f"{PACKAGE}\n")
    return App(directory, dict(pipes))


def write_source(app: App, rows: int) -> None:
    """The table that nobody in the app writes, with the change feed on as Kindling makes its tables."""
    ids = range(rows)
    columns = {
        "id": pa.array(ids, pa.int64()),
        "customer": [f"customer {number % 1000}" for number in ids],
        "amount": [number % 97 * 1.5 for number in ids],
    }
    path = app.lake / SOURCE.replace(".", "/")
    path.mkdir(parents=True)
    write_deltalake(path, pa.table(columns), configuration={"delta.enableChangeDataFeed": "true"})


def forget_outputs(spark: Any, app: App) -> None:
    """Delete every table that pipes write, on disk and in Delta's cache of logs."""
    for entity in app.pipes:
        shutil.rmtree(app.lake / entity.replace(".", "/"), ignore_errors=True)
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
