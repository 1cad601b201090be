"""The one-line way: a whole app as Dagster definitions."""

from __future__ import annotations

import re

from dagster import (
    AssetSelection,
    Definitions,
    define_asset_job,
    in_process_executor,
)

from kindling_dagster.analysis.job import build_analyze_job
from kindling_dagster.assets import KindlingAssetGraph, step_of
from kindling_dagster.project import KindlingProject
from kindling_dagster.resources import KindlingResource
from kindling_dagster.selection import Selection
from kindling_dagster.translator import DagsterKindlingTranslator


def build_kindling_definitions(
    project: KindlingProject,
    *,
    select: Selection | None = None,
    exclude: Selection | None = None,
    translator: DagsterKindlingTranslator | None = None,
    resource: KindlingResource | None = None,
    resource_key: str = "kindling",
) -> Definitions:
    """An app's assets, external assets, resource, a job over all of its assets, and one for a dry run.

    The default executor is the in-process one: the app's pipes share one step and one Spark session,
    and a process per step would only add the time to start it.

    Args:
        project: The app.
        select: Kindling ids with globs, ``tag:name=value``, Dagster selection strings, or a list of such.
        exclude: The same, for what to leave out.
        translator: Decides keys, groups, kinds and so on.
        resource: Spark's settings and execution options; the defaults when left out.
        resource_key: Key under which the resource is defined.

    Raises:
        KindlingDagsterError: The app cannot be loaded, its pipes go in a circle, or a selection fits nothing.

    Example::

        defs = build_kindling_definitions(KindlingProject("demo"))
    """
    name = re.sub(r"\W", "_", project.name)
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())

    @step_of(
        assets,
        select=select,
        exclude=exclude,
        name=f"kindling_{name}",
        required_resource_keys={resource_key},
    )
    def app_assets(context):  # type: ignore[no-untyped-def]  # Dagster takes no postponed annotation here
        kindling: KindlingResource = getattr(context.resources, resource_key)
        yield from kindling.run(context).stream()

    return Definitions(
        assets=[app_assets, *assets.external_specs.values()],
        resources={resource_key: resource or KindlingResource()},
        jobs=[
            define_asset_job(f"{name}_all", AssetSelection.assets(*app_assets.keys)),
            build_analyze_job(project, resource_key=resource_key),
        ],
        executor=in_process_executor,
    )
