"""The stream supervisor: a level-triggered sensor that sees to it that a host runs what should run, and reports."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dagster import (
    AssetKey,
    AssetMaterialization,
    BetaWarning,
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    JobDefinition,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from kindling_dagster.assets import KindlingAssetGraph, app_name
from kindling_dagster.checks import streams_by_key
from kindling_dagster.project import KindlingProject
from kindling_dagster.signals.plain import scrub_text
from kindling_dagster.stream_assets import STREAMS_RESOURCE
from kindling_dagster.stream_events import (
    ReportingPolicy,
    ReportRecord,
    StreamEvent,
    failed_report,
    health_reports,
    is_heartbeat,
    reports,
)
from kindling_dagster.streaming.client import StreamsClient
from kindling_dagster.streaming.identity import running_code_version
from kindling_dagster.streaming.model import HostInfo, HostLaunch
from kindling_dagster.streaming.processes import process_gone
from kindling_dagster.streaming.rolling import ask_to_end
from kindling_dagster.streaming.store import ConflictError
from kindling_dagster.streaming.supervision import (
    CodeSeen,
    Decision,
    LaunchedRun,
    RunState,
    Situation,
    SupervisorPolicy,
    decide,
)
from kindling_dagster.streaming.views import Snapshot
from kindling_dagster.translator import DagsterKindlingTranslator

# Dagster warns of its own way to pass on a sensor's owners, which this one has none of.
warnings.filterwarnings("ignore", r"Parameter .owners. of initializer .SensorDefinition", BetaWarning)

LAUNCH_TAG = "kindling-dagster/host_launch"
"""On a host's run: which launch it came of."""
INTERVAL_SECONDS = 5
"""Between two looks: Dagster's daemon goes round as often. A host whose process died is replaced after at most so
long, plus its start. A look takes about 0.1 s."""

# Of the 60 s that Dagster gives a tick; the daemon needs the rest to store the events.
_BUDGET_SECONDS = 30.0
# An event takes the daemon about 8 ms on SQLite.
_MAX_EVENTS = 300
_REAP_AFTER_SECONDS = 120.0
_ORPHAN_SECONDS = 900.0
_KIND = "supervisor"

_RUN_STATES: dict[DagsterRunStatus, RunState] = {
    DagsterRunStatus.QUEUED: "queued",
    DagsterRunStatus.NOT_STARTED: "starting",
    DagsterRunStatus.STARTING: "starting",
    DagsterRunStatus.STARTED: "started",
    DagsterRunStatus.CANCELING: "started",
    DagsterRunStatus.FAILURE: "failed",
    DagsterRunStatus.SUCCESS: "ended",
    DagsterRunStatus.CANCELED: "ended",
}


def build_stream_supervisor(
    project: KindlingProject,
    host_job: JobDefinition,
    *,
    name: str | None = None,
    translator: DagsterKindlingTranslator | None = None,
    resource_key: str = STREAMS_RESOURCE,
    interval: int = INTERVAL_SECONDS,
    policy: SupervisorPolicy | None = None,
    reporting: ReportingPolicy | None = None,
    default_status: DefaultSensorStatus = DefaultSensorStatus.RUNNING,
) -> SensorDefinition:
    """The sensor that keeps an app's streams running, and tells of them.

    Each tick compares what should be with what is, whatever happened before: when a stream should run and no
    host holds the lease, it launches one (with a backoff that survives in the store); when the host runs
    older code than the definitions, it has it drain and launches the next. It starts no Spark.

    It reports per stream an observation when something changed, a heartbeat materialization with the rows
    since the last one, and the outcome of ``stream_health``.

    Args:
        project: The app.
        host_job: What ``build_stream_host_job`` made.
        name: ``<app>_stream_supervisor`` by default.
        translator: Decides the assets' keys.
        resource_key: Key of the KindlingStreamsResource.
        interval: Seconds between two ticks, at least.
        policy: How hosts are launched, and what a change of the code does.
        reporting: How often it reports.
        default_status: Whether the sensor is on from the start.
    """
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())
    launching, telling = policy or SupervisorPolicy(), reporting or ReportingPolicy()

    @sensor(
        name=name or f"{app_name(project)}_stream_supervisor",
        job=host_job,
        minimum_interval_seconds=interval,
        default_status=default_status,
        required_resource_keys={resource_key},
        description=f"Keeps the streams of {project.name} running and reports on them.",
    )
    def stream_supervisor(context: SensorEvaluationContext) -> SensorResult:
        resource = getattr(context.resources, resource_key)
        try:
            client = resource.client(by="stream supervisor", instance=context.instance)
            return _Tick(context, client, assets, host_job.name, launching, telling).run()
        finally:
            resource.close()

    return stream_supervisor


