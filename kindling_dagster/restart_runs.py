"""Runs of the job that restarts streams: those a person asks for, and those that changes of dimensions ask for.

The latter drive their cascade to its end and say what became of each stream. The cascade itself is in the
store and is driven by the dimension sensor too: a run that dies, or that is never started, holds nothing up.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dagster import Config, Failure, JobDefinition, OpExecutionContext
from pydantic import Field

from kindling_dagster.assets import KindlingAssetGraph, asset_keys_of
from kindling_dagster.engines.base import SignalSeen
from kindling_dagster.op_jobs import build_op_job
from kindling_dagster.project import KindlingProject
from kindling_dagster.signals.bridge import StepReporter
from kindling_dagster.signals.bridge_outputs import BridgeContext
from kindling_dagster.streaming.restart_news import (
    CASCADE_COMPLETED,
    CASCADE_STARTED,
    RESTART_TRIGGERED,
    completed_arguments,
    started_arguments,
    triggered_arguments,
)
from kindling_dagster.streaming.restart_ticks import tick_restarts
from kindling_dagster.streaming.restarts import Cascade, CascadeStep, RestartState
from kindling_dagster.streaming.watched import DimensionPolicy, WatchedDimensions
from kindling_dagster.translator import DagsterKindlingTranslator

if TYPE_CHECKING:
    from kindling_dagster.streaming.client import StreamsClient
    from kindling_dagster.streaming.views import StreamView

CASCADE_TAG = "kindling-dagster/cascade"
"""On a run that follows a cascade: which."""
PROGRESS_SECONDS: Final = 120.0
"""How long a run waits, after all streams are up, for each to end a batch or to find nothing to read."""
_LOOK_SECONDS: Final = 1.0


class RestartStreamsConfig(Config):
    """Which streams, why, and what else."""

    streams: list[str] = Field(
        default=[],
        description="Pipe ids, ids of the entities they write, or globs; all of the app when empty.",
    )
    reason: str = Field(default="", description="Why; kept in the streams' history.")
    cascade: bool = Field(
        default=False, description="Also the running streams that read, directly or not, what these write."
    )
    changes: str = Field(
        default="",
        description="Set by the dimension sensor: the restarts to follow, instead of asking for any.",
    )


def cascade_key(cascade: Cascade) -> str:
    """What tells a cascade from all others of its store."""
    return f"{cascade.id}@{cascade.started_at:.0f}"


def cascade_run_config(job_name: str, key: str) -> dict[str, Any]:
    """The configuration of a run of the restart job that follows the cascade with this key."""
    return {"ops": {f"{job_name}_ask": {"config": {"changes": key}}}}


def build_restart_job(
    project: KindlingProject,
    name: str,
    *,
    streams_resource_key: str,
    translator: DagsterKindlingTranslator | None = None,
    policy: DimensionPolicy | None = None,
) -> JobDefinition:
    """The job that asks for restarts, or follows those that changes of dimensions have led to.

    Args:
        project: The app.
        name: The job's name.
        streams_resource_key: Key of the KindlingStreamsResource.
        translator: Decides the keys of the streams' assets.
        policy: The dimension sensor's.
    """
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())

    def restarting(context: OpExecutionContext) -> None:
        config: dict[str, Any] = context.op_config
        client = getattr(context.resources, streams_resource_key).client(
            by=f"run {context.run_id}", instance=context.instance
        )
        if config["changes"]:
            watched = WatchedDimensions(project.manifest, policy, project.working_dir)
            CascadeRun(context, client, watched, config["changes"]).run()
            return
        asked = client.restart(
            config["streams"], reason=config["reason"], cascade=config["cascade"], request=context.run_id
        )
        context.log.info(
            f"Asked for {', '.join(asked) or 'nothing'}. The stream host does it within seconds."
        )

    return build_op_job(
        name,
        f"{name}_ask",
        "Asks that streams start anew from their checkpoints; all of the app by default. "
        f"The app is {project.name}. The dimension sensor launches it where a change calls for a restart.",
        restarting,
        resources={streams_resource_key},
        config=RestartStreamsConfig,
        op_tags=assets.keys_tag,
    )


@dataclass
class CascadeRun:
    """One run that follows a cascade: drives it, tells what happens, and waits for progress.

    Args:
        context: The run's op.
        client: The app's streams.
        watched: The dimensions, and how restarts are decided.
        key: Which cascade.
    """

    context: OpExecutionContext
    client: StreamsClient
    watched: WatchedDimensions
    key: str
    _told: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        manifest = self.watched.manifest
        names = BridgeContext(manifest, asset_keys_of(self.context.op_def.tags))
        # The reporter asks its context for no asset, which is all that the two kinds of context differ in.
        self._reporter = StepReporter(self.context, (), names)  # type: ignore[arg-type]

    def run(self) -> None:
        """Follow the cascade to its end.

        Raises:
            Failure: A stream did not come up again.
            StoreError: The store cannot be read or written.
        """
        cascade = self._drive()
        if cascade is None:
            self.context.log.warning(
                f"The restarts {self.key} were over before this run began, and others have followed since. "
                "The streams' history has them."
            )
            return
        self._report_progress(cascade)
        self._reporter.finish()
        failed = [step for step in cascade.steps if step.status == "failed"]
        if failed:
            words = "; ".join(f"{step.stream_id}: {step.detail}" for step in failed)
            raise Failure(f"{len(failed)} of {len(cascade.steps)} streams did not restart: {words}.")

    def _drive(self) -> Cascade | None:
        """The cascade when it has ended; None when the store does not have it any more."""
        self._say_whether_hosted()
        while True:
            tick = tick_restarts(
                self.client.store,
                self.watched.dependencies,
                self.watched.order,
                self.watched.policy.restarts,
                (),
                clock=self.client.clock,
            )
            cascade = self._mine(tick.state)
            if cascade is None:
                return None
            self._tell(cascade)
            if all(step.ended for step in cascade.steps):
                return cascade
            _pause(_LOOK_SECONDS)

    def _mine(self, state: RestartState) -> Cascade | None:
        for cascade in (state.cascade, state.last):
            if cascade is not None and cascade_key(cascade) == self.key:
                return cascade
        return None

    def _say_whether_hosted(self) -> None:
        host = self.client.store.host()
        if host is None or not host.alive(self.client.clock()):
            self.context.log.warning(
                "No stream host lives. The restarts are written down, and the next host starts the streams anew."
            )

    # -- what happens, as it happens

    def _tell(self, cascade: Cascade) -> None:
        """Log, and tell by signals, what is new since the last look."""
        if not self._told:
            self._signal(CASCADE_STARTED, started_arguments(cascade))
        for step in cascade.steps:
            before, self._told[step.stream_id] = self._told.get(step.stream_id, ""), step.status
            if step.status == before:
                continue
            if before in ("", "waiting") and step.status in ("asked", "done", "failed"):
                self._triggered(cascade, step)
            if step.status in ("skipped", "failed"):
                self.context.log.warning(f"{step.stream_id}: {step.status}, {step.detail}.")
            elif step.status == "waiting":
                self.context.log.info(f"{step.stream_id}: waits for {', '.join(step.after)}, which read it.")
        if all(step.ended for step in cascade.steps):
            ended = max((step.ended_at or 0.0) for step in cascade.steps)
            seconds = max(0.0, ended - cascade.started_at)
            self._signal(CASCADE_COMPLETED, completed_arguments(cascade, seconds))

    def _triggered(self, cascade: Cascade, step: CascadeStep) -> None:
        self.context.log.info(f"{step.stream_id}: asked to restart. {step.reason}.")
        self._signal(RESTART_TRIGGERED, triggered_arguments(cascade.id, step))

    def _signal(self, name: str, arguments: dict[str, Any]) -> None:
        # Here, because it imports Kindling, which definitions do without.
        from kindling_dagster.signals.payloads import decode

        for _ in self._reporter.handle(SignalSeen(name, decode(name, arguments).to_data())):
            pass  # nothing is materialized

    # -- progress

    def _report_progress(self, cascade: Cascade) -> None:
        """Say of each restarted stream how long it was down and whether it has got on, which some need a while for."""
        waiting = {step.stream_id: step for step in cascade.steps if step.status == "done"}
        began = self.client.clock()
        while waiting:
            snapshot = self.client.snapshot()
            spent = snapshot.now - began
            for stream_id, step in list(waiting.items()):
                view = snapshot.view(stream_id)
                if view.progressed or view.dead_letter is not None or spent > PROGRESS_SECONDS:
                    del waiting[stream_id]
                    self._got_on(step, view)
            if waiting:
                _pause(_LOOK_SECONDS)

    def _got_on(self, step: CascadeStep, view: StreamView) -> None:
        text = f"{step.stream_id}: restarted for {_dimensions(step)}, down for {down_seconds(step, view):.1f} s at most"
        if view.progressed:
            batch = view.status.metrics.batch_id if view.status is not None else None
            self.context.log.info(
                f"{text}; it works on ({'nothing to read' if batch is None else f'batch {batch}'})."
            )
        else:
            self.context.log.warning(f"{text}; no progress yet. {view.verdict.reason}")


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def down_seconds(step: CascadeStep, view: StreamView) -> float:
    """From asking for the restart until the new query was started, as far as that is known."""
    assert step.asked_at is not None
    assert step.ended_at is not None
    started = view.status.started_at if view.status is not None else None
    known = started is not None and step.asked_at <= started <= step.ended_at
    return max(0.0, (started if known and started is not None else step.ended_at) - step.asked_at)


def _dimensions(step: CascadeStep) -> str:
    return ", ".join(dict.fromkeys(cause.entity_id for cause in step.causes))
