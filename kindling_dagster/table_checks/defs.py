"""The checks of an app's tables as Dagster's own definitions. Run without a JVM, also by the UI's "Execute"."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from dagster import AssetCheckKey, AssetChecksDefinition, AssetCheckSpec, In, Nothing, Out, op

from kindling_dagster.assets import KindlingAssetGraph, app_name
from kindling_dagster.collector import collector_paused
from kindling_dagster.project import KindlingProject
from kindling_dagster.table_checks.declared import TableCheck
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

    with collector_paused():
        return (_definition(table_checks, f"{app_name(project)}_table_checks", found, resource_key),)


def _definition(
    function: Callable[..., Any],
    name: str,
    found: Mapping[AssetCheckKey, tuple[TableCheck, AssetCheckSpec]],
    resource_key: str,
) -> AssetChecksDefinition:
    """What ``multi_asset_check`` makes of the function.

    That one works out anew for each input and output what all of them share, which for the checks of
    thousands of tables is a good part of the time that definitions take to load.
    """
    after, told = In(Nothing), Out(Nothing, is_required=False)
    specs = {spec.get_python_identifier(): spec for _, spec in found.values()}
    keys = dict.fromkeys(key.asset_key for key in found)
    # A translator may give a check dependencies of its own.
    keys.update((dep.asset_key, None) for spec in specs.values() for dep in spec.additional_deps)
    tables = {key: f"table_{number}" for number, key in enumerate(keys)}
    checking = op(
        name=name,
        ins=dict.fromkeys(tables.values(), after),
        out=dict.fromkeys(specs, told),
        required_resource_keys={resource_key},
    )(function)
    made: AssetChecksDefinition = AssetChecksDefinition.create(
        keys_by_input_name={input_name: key for key, input_name in tables.items()},
        node_def=checking,
        check_specs_by_output_name=specs,
        can_subset=True,
    )
    return made
