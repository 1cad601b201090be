"""Runs the demo of the working directory through Dagster, twice. Started by the tests.

First the job ``main``, feed and all; then the app's pipes again, with nothing landed in between. Prints one
JSON object: the assets materialized by each run, and the Delta version of each table after it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dagster import DagsterInstance, ExecuteInProcessResult
from deltalake import DeltaTable

LAKE = Path("demo/data/lake")


def _report(result: ExecuteInProcessResult) -> dict[str, object]:
    events = result.get_asset_materialization_events()
    return {
        "assets": sorted("/".join(event.asset_key.path) for event in events if event.asset_key),
        "versions": {
            ".".join(log.parent.relative_to(LAKE).parts): DeltaTable(log.parent).version()
            for log in LAKE.rglob("_delta_log")
        },
    }


def main() -> None:
    sys.path.insert(0, str(Path.cwd()))
    import definitions

    with DagsterInstance.ephemeral() as instance:
        job = definitions.defs.resolve_job_def("main")
        first = _report(job.execute_in_process(instance=instance))
        pipes = sorted(definitions.flights.keys)
        everything = definitions.defs.resolve_implicit_global_asset_job_def()
        second = _report(everything.execute_in_process(instance=instance, asset_selection=pipes))
    print(json.dumps({"first": first, "second": second}))


if __name__ == "__main__":
    main()
