"""Runs the app in the working directory with Kindling alone: all pipes, twice. Started by the tests.

Prints one JSON object: the Delta version of each table after the first run, and seconds per run.
"""

from __future__ import annotations

import json
import sys
import time
from graphlib import TopologicalSorter
from pathlib import Path

from deltalake import DeltaTable
from kindling.bootstrap import initialize_framework
from kindling.data_pipes import DataPipesExecution, DataPipesRegistry
from kindling.injection import get_kindling_service

from kindling_dagster.spark import build_session


def _ordered(registry: DataPipesRegistry) -> list[str]:
    pipes = {pipe_id: registry.get_pipe_definition(pipe_id) for pipe_id in registry.get_pipe_ids()}
    writer = {pipe.output_entity_id: pipe_id for pipe_id, pipe in pipes.items()}
    reads = {
        pipe_id: {writer.get(entity.removesuffix(".current")) for entity in pipe.input_entity_ids} - {None}
        for pipe_id, pipe in pipes.items()
    }
    return list(TopologicalSorter(reads).static_order())


def _versions() -> dict[str, int]:
    lake = Path("data/lake")
    return {
        ".".join(log.parent.relative_to(lake).parts): DeltaTable(log.parent).version()
        for log in lake.rglob("_delta_log")
    }


def main() -> None:
    sys.path.insert(0, str(Path("packages/flights/src").resolve()))
    spark = build_session({"spark.master": "local[2]", "spark.sql.warehouse.dir": "data/warehouse"})
    initialize_framework(
        {
            "platform": "standalone",
            "environment": "local",
            "app_dir": ".",
            "registration_packages": ["flights"],
            "install_bootstrap_dependencies": False,
        }
    )
    pipes = _ordered(get_kindling_service(DataPipesRegistry))
    execution = get_kindling_service(DataPipesExecution)
    seconds, versions = [], []
    for _ in range(2):
        started = time.monotonic()
        execution.run_datapipes(pipes)
        seconds.append(round(time.monotonic() - started, 1))
        versions.append(_versions())
    spark.stop()
    print(json.dumps({"pipes": pipes, "seconds": seconds, "first": versions[0], "second": versions[1]}))


if __name__ == "__main__":
    main()