@dataclass(frozen=True)
class Cursor:
    """Where reporting goes on when a tick had no time for all streams: after this asset."""

    after: str = ""

    def to_json(self) -> str:
        """As the sensor's cursor."""
        return json.dumps({"after": self.after})

    @staticmethod
    def from_json(text: str | None) -> Cursor:
        """From the sensor's cursor; one that cannot be read counts as none."""
        try:
            return Cursor(str(json.loads(text or "{}")["after"]))
        except (ValueError, KeyError, TypeError):
            return Cursor()


@dataclass
class _Tick:
    """One look."""

    context: SensorEvaluationContext
    client: StreamsClient
    assets: KindlingAssetGraph
    job_name: str
    policy: SupervisorPolicy
    reporting: ReportingPolicy
    started: float = field(default_factory=time.monotonic)
    errors: list[str] = field(default_factory=list)

    @property
    def instance(self) -> DagsterInstance:
        return self.context.instance

    def run(self) -> SensorResult:
        snapshot = self.client.snapshot()
        decision, requests = self._supervise(snapshot)
        self._guard("reaping lost runs", lambda: self._reap(snapshot.host, snapshot.now))
        events, cursor = self._report(snapshot)
        return SensorResult(
            run_requests=requests,
            skip_reason=None if requests else self._words(snapshot, decision),
            cursor=cursor.to_json(),
            asset_events=events,
        )

    def _words(self, snapshot: Snapshot, decision: Decision) -> str:
        up = sum(view.progressed for view in snapshot.views)
        text = f"{decision.reason} {up} of {len(snapshot.wanted)} wanted streams run."
        return " ".join([text, *(f"Failed: {error}." for error in self.errors)])

    def _guard(self, what: str, act: Any) -> None:
        """Do what must not keep the rest of the tick from being done; its error is logged and shown."""
        try:
            act()
        except Exception as error:
            self.errors.append(f"{what}: {type(error).__name__}: {scrub_text(str(error))}")
            self.context.log.exception(f"{what} failed")

    # -- the host

    def _supervise(self, snapshot: Snapshot) -> tuple[Decision, list[RunRequest]]:
        host, now = snapshot.host, snapshot.now
        last = next(iter(self.client.store.launches(limit=1)), None)
        if last is not None and last.at > now:
            # The clock was set back: the backoff counts from now, and not until the old time comes again.
            last = replace(last, at=now)
            self.client.store.record_launch(last)
        run = LaunchedRun() if last is None else self._launched(last)
        decision = decide(
            Situation(
                wanted=len(snapshot.wanted),
                host=host,
                host_process_gone=host is not None and process_gone(host),
                last=last,
                run=run,
                code=self._code_seen(now),
                now=now,
            ),
            self.policy,
        )
        if last is not None and run.run_id and not last.run_id:
            self.client.store.record_launch(replace(last, run_id=run.run_id))
        if (
            decision.action == "roll"
            and host is not None
            and ask_to_end(self.client.store, host.host_id, decision.reason)
        ):
            self.context.log.info(f"Asked the host to end: {decision.reason}")
        if decision.action != "launch":
            return decision, []
        return decision, [self._launch(decision, last, now)]

    def _launch(self, decision: Decision, last: HostLaunch | None, now: float) -> RunRequest:
        attempt = 1 if last is None else last.attempt + 1
        # With the time, too: Dagster skips a run key it knows, for ever, and a store may be made anew.
        key = f"{self.assets.project.name}:{attempt}:{now:.0f}"
        launch = HostLaunch(now, "", decision.reason, attempt, decision.failures, key)
        # First the record, then the request: a tick that dies in between costs a few seconds, not two hosts.
        self.client.store.record_launch(launch)
        self.context.log.info(f"Launching host {attempt}: {decision.reason}")
        return RunRequest(run_key=key, tags={LAUNCH_TAG: key})

    def _launched(self, last: HostLaunch) -> LaunchedRun:
        records = self.instance.get_run_records(RunsFilter(tags={LAUNCH_TAG: last.key}), limit=1)
        if not records:
            return LaunchedRun()
        run = records[0].dagster_run
        # A run that was long in the queue has only just begun to start.
        since = records[0].start_time or records[0].update_timestamp.timestamp()
        return LaunchedRun(_RUN_STATES.get(run.status, "starting"), run.run_id, since)

    def _code_seen(self, now: float) -> CodeSeen:
        """The definitions' code version, and since when a supervisor has had it."""
        version = running_code_version(self.assets.project)
        seen, at = self.client.store.document(_KIND, "code")
        if isinstance(seen, dict) and seen.get("version") == version:
            return CodeSeen(version, float(seen["since"]))
        try:
            self.client.store.put_document(_KIND, "code", {"version": version, "since": now}, expected=at)
        except ConflictError:
            self.context.log.info("Another supervisor noted the code's version at the same moment.")
        return CodeSeen(version, now)

    def _reap(self, host: HostInfo | None, now: float) -> None:
        """Report host runs that died without a word: Dagster would show them as started for ever."""
        unfinished = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
        runs = RunsFilter(job_name=self.job_name, statuses=unfinished)
        for record in self.instance.get_run_records(runs, limit=20):
            run = record.dagster_run
            why = lost(run.run_id, record.start_time or now, host, now)
            if why:
                self.instance.report_run_failed(run, f"The stream host's process is gone: {why}")
                self.context.log.warning(f"Reported run {run.run_id} as failed: {why}")

    # -- reports

    def _report(self, snapshot: Snapshot) -> tuple[list[StreamEvent], Cursor]:
        kept, version = self.client.store.document(_KIND, "reports")
        records: dict[str, Any] = dict(kept) if isinstance(kept, dict) else {}
        events: list[StreamEvent] = []
        by_key = sorted(streams_by_key(self.assets).items(), key=lambda item: item[0].to_user_string())
        after = Cursor.from_json(self.context.cursor).after
        order = [*(i for i in by_key if _name(i[0]) > after), *(i for i in by_key if _name(i[0]) <= after)]
        cursor = Cursor()
        latest: dict[AssetKey, int] = {}
        self._guard("reading materializations", lambda: latest.update(self._materializations(order)))
        for index, (key, streams) in enumerate(order):
            self._guard(
                _name(key),
                lambda key=key, streams=streams: events.extend(
                    self._asset(key, streams, snapshot, records, latest.get(key, 0))
                ),
            )
            spent = time.monotonic() - self.started
            if index + 1 < len(order) and (len(events) >= _MAX_EVENTS or spent > _BUDGET_SECONDS):
                cursor = Cursor(_name(key))
                break
        if records != kept:
            try:
                self.client.store.put_document(_KIND, "reports", records, expected=version)
            except ConflictError:
                # Another supervisor told the same: one of the two is enough.
                return [], cursor
        return events, cursor

    def _materializations(self, order: Sequence[tuple[AssetKey, Any]]) -> dict[AssetKey, int]:
        """Storage ids of the assets' latest materializations, of those where that is no heartbeat."""
        found: dict[AssetKey, int] = {}
        for item in self.instance.get_asset_records([key for key, _ in order]):
            last = item.asset_entry.last_materialization_record
            if last is None or last.asset_materialization is None:
                continue
            if not is_heartbeat(last.asset_materialization, last.run_id):
                found[item.asset_entry.asset_key] = last.storage_id
        return found

    def _asset(
        self,
        key: AssetKey,
        streams: Sequence[str],
        snapshot: Snapshot,
        records: dict[str, Any],
        materialization: int,
    ) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        for stream_id in streams:
            view, record = snapshot.view(stream_id), ReportRecord.from_data(records.get(stream_id))
            try:
                told, record = reports(key, view, record, self.reporting)
                events.extend(told)
                records[stream_id] = record.to_data()
            except Exception as error:
                # This stream's trouble must show, and must not hide the others'.
                events.append(failed_report(key, stream_id, error))
                self.errors.append(f"reporting on {stream_id}: {type(error).__name__}")
                self.context.log.exception(f"Reporting on {stream_id} failed")
        first = ReportRecord.from_data(records.get(streams[0]))
        beat = any(isinstance(event, AssetMaterialization) for event in events)
        views = [snapshot.view(id_) for id_ in streams]
        told, record = health_reports(
            key, views, first, self.reporting, beat=beat, materialization=materialization
        )
        records[streams[0]] = record.to_data()
        return [*events, *told]


def _name(key: AssetKey) -> str:
    return key.to_user_string()


def lost(run_id: str, started: float, host: HostInfo | None, now: float) -> str:
    """Why a host's run that has not ended is known to be dead; empty while it may live.

    Args:
        run_id: The run.
        started: When it started, Unix seconds.
        host: Who holds, or last held, the lease.
        now: Unix seconds.
    """
    if host is not None and host.run_id == run_id:
        if process_gone(host):
            return f"no process {host.pid} on {host.hostname}."
        if host.expires_at > now - _REAP_AFTER_SECONDS:
            return ""
        return f"its last heartbeat was {now - host.heartbeat_at:.0f} s ago."
    # One without the lease gives up by itself, long before this. It may have had it until the present host came.
    since = started if host is None else max(started, min(host.started_at, now))
    if now - since > _ORPHAN_SECONDS:
        return f"it started {now - started:.0f} s ago and does not hold the lease."
    return ""
