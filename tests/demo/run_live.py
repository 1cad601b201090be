"""Runs the demo's streams in the working directory. Started by the tests.

Ten days land and reach bronze; a stream host runs the streams until they have read them; one more day lands, and
the host is stopped and another one started in between. Then the batch asset behind the streams is computed.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from dagster import AssetsDefinition, AssetSelection, DagsterInstance, materialize
from deltalake import DeltaTable
from kindling_dagster_demo import feed

from kindling_dagster import KindlingProject, KindlingResource, KindlingStreamsResource
from kindling_dagster.streaming.host import run_host

# Absolute: a host works in its app's directory.
ROOT = Path.cwd()
LAKE = ROOT / "demo" / "data" / "lake"
LIMIT_SECONDS = 240


def _flights(table: str) -> int:
    path = LAKE / table
    if not DeltaTable.is_deltatable(str(path)):
        return 0
    frame = DeltaTable(path).to_pandas()
    return int(frame["flights"].sum()) if "flights" in frame else len(frame)


def _host_until_all_is_read(project: KindlingProject) -> None:
    resource = KindlingStreamsResource(project, store_url=f"sqlite:///{ROOT / 'streams.db'}")
    resource.start()
    stop, errors = threading.Event(), []

    def host() -> None:
        try:
            run_host(project, resource.url(), KindlingResource().create_session, stop=stop)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=host)
    thread.start()
    until = time.monotonic() + LIMIT_SECONDS
    while thread.is_alive() and _flights("gold/live_delays") != _flights("bronze/flights"):
        if time.monotonic() > until:
            errors.append(AssertionError([(view.stream_id, view.verdict.reason) for view in resource.list()]))
            break
        time.sleep(0.5)
    stop.set()
    thread.join()
    resource.close()
    if errors:
        raise errors[0]


def main() -> None:
    sys.path.insert(0, str(ROOT))
    import definitions

    app = ROOT / "demo"
    feed.ensure_landed(app, 10)
    with DagsterInstance.ephemeral() as instance:

        def run(asset: AssetsDefinition, *keys: str) -> None:
            resources = {"kindling": KindlingResource()}
            chosen = AssetSelection.assets(*keys)
            assert materialize([asset], selection=chosen, resources=resources, instance=instance).success

        run(definitions.flights, "bronze/flights", "ref/airlines", "ref/airports")
        _host_until_all_is_read(definitions.project)
        feed.land_next(app)
        run(definitions.flights, "bronze/flights")
        _host_until_all_is_read(definitions.project)
        run(definitions.live_board, "gold/live_board")


if __name__ == "__main__":
    main()
