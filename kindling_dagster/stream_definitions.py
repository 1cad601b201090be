"""The one-line way to an app's streams: assets, checks, jobs and sensors. An app without streams does not need it."""

from __future__ import annotations

from collections.abc import Sequence

from dagster import Definitions, JobDefinition

from kindling_dagster.assets import KindlingAssetGraph
from kindling_dagster.checks import stream_checks_of
from kindling_dagster.dimension_sensor import build_dimension_sensor
from kindling_dagster.errors import DeclarationError
from kindling_dagster.jobs import build_stream_jobs
from kindling_dagster.project import KindlingProject
from kindling_dagster.reprocess_job import build_reprocess_job
from kindling_dagster.sensors import build_stream_supervisor
from kindling_dagster.stream_assets import STREAMS_RESOURCE, streaming_step_of
from kindling_dagster.stream_events import ReportingPolicy
from kindling_dagster.stream_resources import KindlingStreamsResource, refuse_shown_password
from kindling_dagster.streaming.dependencies import StreamDependencies
from kindling_dagster.streaming.supervision import SupervisorPolicy
from kindling_dagster.streaming.watched import DimensionPolicy
from kindling_dagster.translator import DagsterKindlingTranslator


def build_kindling_stream_definitions(
    project: KindlingProject,
    *,
    translator: DagsterKindlingTranslator | None = None,
    resource_key: str = "kindling",
    streams_resource_key: str = STREAMS_RESOURCE,
    streams_resource: KindlingStreamsResource | None = None,
    supervisor: SupervisorPolicy | None = None,
    reporting: ReportingPolicy | None = None,
    dimensions: DimensionPolicy | None = None,
) -> Definitions:
    """An app's streams: assets, health checks, jobs, sensors and the streams' resource.

    To be merged with definitions of your own, which have the KindlingResource::

        defs = Definitions.merge(mine, build_kindling_stream_definitions(project))

    Args:
        project: The app.
        translator: Decides keys, groups, kinds and so on; the same as for the batch assets.
        resource_key: Key of the KindlingResource.
        streams_resource_key: Key under which the streams' resource is defined; another one for each app
            of a code location.
        streams_resource: Where the streams' store is; the default store when left out.
        supervisor: How stream hosts are launched, and what a change of the code does.
        reporting: How often the supervisor reports.
        dimensions: How changes of what streams join with are seen, and when they restart streams.

    Raises:
        KindlingDagsterError: The app cannot be loaded, or declares no stream.
    """
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())
    return streams_of(
        assets, resource_key, streams_resource_key, streams_resource, supervisor, reporting, dimensions
    )


def streams_of(
    assets: KindlingAssetGraph,
    resource_key: str,
    streams_key: str,
    resource: KindlingStreamsResource | None,
    supervisor: SupervisorPolicy | None,
    reporting: ReportingPolicy | None,
    dimensions: DimensionPolicy | None,
) -> Definitions:
    """What ``build_kindling_stream_definitions`` does, over a graph that is there."""
    project, translator = assets.project, assets.translator
    made = resource or KindlingStreamsResource(project)
    if made.kindling_project != project:
        raise DeclarationError(
            f"The KindlingStreamsResource is for {made.kindling_project.describe()}, not for {project.describe()}.",
            "Give it the same project.",
        )
    refuse_shown_password(made)
    jobs: Sequence[JobDefinition] = build_stream_jobs(
        project,
        resource_key=resource_key,
        streams_resource_key=streams_key,
        translator=translator,
        dimensions=dimensions,
    )
    supervising = build_stream_supervisor(
        project,
        jobs[0],
        translator=translator,
        resource_key=streams_key,
        policy=supervisor,
        reporting=reporting,
    )
    sensors = [supervising]
    if StreamDependencies(assets.manifest).dimension_ids:
        looking = build_dimension_sensor(
            project,
            jobs[3],
            policy=dimensions,
            translator=translator,
            resource_key=resource_key,
            streams_resource_key=streams_key,
        )
        sensors.append(looking)
        jobs = [*jobs, build_reprocess_job(project, resource_key=resource_key, translator=translator)]
    return Definitions(
        assets=[streaming_step_of(assets, resource_key=streams_key)],
        asset_checks=stream_checks_of(assets, resource_key=streams_key),
        jobs=jobs,
        sensors=sensors,
        resources={streams_key: made},
    )
