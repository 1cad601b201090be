"""The dimension sensor: sees changes of the tables that streams join with, and has the right streams restart."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dagster import (
    AssetObservation,
    DefaultSensorStatus,
    JobDefinition,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from kindling_dagster.assets import KindlingAssetGraph, app_name
from kindling_dagster.dimension_events import (
    change_event,
    first_event,
    healed_event,
    problem_event,
    problem_mark,
)
from kindling_dagster.project import KindlingProject
from kindling_dagster.restart_runs import CASCADE_TAG, cascade_key, cascade_run_config
from kindling_dagster.stream_assets import STREAMS_RESOURCE
from kindling_dagster.streaming.client import StreamsClient
from kindling_dagster.streaming.dependencies import RestartDecision
from kindling_dagster.streaming.dimensions.model import Dimension, DimensionLook
from kindling_dagster.streaming.looking import Looked, look_at_all
from kindling_dagster.streaming.restart_ticks import RestartTick, tick_restarts
from kindling_dagster.streaming.restarts import Cascade
from kindling_dagster.streaming.session_looks import KIND, ask_session, needs_session, seen_in_session
from kindling_dagster.streaming.store import ConflictError, StoreError
from kindling_dagster.streaming.watched import DimensionPolicy, WatchedDimensions
from kindling_dagster.translator import DagsterKindlingTranslator

# Of the 60 s that Dagster gives a tick.
_BUDGET_SECONDS = 20.0
_PATIENCE_SECONDS = 10.0
_PROBLEMS = "problems"
_REQUESTED_KEPT = 4


def build_dimension_sensor(
    project: KindlingProject,
    restart_job: JobDefinition,
    *,
    name: str | None = None,
    policy: DimensionPolicy | None = None,
    translator: DagsterKindlingTranslator | None = None,
    resource_key: str = "kindling",
    streams_resource_key: str = STREAMS_RESOURCE,
    default_status: DefaultSensorStatus = DefaultSensorStatus.RUNNING,
) -> SensorDefinition:
    """The sensor that looks at every dimension that a stream depends on, without Spark.

    A change becomes an observation of the dimension, which says what changed and what that means for each
    stream. Where a restart is due, it is asked for (also when no host lives: the next one does it), and a run
    of ``restart_job`` follows it. A table that cannot be looked at is reported once, and hides no other.

    All that it remembers is in the streams' store: a tick that dies repeats nothing and loses nothing.

    Args:
        project: The app.
        restart_job: The job ``<app>_restart_streams`` that ``build_stream_jobs`` made with the same policy.
        name: ``<app>_dimensions`` by default.
        policy: How changes are seen, and when they restart streams.
        translator: Decides the assets' keys.
        resource_key: Key of the KindlingResource, whose ``storage_options`` are used.
        streams_resource_key: Key of the KindlingStreamsResource.
        default_status: Whether the sensor is on from the start.

    Raises:
        KindlingDagsterError: The app cannot be loaded, or a tag or the policy names what there is not.
    """
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())
    watched = WatchedDimensions(assets.manifest, policy, project.working_dir)

    @sensor(
        name=name or f"{app_name(project)}_dimensions",
        job=restart_job,
        minimum_interval_seconds=watched.policy.interval,
        default_status=default_status,
        required_resource_keys={resource_key, streams_resource_key},
        description=f"Looks at {len(watched.dimensions)} tables that the streams of {project.name} join with.",
    )
    def dimensions(context: SensorEvaluationContext) -> SensorResult:
        streams = getattr(context.resources, streams_resource_key)
        storage = getattr(context.resources, resource_key).storage_options
        try:
            client = streams.client(by="dimensions", instance=context.instance)
            return _Tick(context, client, assets, watched, watched.with_storage(storage), restart_job).run()
        finally:
            streams.close()

    return dimensions


@dataclass(frozen=True)
class DimensionCursor:
    """Where looks go on when a tick had no time for all, and which cascades have got their run."""

    after: str = ""
    requested: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As the sensor's cursor."""
        return json.dumps({"after": self.after, "requested": self.requested})

    @staticmethod
    def from_json(text: str | None) -> DimensionCursor:
        """From the sensor's cursor; one that cannot be read counts as none."""
        try:
            data = json.loads(text or "{}")
            return DimensionCursor(str(data["after"]), tuple(str(key) for key in data["requested"]))
        except (ValueError, KeyError, TypeError):
            return DimensionCursor()


