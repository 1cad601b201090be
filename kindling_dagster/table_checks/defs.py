"""The checks of an app's tables as Dagster's own definitions. Run without a JVM, also by the UI's "Execute"."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dagster import AssetChecksDefinition, multi_asset_check

from kindling_dagster.assets import KindlingAssetGraph, app_name
from kindling_dagster.collector import collector_paused
from kindling_dagster.project import KindlingProject
from kindling_dagster.table_checks.events import check_result, evaluations_of, result_of
from kindling_dagster.translator import DagsterKindlingTranslator


def build_table_checks(
    project: KindlingProject,
    *,
    translator: DagsterKindlingTranslator | None = None,
    resource_key: str = "kindling",
) -> Sequence[AssetChecksDefinition]:
    """The checks of what an app declares of its tables: keys, schema, SCD2 history, freshness of sources.

    Which there are is said by the app: ``kindling.dagster.checks.*`` in its settings, ``dagster/checks``,
    ``dagster/blocking_checks`` and ``dagster/max_age`` on entities. ``build_kindling_definitions`` adds
    them by itself.

    Args:
        project: The app.
        translator: Decides keys and check specs; the same as for the assets.
        resource_key: Key of the KindlingResource, whose ``storage_options`` reach tables on object storage.

    Raises:
        KindlingDagsterError: The app cannot be loaded, or a tag or setting is not what it should be.

    Example::

        checks = build_table_checks(project)
        defs = Definitions(assets=[flights], asset_checks=checks, resources={"kindling": KindlingResource()})
    """
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())
    return table_checks_of(assets, resource_key=resource_key)


def table_checks_of(
    assets: KindlingAssetGraph,
    *,
    resource_key: str = "kindling",
    entity_ids: Collection[str] | None = None,
) -> Sequence[AssetChecksDefinition]:
    """What ``build_table_checks`` does, over a graph that is there; of these entities alone where they are given."""
    found = {
        key: each
        for key, each in assets.checks.items()
        if entity_ids is None or each[0].entity_id in entity_ids
    }
    if not found:
        return ()
    project = assets.project

    def table_checks(context):  # type: ignore[no-untyped-def]  # Dagster takes no postponed annotation here
        # Here, because reading tables is not needed to load definitions.
        from kindling_dagster.table_checks.evaluation import TableChecker

        options = getattr(context.resources, resource_key).storage_options
        checker = TableChecker(project.manifest, project.working_dir, options)
        told = evaluations_of(context.instance, context.run.run_id)
        for key in sorted(context.selected_asset_check_keys):
            if key in told:
                # What the step that wrote the asset has found in the same run.
                yield result_of(told[key])
            else:
                yield check_result(key.asset_key, checker.check(found[key][0]))

    make = multi_asset_check(
        name=f"{app_name(project)}_table_checks",
        specs=[spec for _, spec in found.values()],
        can_subset=True,
        required_resource_keys={resource_key},
    )
    with collector_paused():
        return (make(table_checks),)
