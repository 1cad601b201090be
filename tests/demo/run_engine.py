"""Computes the demo of the working directory on one engine. Started by the tests.

``python run_engine.py in_process``, ``warm`` or ``pipes``. Prints the materialized assets as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dagster import DagsterInstance, materialize

from kindling_dagster import InProcessEngine, KindlingResource, KindlingSubmitClient, PipesEngine, WarmEngine


def main(name: str) -> None:
    sys.path.insert(0, str(Path.cwd()))
    import definitions

    engines = {
        "in_process": InProcessEngine,
        "warm": WarmEngine,
        "pipes": lambda: PipesEngine(client=KindlingSubmitClient()),
    }
    with DagsterInstance.ephemeral() as instance:
        resources = {"kindling": KindlingResource(engine=engines[name]())}
        result = materialize([definitions.flights], resources=resources, instance=instance)
    events = result.get_asset_materialization_events()
    print(json.dumps(sorted("/".join(event.asset_key.path) for event in events if event.asset_key)))


if __name__ == "__main__":
    main(sys.argv[1])
