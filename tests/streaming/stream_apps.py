"""A small app with streams, its store, and what a host would report. No Spark."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from manifests import manifest, pipe

from kindling_dagster.manifest import Manifest
from kindling_dagster.project import KindlingProject
from kindling_dagster.streaming.identity import store_project
from kindling_dagster.streaming.model import (
    HostInfo,
    Lease,
    StreamHealth,
    StreamingQueryState,
    StreamMetrics,
    StreamStatus,
)
from kindling_dagster.streaming.store import StreamStore

STREAM = {"processing_mode": "streaming"}
SHOP: Manifest = manifest(
    pipe("clean", "bronze.orders", "silver.orders"),
    pipe("follow", "silver.orders ref.items", "silver.live", tags=STREAM),
    pipe("enrich", "silver.live", "gold.enriched", tags=STREAM),
    pipe("alone", "bronze.clicks", "silver.clicks", tags=STREAM),
    pipe("report", "gold.enriched", "gold.report"),
)
STREAMS = ("follow", "enrich", "alone")


def shop(folder: Path, app: Manifest = SHOP) -> KindlingProject:
    """The app, from a manifest file."""
    app.write(folder / "manifest.json")
    return KindlingProject(manifest=folder / "manifest.json")


def open_store(url: str, project: KindlingProject) -> StreamStore:
    return StreamStore.open(url, store_project(project))


class Host:
    """Stands in for a stream host: takes the lease and reports whatever a test wants."""

    def __init__(self, store: StreamStore, ttl: float = 60.0, **info: Any) -> None:
        self.store = store
        self.ttl = ttl
        now = time.time()
        values: dict[str, Any] = {"run_id": "", "state": "running", "started_at": now, "heartbeat_at": now}
        self.info = HostInfo(**{"host_id": f"host-{time.monotonic_ns()}", "token": 0, **values, **info})
        lease = store.acquire_lease(self.info, ttl)
        assert lease is not None
        self.lease: Lease = lease

    def report(self, *statuses: StreamStatus) -> None:
        self.store.report(self.lease, statuses=statuses)

    def run_all(self, **metrics: Any) -> None:
        """Make actual what is desired, at once."""
        self.report(
            *(
                running(stream_id, generation=desired.generation, **metrics)
                if desired.running
                else StreamStatus(
                    stream_id,
                    StreamingQueryState.STOPPED,
                    generation=desired.generation,
                    updated_at=time.time(),
                )
                for stream_id, desired in self.store.desired().items()
            )
        )


def running(stream_id: str, *, generation: int = 0, rows: int = 10, **metrics: Any) -> StreamStatus:
    """A stream that runs well."""
    now = time.time()
    values = {"batch_id": 1, "last_progress_at": now, "last_event_at": now, **metrics}
    return StreamStatus(
        stream_id,
        StreamingQueryState.RUNNING,
        health=StreamHealth.HEALTHY,
        generation=generation,
        started_at=now,
        metrics=StreamMetrics(**values),
        rows_committed=rows,
        updated_at=now,
    )
