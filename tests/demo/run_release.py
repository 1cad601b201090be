"""Runs a bit of the demo, batch and streams, with the flights package that is installed. Started by the tests.

Arguments: the app's directory, and the id of the run.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import flights

from kindling_dagster import KindlingProject
from kindling_dagster.engines.base import PipeFinished, RunRequest
from kindling_dagster.engines.in_process import InProcessEngine
from kindling_dagster.runtime import KindlingRuntime
from kindling_dagster.spark import build_session
from kindling_dagster.streaming.fencing import LeaseFence
from kindling_dagster.streaming.model import StreamingQueryConfig
from kindling_dagster.streaming.starter import StreamStarter
from kindling_dagster.streaming.store import StreamStore


def run(engine: InProcessEngine, run_id: str, *pipes: str) -> None:
    results = [
        event.result for event in engine.run(RunRequest(run_id, pipes)) if isinstance(event, PipeFinished)
    ]
    assert [result.status for result in results] == ["succeeded"] * len(pipes), results


def main() -> None:
    app, run_id = Path(sys.argv[1]).resolve(), sys.argv[2]
    assert "site-packages" in str(flights.__file__), flights.__file__
    project = KindlingProject(app, environment="local")
    spark = build_session({"spark.master": "local[2]", "spark.sql.shuffle.partitions": "2"})
    engine = InProcessEngine(project, lambda: spark)
    try:
        run(engine, run_id, "bronze.flights", "ref.airlines", "ref.airports", "silver.flights")
        fence = LeaseFence()
        fence.extend(fence.now(), 600)
        store = StreamStore.open(f"sqlite:///{app / 'streams.db'}", "flights-app")
        # The engine's own: one process holds one app, and the engine closes it.
        runtime = KindlingRuntime.start(project, spark)
        runtime.lineage.begin(run_id)
        starter = StreamStarter(runtime, spark, store, fence)
        for stream_id in ("silver.flights_live", "gold.live_delays"):
            query = starter.start(stream_id, StreamingQueryConfig())
            query.processAllAvailable()
            query.stop()
        run(engine, run_id, "gold.live_board")
    finally:
        engine.close()
        spark.stop()


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.1f} seconds")
