"""An app whose streams join with real tables, its sensor in a Dagster instance, and a stand-in for its host."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from dagster import DagsterInstance, JobDefinition, build_sensor_context
from deltalake import write_deltalake
from manifests import entity, manifest, pipe
from stream_apps import STREAM, Host, open_store

from kindling_dagster import KindlingStreamsResource, build_stream_jobs
from kindling_dagster.dimension_sensor import build_dimension_sensor
from kindling_dagster.manifest import Location, Manifest
from kindling_dagster.project import KindlingProject
from kindling_dagster.streaming.client import StreamsClient
from kindling_dagster.streaming.restarts import RestartConfig
from kindling_dagster.streaming.store import StreamStore
from kindling_dagster.streaming.watched import DimensionPolicy

POLICY = DimensionPolicy(restarts=RestartConfig(delay=30, max_wait=300, min_interval=60))


def dimension_app(lake: Path) -> Manifest:
    """Three streams: one joins a Delta table, one plain files, one reads the latter's output and a Delta table."""

    def table(entity_id: str, provider: str = "delta", **changes: Any) -> Any:
        return entity(
            entity_id, provider=provider, location=Location("path", str(lake / entity_id)), **changes
        )

    tables = (table("ref.planes"), table("ref.rates", "parquet"), table("ref.zones"))
    session = entity("ref.session", provider="memory", location=Location("memory"))
    return manifest(
        pipe("by_delta", "bronze.a ref.planes", "silver.a", tags=STREAM),
        pipe("by_files", "bronze.b ref.rates", "silver.b", tags=STREAM),
        pipe("below", "silver.b ref.zones", "gold.b", tags=STREAM),
        pipe("by_session", "bronze.c ref.session", "silver.c", tags=STREAM),
        entities=(*tables, session),
    )


@dataclass
class DimensionWorld:
    """The app with its tables; time is told, not waited for."""

    folder: Path
    instance: DagsterInstance
    policy: DimensionPolicy = POLICY
    app: Manifest | None = None
    now: float = field(default_factory=time.time)
    cursor: str | None = None
    kindling: Any = field(default_factory=lambda: SimpleNamespace(storage_options={}))
    """In place of the KindlingResource, which imports PySpark."""

    def __post_init__(self) -> None:
        self.lake = self.folder / "lake"
        made = self.app or dimension_app(self.lake)
        made.write(self.folder / "manifest.json")
        self.project = KindlingProject(manifest=self.folder / "manifest.json")
        self.job: JobDefinition = build_stream_jobs(self.project, dimensions=self.policy)[3]
        self.sensor = build_dimension_sensor(self.project, self.job, policy=self.policy)
        self.store: StreamStore = open_store(
            KindlingStreamsResource(self.project).url(self.instance), self.project
        )
        for name in ("ref.planes", "ref.zones"):
            self.write_delta(name)
        self.write_files(1)
        self.client = StreamsClient(self.store, self.project.manifest, "dimensions", lambda: self.now)
        self.client.start()
        self.host = Host(self.store, ttl=3_600)
        self.host.run_all()

    # -- tables

    def write_delta(self, name: str, mode: Any = "append", **columns: Any) -> None:
        rows = {"id": [1, 2], "name": ["a", "b"], **columns}
        write_deltalake(
            str(self.lake / name), pa.table(rows), mode=mode, schema_mode="merge" if columns else None
        )

    def write_files(self, value: int) -> None:
        folder = self.lake / "ref.rates"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": list(range(value))}), folder / "part.parquet")

    # -- ticks

    def tick(self, seconds: float = 0.0) -> Any:
        """One tick, so many seconds later."""
        self.now += seconds
        with build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={
                "kindling": self.kindling,
                "kindling_streams": KindlingStreamsResource(self.project),
            },
        ) as context:
            result = self.sensor.evaluate_tick(context)
        self.cursor = result.cursor
        return result

    def generations(self) -> dict[str, int]:
        return {id_: desired.generation for id_, desired in self.store.desired().items()}

    def restarted(self, before: dict[str, int]) -> dict[str, int]:
        """How often each stream was asked to restart since."""
        now = self.generations()
        return {id_: now[id_] - number for id_, number in before.items() if now[id_] != number}


def told(result: Any) -> dict[str, str]:
    """Descriptions of observations by asset."""
    return {event.asset_key.to_user_string(): event.description or "" for event in result.asset_events or []}