@dataclass
class _Tick:
    """One look at all, or as many as there is time for."""

    context: SensorEvaluationContext
    client: StreamsClient
    assets: KindlingAssetGraph
    watched: WatchedDimensions
    dimensions: Mapping[str, Dimension]
    job: JobDefinition
    events: list[AssetObservation] = field(default_factory=list)

    def run(self) -> SensorResult:
        cursor = DimensionCursor.from_json(self.context.cursor)
        store = self.client.store
        fingerprints = store.fingerprints()
        looked = look_at_all(
            self.dimensions,
            fingerprints,
            after=cursor.after,
            budget=_BUDGET_SECONDS,
            patience=_PATIENCE_SECONDS,
            scope=f"{store.project} {store.identity}",
        )
        looks = self._with_session(looked, fingerprints)
        tick = tick_restarts(
            store,
            self.watched.dependencies,
            self.watched.order,
            self.watched.policy.restarts,
            looks.values(),
            clock=self.client.clock,
        )
        self._tell(looks, tick.decisions)
        requests, requested = self._requests(tick, cursor.requested)
        self._remember(looks, fingerprints)
        return SensorResult(
            run_requests=requests,
            skip_reason=None if requests else self._words(looks, tick),
            cursor=DimensionCursor(looked.after, requested).to_json(),
            asset_events=self.events,
        )

    def _with_session(self, looked: Looked, fingerprints: Mapping[str, str]) -> dict[str, DimensionLook]:
        """The looks, with what only Spark can read as the stream host has seen it."""
        store = self.client.store
        by_session = {id_ for id_, found in looked.looks.items() if needs_session(found)}
        if not looked.after:  # otherwise this is not all of them
            ask_session(store, [self.dimensions[id_] for id_ in sorted(by_session)])
        return {
            id_: seen_in_session(store, self.dimensions[id_], found, fingerprints)
            if id_ in by_session
            else found
            for id_, found in looked.looks.items()
        }

    def _remember(self, looks: Mapping[str, DimensionLook], fingerprints: Mapping[str, str]) -> None:
        """Last of all: a crash before this tells the same changes again, which restart nothing a second time."""
        for id_, found in looks.items():
            if found.fingerprint is None or found.fingerprint == fingerprints.get(id_):
                continue
            try:
                self.client.store.put_fingerprint(id_, found.fingerprint)
            except StoreError as error:
                # A tick that fails here would tell nothing of those that are remembered already.
                self.context.log.warning(f"What is told of {id_} will be told again: {error}")

    # -- what is told

    def _tell(self, looks: Mapping[str, DimensionLook], decisions: Sequence[RestartDecision]) -> None:
        kept, version = self.client.store.document(KIND, _PROBLEMS)
        marks: dict[str, str] = dict(kept) if isinstance(kept, dict) else {}
        events: list[AssetObservation] = []
        snapshot = self.client.snapshot()
        hosted = snapshot.host is not None and snapshot.host.alive(snapshot.now)
        down = {view.stream_id: "it is not meant to run" for view in snapshot.views if not view.wanted}
        down |= dict.fromkeys(snapshot.dead_letters, "it is a dead letter")
        for id_, found in looks.items():
            key, mark, before = self.assets.key_of(id_), problem_mark(found), marks.get(id_, "")
            if self._not_made_yet(found, down):
                continue
            if mark and mark != before:
                self.context.log.warning(f"{found.reason}")
                events.append(problem_event(key, found))
            elif found.changed:
                mine = [decision for decision in decisions if decision.entity_id == id_]
                events.append(change_event(key, found, mine, hosted, down))
            elif found.first:
                streams = [item.stream_id for item in self.watched.dependencies.of_dimension(id_)]
                events.append(first_event(key, found, streams))
            elif before and not mark:
                events.append(healed_event(key, found))
            marks = {**marks, id_: mark} if mark else {k: v for k, v in marks.items() if k != id_}
        if marks != (kept or {}):
            try:
                self.client.store.put_document(KIND, _PROBLEMS, marks, version)
            except ConflictError:
                # Another sensor told the same problems: one of the two is enough.
                events = [event for event in events if "kindling/problem" not in event.metadata]
        self.events = events

    def _not_made_yet(self, found: DimensionLook, down: Mapping[str, str]) -> bool:
        """Whether a table was never there and nobody needs it so far: no trouble, such as before the first run."""
        if found.problem is None or found.problem.kind != "missing" or found.previous_fingerprint is not None:
            return False
        return all(item.stream_id in down for item in self.watched.dependencies.of_dimension(found.entity_id))

    def _words(self, looks: Mapping[str, DimensionLook], tick: RestartTick) -> str:
        changed = sum(found.changed for found in looks.values())
        wrong = sum(found.problem is not None for found in looks.values())
        text = f"{len(looks)} of {len(self.dimensions)} dimensions looked at, {changed} changed"
        text += f", {wrong} cannot be looked at." if wrong else "."
        if tick.state.cascade is not None:
            ended = sum(step.ended for step in tick.state.cascade.steps)
            text += f" {tick.state.cascade.id}: {ended} of {len(tick.state.cascade.steps)} streams are done."
        elif tick.next_at is not None:
            streams = ", ".join(item.stream_id for item in tick.state.pending)
            seconds = max(0.0, tick.next_at - self.client.clock())
            text += f" To restart in {seconds:.0f} s, if nothing more changes: {streams}."
        return text

    # -- runs

    def _requests(
        self, tick: RestartTick, requested: tuple[str, ...]
    ) -> tuple[list[RunRequest], tuple[str, ...]]:
        """A run for each cascade that has none; Dagster starts no second one for the same key."""
        requests: list[RunRequest] = []
        for cascade in (tick.state.last, tick.state.cascade):
            if cascade is None or not _concerns_a_stream(cascade):
                continue
            key = cascade_key(cascade)
            if key not in requested:
                requested = (*requested, key)[-_REQUESTED_KEPT:]
                requests.append(self._request(cascade, key))
        return requests, requested

    def _request(self, cascade: Cascade, key: str) -> RunRequest:
        started = time.strftime("%H:%M:%S", time.localtime(cascade.started_at))
        self.context.log.info(
            f"{cascade.id} ({started}) restarts {', '.join(cascade.stream_ids)} "
            f"for changes of {', '.join(cascade.entity_ids)}."
        )
        config: dict[str, Any] = cascade_run_config(self.job.name, key)
        # With the store's id: a store that is made anew counts its cascades from 1 again.
        store = self.client.store
        return RunRequest(
            run_key=f"{store.project}:{store.identity}:{key}", run_config=config, tags={CASCADE_TAG: key}
        )


def _concerns_a_stream(cascade: Cascade) -> bool:
    """Whether any stream of it restarts: streams that are not meant to run are no reason for a run."""
    return any(step.status != "skipped" for step in cascade.steps)
