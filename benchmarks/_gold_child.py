"""One Dagster run of the demo's gold layer, as a run worker does it; prints what took how long, as JSON.

``python -m benchmarks._gold_child`` and ``warm``, ``in_process``, ``loading`` or ``nothing``, with the folder that holds the demo
and its definitions.py in BENCHMARK_DEMO, the keys of the gold assets in BENCHMARK_ASSETS and Dagster's home in
DAGSTER_HOME.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetSpec,
    DagsterEventType,
    DagsterInstance,
    Definitions,
    JobDefinition,
    MaterializeResult,
    define_asset_job,
    execute_job,
    in_process_executor,
    multi_asset,
    reconstructable,
)

if TYPE_CHECKING:
    from kindling_dagster.engine_resources import EngineResource

DEMO, ASSETS = "BENCHMARK_DEMO", "BENCHMARK_ASSETS"


def warm() -> JobDefinition:
    """The demo's definitions, its gold layer on the warm process."""
    from kindling_dagster import WarmEngine

    return _gold(WarmEngine())


def in_process() -> JobDefinition:
    """The demo's definitions, its gold layer in the run's own process."""
    from kindling_dagster import InProcessEngine

    return _gold(InProcessEngine())


def nothing() -> JobDefinition:
    """As many assets that do nothing: what Dagster itself takes."""
    keys = os.environ[ASSETS].split(",")

    @multi_asset(specs=[AssetSpec(key.split("/")) for key in keys])
    def tables() -> Iterator[MaterializeResult[Any]]:
        for key in keys:
            yield MaterializeResult(asset_key=key.split("/"))

    jobs = [define_asset_job("gold", executor_def=in_process_executor)]
    return Definitions(assets=[tables], jobs=jobs).resolve_job_def("gold")


def loading() -> JobDefinition:
    """The same beside the demo's definitions, which are loaded and not used."""
    _definitions()
    return nothing()


def _definitions() -> Any:
    sys.path.insert(0, os.environ[DEMO])
    import definitions

    return definitions


def _gold(engine: EngineResource) -> JobDefinition:
    from kindling_dagster import KindlingResource

    return Definitions(
        assets=[_definitions().flights],
        jobs=[define_asset_job("gold", os.environ[ASSETS].split(","))],
        resources={"kindling": KindlingResource(engine=engine)},
        executor=in_process_executor,
    ).resolve_job_def("gold")


def main(side: str) -> None:
    """Run, and tell when the run began, each table was there and it ended (Unix seconds), and the pipes' seconds."""
    from benchmarks import _gold_child

    with DagsterInstance.get() as instance:
        began = time.time()
        with execute_job(reconstructable(getattr(_gold_child, side)), instance=instance) as ended:
            records = instance.get_records_for_run(
                ended.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION
            ).records
            told = {
                "ok": ended.success,
                "began": began,
                "tables": sorted(record.timestamp for record in records),
                "ended": time.time(),
                "work": sum(map(_seconds, records)),
            }
    print(json.dumps(told))


def _seconds(record: Any) -> float:
    found = record.asset_materialization.metadata.get("kindling/duration_seconds")
    return float(found.value) if found else 0.0


if __name__ == "__main__":
    main(sys.argv[1])
