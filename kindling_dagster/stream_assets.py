"""Streams as assets: to materialize one is to ask that it runs, and to wait until it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    DataVersion,
    Failure,
    MaterializeResult,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    multi_asset,
)

from kindling_dagster.assets import PROJECT_TAG, KindlingAssetGraph, app_name
from kindling_dagster.collector import collector_paused
from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.errors import DeclarationError
from kindling_dagster.project import KindlingProject
from kindling_dagster.selection import Selection
from kindling_dagster.stream_events import data_version, stream_metadata
from kindling_dagster.streaming.client import StreamsClient
from kindling_dagster.streaming.model import StreamingQueryState
from kindling_dagster.streaming.views import StreamView
from kindling_dagster.translator import PIPES_METADATA, DagsterKindlingTranslator

STREAMS_RESOURCE = "kindling_streams"
START_SECONDS = 300.0
"""How long a materialization waits until its streams run: a host that must be launched needs under a minute."""

_POLL_SECONDS = 1.0
_SAY_EVERY_SECONDS = 10.0


def build_kindling_streaming_assets(
    project: KindlingProject,
    *,
    select: Selection | None = None,
    exclude: Selection | None = None,
    translator: DagsterKindlingTranslator | None = None,
    name: str | None = None,
    op_tags: Mapping[str, Any] | None = None,
    resource_key: str = STREAMS_RESOURCE,
    start_timeout: float = START_SECONDS,
) -> AssetsDefinition:
    """The entities that an app's streams write, as assets.

    To materialize one asks that its streams run, waits until each has ended a batch or found nothing to
    read, and gives what is known of it. The supervisor sensor sees to it that a host runs them. Nothing
    happens to a stream that runs already; one that has read what was there and ended (trigger ``availableNow``)
    does so again. An entity that batch pipes write too is theirs.

    Args:
        project: The app.
        select: Kindling ids with globs, ``tag:name=value``, Dagster selection strings, or a list of such.
        exclude: The same, for what to leave out.
        translator: Decides keys, groups, kinds and so on; the same as for the batch assets.
        name: Name of the op; ``<app>_streams`` by default.
        op_tags: Tags of the op.
        resource_key: Key of the KindlingStreamsResource.
        start_timeout: Seconds that a materialization waits for its streams.

    Raises:
        KindlingDagsterError: The app cannot be loaded, declares no stream, or a selection fits nothing.

    Example::

        jobs = build_stream_jobs(project)
        defs = Definitions(
            assets=[build_kindling_streaming_assets(project)],
            asset_checks=build_stream_checks(project),
            jobs=jobs,
            sensors=[build_stream_supervisor(project, jobs[0])],
            resources={
                "kindling": KindlingResource(), "kindling_streams": KindlingStreamsResource(project)
            },
        )
    """
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())
    return streaming_step_of(
        assets,
        select=select,
        exclude=exclude,
        name=name,
        op_tags=op_tags,
        resource_key=resource_key,
        start_timeout=start_timeout,
    )


def streaming_step_of(
    assets: KindlingAssetGraph,
    *,
    select: Selection | None = None,
    exclude: Selection | None = None,
    name: str | None = None,
    op_tags: Mapping[str, Any] | None = None,
    resource_key: str = STREAMS_RESOURCE,
    start_timeout: float = START_SECONDS,
) -> AssetsDefinition:
    """What ``build_kindling_streaming_assets`` does, over a graph that is there."""
    project = assets.project
    PipeGraphBuilder(assets.manifest).build_graph()  # refuses a circle through batch pipes and streams
    with collector_paused():
        specs = [assets.streaming_specs[id_] for id_ in assets.select_streaming(select, exclude)]
    if not specs:
        raise DeclarationError(
            f"The app {project.manifest.app.name} declares no stream that has an entity of its own.",
            "Tag a pipe processing_mode: streaming.",
        )

    @multi_asset(
        name=name or f"{app_name(project)}_streams",
        specs=specs,
        can_subset=True,
        op_tags={**(op_tags or {}), PROJECT_TAG: project.to_json(), **assets.keys_tag},
        required_resource_keys={resource_key},
    )
    def streams(context):  # type: ignore[no-untyped-def]  # Dagster takes no postponed annotation here
        resource = getattr(context.resources, resource_key)
        client = resource.client(by=f"run {context.run_id}", instance=context.instance)
        yield from _Start(context, client, _selected(context), start_timeout).run()

    return streams


def _selected(context: AssetExecutionContext) -> dict[AssetKey, tuple[str, ...]]:
    """The streams behind each asset that is asked for."""
    return {
        spec.key: tuple(map(str, spec.metadata[PIPES_METADATA]))
        for spec in context.assets_def.specs
        if spec.key in context.selected_asset_keys
    }


@dataclass
class _Start:
    """One materialization of streaming assets."""

    context: AssetExecutionContext
    client: StreamsClient
    assets: Mapping[AssetKey, tuple[str, ...]]
    limit: float
    said: dict[str, str] = field(default_factory=dict)
    said_at: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)

    def run(self) -> Iterator[MaterializeResult[Any]]:
        """Ask, wait, give each asset as soon as its streams run.

        Raises:
            Failure: Some stream cannot start, or none of its hosts came in time.
        """
        self._ask([stream_id for ids in self.assets.values() for stream_id in ids])
        left = dict(self.assets)
        deadline = time.monotonic() + self.limit
        pause = threading.Event()
        while left:
            snapshot = self.client.snapshot()
            for key, ids in list(left.items()):
                views = [snapshot.view(stream_id) for stream_id in ids]
                done = self._settle(views)
                if done is not None:
                    del left[key]
                    if done:
                        yield self._result(key, views)
            if not left:
                break
            waiting = [snapshot.view(stream_id) for ids in left.values() for stream_id in ids]
            self._say(waiting)
            if time.monotonic() > deadline:
                self._give_up(waiting)
                break
            pause.wait(_POLL_SECONDS)
        if self.failed:
            raise self._failure()

    def _ask(self, streams: Sequence[str]) -> None:
        snapshot = self.client.snapshot()
        # Of trigger availableNow: to be materialized again means to read what has come since.
        again = [stream_id for stream_id in streams if snapshot.view(stream_id).ended]
        others = [stream_id for stream_id in streams if stream_id not in again]
        reason = f"materialized by run {self.context.run_id}"
        # The run's id makes a retried step the same request: it does not start what was stopped in between.
        if others:
            self.client.start(others, reason=reason, request=self.context.run_id)
        if again:
            self.client.restart(again, reason=reason, request=self.context.run_id)
        self.context.log.info(f"Asked to run: {', '.join(streams)}.")

    def _settle(self, views: Sequence[StreamView]) -> bool | None:
        """Whether the streams of an asset all run; None while that is not known yet."""
        for view in views:
            if view.dead_letter is not None or (
                view.current and view.status is not None and view.status.state is StreamingQueryState.FAILED
            ):
                self.failed[view.stream_id] = f"{view.verdict.reason} {view.verdict.suggestion}".strip()
            elif not view.wanted:
                self.failed[view.stream_id] = "Somebody asked to stop it in the meantime."
        if any(view.stream_id in self.failed for view in views):
            return False
        return True if all(view.progressed for view in views) else None

    def _say(self, waiting: Sequence[StreamView]) -> None:
        now = time.monotonic()
        overdue = now - self.said_at >= _SAY_EVERY_SECONDS
        for view in waiting:
            words = f"{view.stream_id} is not up yet ({view.state}): {view.verdict.reason}"
            if overdue or self.said.get(view.stream_id) != view.state:
                self.context.log.info(words)
                self.said[view.stream_id] = view.state
                self.said_at = now

    def _give_up(self, waiting: Sequence[StreamView]) -> None:
        for view in waiting:
            if view.stream_id in self.failed or view.progressed:
                continue
            if not view.hosted:
                launches = self.client.store.launches(limit=1)
                last = f" The last launch: {launches[0].outcome}" if launches else " Nobody launched one."
                self.failed[view.stream_id] = (
                    f"No stream host came within {self.limit:.0f} s.{last} See that the supervisor sensor is on, "
                    "Dagster's daemon runs and the run queue is not full. It stays wanted, and runs once a host does."
                )
            else:
                self.failed[view.stream_id] = (
                    f"It showed no progress within {self.limit:.0f} s ({view.state}): {view.verdict.reason} "
                    "It stays wanted; the host's run says what it does."
                )

    def _result(self, key: AssetKey, views: Sequence[StreamView]) -> MaterializeResult[Any]:
        view = views[0]
        metadata = stream_metadata(view)
        if len(views) > 1:
            metadata["kindling/streams"] = [item.stream_id for item in views]
        self.context.log.info(f"{', '.join(item.stream_id for item in views)}: {view.verdict.reason}")
        return MaterializeResult(
            asset_key=key, metadata=metadata, data_version=DataVersion(data_version(view))
        )

    def _failure(self) -> Failure:
        lines = "\n".join(f"- {stream_id}: {why}" for stream_id, why in self.failed.items())
        records = [TableRecord({"stream": id_, "why": why}) for id_, why in self.failed.items()]
        table = MetadataValue.table(records, TableSchema([TableColumn("stream"), TableColumn("why")]))
        return Failure(
            f"{len(self.failed)} of {sum(map(len, self.assets.values()))} streams do not run:\n{lines}",
            metadata={"failed": table},
        )
