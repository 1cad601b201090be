"""Jobs around streams: the host that runs them, and asking that they start, stop or restart."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any

from dagster import MAX_RUNTIME_SECONDS_TAG, Config, JobDefinition, OpExecutionContext
from pydantic import Field

from kindling_dagster.assets import KindlingAssetGraph, app_name, asset_keys_of
from kindling_dagster.engines.base import RunEvent
from kindling_dagster.engines.thread import SparkThread
from kindling_dagster.op_jobs import build_op_job
from kindling_dagster.project import KindlingProject
from kindling_dagster.restart_runs import build_restart_job
from kindling_dagster.signals.bridge import StepReporter
from kindling_dagster.signals.bridge_outputs import BridgeContext
from kindling_dagster.signals.bridge_table import SignalBridge
from kindling_dagster.stream_assets import STREAMS_RESOURCE
from kindling_dagster.translator import DagsterKindlingTranslator

if TYPE_CHECKING:
    from kindling_dagster.streaming.client import StreamsClient
    from kindling_dagster.streaming.host import HostEnd
    from kindling_dagster.streaming.watched import DimensionPolicy

HOST_TAGS = {
    # A host runs as long as its streams do, whatever limit the instance sets for runs.
    MAX_RUNTIME_SECONDS_TAG: "0",
    # The supervisor starts the next one, with a backoff of its own.
    "dagster/max_retries": "0",
    # Streams that are down should not wait behind batch runs.
    "dagster/priority": "10",
}
DRAIN_SECONDS = 40.0
"""How long a host that is told to end may take to stop its streams and Spark."""

_QUIET: dict[str, None] = {
    # The supervisor reports both, throttled over the life of all hosts.
    "streaming.query_healthy": None,
    "streaming.spark_query_progress": None,
}


class StreamsConfig(Config):
    """Which streams, and why."""

    streams: list[str] = Field(
        default=[],
        description="Pipe ids, ids of the entities they write, or globs; all of the app when empty.",
    )
    reason: str = Field(default="", description="Why; kept in the streams' history.")


def build_stream_jobs(
    project: KindlingProject,
    *,
    prefix: str | None = None,
    resource_key: str = "kindling",
    streams_resource_key: str = STREAMS_RESOURCE,
    translator: DagsterKindlingTranslator | None = None,
    bridge: SignalBridge | None = None,
    dimensions: DimensionPolicy | None = None,
) -> Sequence[JobDefinition]:
    """The jobs ``<app>_stream_host``, ``<app>_start_streams``, ``<app>_stop_streams``, ``<app>_restart_streams``.

    The host's run holds a Spark session and all streams of the app for as long as they are wanted; the
    supervisor sensor launches it. *Terminate* drains it: the batches under way end, nothing is lost. As
    long as streams are wanted, the supervisor launches the next one: to end them, stop them.

    Args:
        project: The app.
        prefix: Instead of the app's name.
        resource_key: Key of the KindlingResource, whose Spark session the host uses.
        streams_resource_key: Key of the KindlingStreamsResource.
        translator: Decides the keys of the assets that the host reports on.
        bridge: What becomes of the host's signals in its run.
        dimensions: The dimension sensor's policy, for the runs that it launches of the restart job.
    """
    name = prefix or app_name(project)
    return (
        build_stream_host_job(
            project,
            name=f"{name}_stream_host",
            resource_key=resource_key,
            streams_resource_key=streams_resource_key,
            translator=translator,
            bridge=bridge,
        ),
        _asking_job(project, f"{name}_start_streams", _start, StreamsConfig, streams_resource_key),
        _asking_job(project, f"{name}_stop_streams", _stop, StreamsConfig, streams_resource_key),
        build_restart_job(
            project,
            f"{name}_restart_streams",
            streams_resource_key=streams_resource_key,
            translator=translator,
            policy=dimensions,
        ),
    )


def build_stream_host_job(
    project: KindlingProject,
    *,
    name: str | None = None,
    resource_key: str = "kindling",
    streams_resource_key: str = STREAMS_RESOURCE,
    translator: DagsterKindlingTranslator | None = None,
    bridge: SignalBridge | None = None,
) -> JobDefinition:
    """The job whose run is the stream host. Arguments as for ``build_stream_jobs``."""
    job_name = name or f"{app_name(project)}_stream_host"
    rules = bridge or SignalBridge(_QUIET)
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())

    def host(context: OpExecutionContext) -> None:
        kindling = getattr(context.resources, resource_key)
        streams = getattr(context.resources, streams_resource_key)
        _Hosting(context, project, kindling, streams, rules).run()

    return build_op_job(
        job_name,
        f"{job_name}_run",
        f"Runs all streams of {project.name} in one Spark session until it is terminated.",
        host,
        resources={resource_key, streams_resource_key},
        tags=HOST_TAGS,
        op_tags=assets.keys_tag,
    )


class _Hosting:
    """One run of the host: Spark on a thread of its own, Dagster on this one."""

    def __init__(
        self,
        context: OpExecutionContext,
        project: KindlingProject,
        kindling: Any,
        streams: Any,
        bridge: SignalBridge,
    ) -> None:
        self._context = context
        self._project = project
        self._create_session: Callable[[], Any] = kindling.create_session
        self._store_url: str = streams.url(context.instance)
        self._overrides: dict[str, Any] = dict(streams.options)
        self._events: queue.SimpleQueue[RunEvent] = queue.SimpleQueue()
        self._stop = Event()
        names = BridgeContext(project.manifest, asset_keys_of(context.op_def.tags))
        # The reporter asks its context for no asset, which is all that the two kinds of context differ in.
        self._reporter = StepReporter(context, (), names, bridge)  # type: ignore[arg-type]

    def run(self) -> None:
        """Host until it ends by itself, or until this thread is interrupted.

        Raises:
            KindlingDagsterError: The host could not start, or lost what it needs.
        """
        thread = SparkThread("stream host")
        future = thread.submit(self._host)
        try:
            while not future.done():
                self._report(0.5)
        except BaseException:
            self._drain(future)
            raise
        finally:
            self._stop.set()
            thread.stop()
        self._finish(future)

    def _host(self) -> HostEnd:
        # Here, because it imports Kindling and PySpark, which definitions do without.
        from kindling_dagster.streaming.host import run_host

        return run_host(
            self._project,
            self._store_url,
            self._create_session,
            run_id=self._context.run_id,
            stop=self._stop,
            overrides=self._overrides,
            emit=self._events.put,
        )

    def _report(self, seconds: float) -> None:
        """Pass on what the host says, for at most so long when it says nothing."""
        try:
            event = self._events.get(timeout=seconds)
        except queue.Empty:
            return
        for _ in self._reporter.handle(event):  # a host materializes nothing by itself
            pass

    def _drain(self, future: Future[HostEnd]) -> None:
        self._context.log.info("Told to end: the streams finish the batch they are in.")
        self._stop.set()
        until = monotonic() + DRAIN_SECONDS
        while not future.done() and monotonic() < until:
            self._report(0.2)
        if not future.done():
            self._context.log.warning(
                f"The host did not end within {DRAIN_SECONDS:.0f} s and ends with its process. "
                "What it had not committed is read again by the next one."
            )
        elif error := future.exception():
            self._context.log.warning(f"While it ended: {error}")

    def _finish(self, future: Future[HostEnd]) -> None:
        from kindling_dagster.streaming.host import HostRefusedError

        while not self._events.empty():
            self._report(0)
        self._reporter.finish()
        try:
            ended = future.result()
        except HostRefusedError as error:
            # Nothing is wrong: the other one runs the streams.
            self._context.log.warning(str(error))
        else:
            self._context.log.info(f"The host ended: {ended.reason} ({ended.streams} streams stopped).")


def _asking_job(
    project: KindlingProject,
    name: str,
    ask: Callable[[StreamsClient, dict[str, Any]], tuple[str, ...]],
    config: type[StreamsConfig],
    resource_key: str,
) -> JobDefinition:
    def asking(context: OpExecutionContext) -> None:
        client = getattr(context.resources, resource_key).client(
            by=f"run {context.run_id}", instance=context.instance
        )
        asked = ask(client, {**context.op_config, "request": context.run_id})
        context.log.info(
            f"Asked for {', '.join(asked) or 'nothing'}. The stream host does it within seconds."
        )

    return build_op_job(
        name,
        f"{name}_ask",
        f"{ask.__doc__} The app is {project.name}.",
        asking,
        resources={resource_key},
        config=config,
    )


def _start(client: StreamsClient, config: dict[str, Any]) -> tuple[str, ...]:
    """Asks that streams run; all of the app by default."""
    return client.start(config["streams"], reason=config["reason"], request=config["request"])


def _stop(client: StreamsClient, config: dict[str, Any]) -> tuple[str, ...]:
    """Asks that streams end after the batch they are in; all of the app by default."""
    return client.stop(config["streams"], reason=config["reason"], request=config["request"])
