"""Runs the demo of the working directory through Dagster, twice. Started by the tests.

First the job ``main``, feed and all, then one day of what is partitioned by day, and all landed days of it, in
one run; then the app's pipes again, with nothing landed in between (not with ``--once``). Prints one JSON object: the
assets materialized by each run, and the Delta version of each table after it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dagster import DagsterInstance, ExecuteInProcessResult, materialize
from deltalake import DeltaTable

LAKE = Path("demo/data/lake")
LANDED = Path("demo/data/landing/flights")


def _report(result: ExecuteInProcessResult) -> dict[str, object]:
    events = result.get_asset_materialization_events()
    return {
        "assets": sorted("/".join(event.asset_key.path) for event in events if event.asset_key),
        "versions": {
            ".".join(log.parent.relative_to(LAKE).parts): DeltaTable(log.parent).version()
            for log in LAKE.rglob("_delta_log")
        },
    }


def _of_days(definitions: Any, instance: DagsterInstance, first: str, last: str) -> ExecuteInProcessResult:
    """One run of some days, as a backfill of them launches it."""
    return materialize(
        [definitions.daily_operations],
        instance=instance,
        resources={"kindling": definitions.KindlingResource()},
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
    )


def main() -> None:
    sys.path.insert(0, str(Path.cwd()))
    import definitions

    with DagsterInstance.ephemeral() as instance:
        job = definitions.defs.resolve_job_def("main")
        whole = _report(job.execute_in_process(instance=instance))
        days = sorted(folder.name.removeprefix("date=") for folder in LANDED.glob("date=*"))
        day = _report(_of_days(definitions, instance, days[4], days[4]))
        span = _report(_of_days(definitions, instance, days[0], days[-1]))
        reports = {"first": {**span, "assets": whole["assets"]}, "day": day, "span": span}
        if "--once" not in sys.argv:
            pipes = sorted(definitions.flights.keys)
            everything = definitions.defs.resolve_implicit_global_asset_job_def()
            again = everything.execute_in_process(instance=instance, asset_selection=pipes)
            reports["second"] = _report(again)
        (partitioned,) = definitions.daily_operations.keys
        known = sorted(instance.get_materialized_partitions(partitioned))
    print(json.dumps({**reports, "days": known}))


if __name__ == "__main__":
    main()
