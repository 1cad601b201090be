"""The one-line way: a whole app as Dagster definitions, streams and all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    AssetSelection,
    BackfillPolicy,
    Definitions,
    ExecutorDefinition,
    JobDefinition,
    RetryPolicy,
    define_asset_job,
    in_process_executor,
)

from kindling_dagster.analysis.job import build_analyze_job
from kindling_dagster.assets import KindlingAssetGraph, StepCheckChoice, app_name, step_of
from kindling_dagster.io_manager import KindlingIOManager
from kindling_dagster.project import KindlingProject
from kindling_dagster.resources import KindlingResource
from kindling_dagster.selection import Selection
from kindling_dagster.table_checks.defs import table_checks_of
from kindling_dagster.translator import DagsterKindlingTranslator

if TYPE_CHECKING:
    from kindling_dagster.stream_resources import KindlingStreamsResource
    from kindling_dagster.streaming.supervision import SupervisorPolicy
    from kindling_dagster.streaming.watched import DimensionPolicy


def _run_pipes(context: AssetExecutionContext, kindling: KindlingResource) -> Iterator[Any]:
    yield from kindling.run(context).stream()


@dataclass(frozen=True)
class OpSettings:
    """The step that materializes an app's batch assets.

    Args:
        name: Of the op; ``kindling_`` and the app's name by default.
        description: Of the op.
        tags: Of the op.
        pool: Concurrency pool of the op.
        retry_policy: Dagster's retry policy for the step.
        backfill_policy: Backfill policy of all the assets.
        run: What the step does, from its context and the resource; it runs the selected pipes by default.
    """

    name: str | None = None
    description: str | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)
    pool: str | None = None
    retry_policy: RetryPolicy | None = None
    backfill_policy: BackfillPolicy | None = None
    run: Callable[[AssetExecutionContext, KindlingResource], Iterator[Any]] = _run_pipes


def build_kindling_definitions(
    project: KindlingProject,
    *,
    select: Selection | None = None,
    exclude: Selection | None = None,
    translator: DagsterKindlingTranslator | None = None,
    resource: KindlingResource | None = None,
    resource_key: str = "kindling",
    streams: bool = True,
    streams_resource: KindlingStreamsResource | None = None,
    supervisor: SupervisorPolicy | None = None,
    dimensions: DimensionPolicy | None = None,
    checks: bool = True,
    op: OpSettings | None = None,
    executor: ExecutorDefinition | None = in_process_executor,
) -> Definitions:
    """An app's assets, external assets, resource, a job over all batch assets, one for a dry run, and its streams.

    An app whose settings name a landing path also gets what ``build_kindling_ingestion`` gives.

    The default executor is the in-process one: the app's pipes share one step and one Spark session,
    and a process per step would only add the time to start it.

    Args:
        project: The app.
        select: Batch assets: Kindling ids with globs, ``tag:name=value``, Dagster selection strings, or a list.
        exclude: The same, for what to leave out.
        translator: Decides keys, groups, kinds and so on.
        resource: Spark's settings and execution options; the defaults when left out.
        resource_key: Key under which the resource is defined; another one for each app of a code location.
            The streams' resource is defined under the same with ``_streams``, and the I/O manager through
            which other assets take the app's as inputs (``KindlingIOManager``) with ``_io_manager``.
        streams: Add what ``build_kindling_stream_definitions`` gives, when the app declares streams.
        streams_resource: Where the streams' store is; the default store when left out.
        supervisor: How stream hosts are launched, and what a change of the code does.
        dimensions: How changes of what streams join with are seen, and when they restart streams.
        checks: Add what ``build_table_checks`` gives.
        op: The step that materializes the batch assets.
        executor: Of the definitions; None leaves it to the others that they are merged with.

    Raises:
        KindlingDagsterError: The app cannot be loaded, its pipes go in a circle, or a selection fits nothing.

    Example::

        defs = build_kindling_definitions(KindlingProject("demo"))
    """
    io_manager_key = f"{resource_key}_io_manager"
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator(), io_manager_key)
    kindling = resource or KindlingResource()
    streaming = streams and bool(assets.streaming)
    steps: list[AssetsDefinition] = []
    shown = [*assets.external_specs, *assets.ingested, *(assets.streaming if streaming else ())]
    jobs: list[JobDefinition | Any] = [build_analyze_job(project, resource_key=resource_key)]
    # An app may consist of streams alone; one of neither kind is refused by step_of.
    if assets.written or not streaming:
        step = _batch_step(
            assets, select, exclude, resource_key, "all" if checks else "none", op or OpSettings()
        )
        steps.append(step)
        shown += assets.select(select, exclude)
        jobs.insert(0, define_asset_job(f"{app_name(project)}_all", _with_sources(assets, step, checks)))
    batch = Definitions(
        assets=[*steps, *assets.external_specs.values()],
        asset_checks=table_checks_of(assets, resource_key=resource_key, entity_ids=shown) if checks else (),
        resources={resource_key: kindling, io_manager_key: KindlingIOManager(project, kindling=kindling)},
        jobs=jobs,
        executor=executor,
    )
    if assets.ingested:
        # Here, like the streams below, because most apps load without it.
        from kindling_dagster.ingestion.defs import ingestion_of

        batch = Definitions.merge(batch, ingestion_of(assets, resource_key))
    if not streaming:
        return batch
    from kindling_dagster.stream_definitions import streams_of

    return Definitions.merge(
        batch,
        streams_of(
            assets, resource_key, f"{resource_key}_streams", streams_resource, supervisor, None, dimensions
        ),
    )


def _with_sources(assets: KindlingAssetGraph, step: AssetsDefinition, checks: bool) -> AssetSelection:
    """All batch assets with their checks, and those checks of sources that must pass before anything runs."""
    chosen: AssetSelection = AssetSelection.assets(*step.keys)
    if not checks:
        return chosen
    needed = [
        key
        for key, (check, spec) in assets.checks.items()
        if spec.blocking and check.entity_id in assets.external
    ]
    return chosen | AssetSelection.checks(*needed) if needed else chosen


def _batch_step(
    assets: KindlingAssetGraph,
    select: Selection | None,
    exclude: Selection | None,
    resource_key: str,
    checks: StepCheckChoice,
    op: OpSettings,
) -> AssetsDefinition:
    @step_of(
        assets,
        select=select,
        exclude=exclude,
        name=op.name or f"kindling_{app_name(assets.project)}",
        op_tags=op.tags,
        description=op.description,
        pool=op.pool,
        retry_policy=op.retry_policy,
        backfill_policy=op.backfill_policy,
        required_resource_keys={resource_key},
        checks=checks,
    )
    def app_assets(context):  # type: ignore[no-untyped-def]  # Dagster takes no postponed annotation here
        yield from op.run(context, getattr(context.resources, resource_key))

    return app_assets
