"""Asset checks: ``stream_health``, run on demand here and evaluated by the supervisor in between."""

from __future__ import annotations

from collections.abc import Sequence

from dagster import AssetChecksDefinition, AssetKey, multi_asset_check

from kindling_dagster.assets import KindlingAssetGraph, app_name
from kindling_dagster.collector import collector_paused
from kindling_dagster.project import KindlingProject
from kindling_dagster.signals.bridge_stream_rules import HEALTH_CHECK
from kindling_dagster.stream_assets import STREAMS_RESOURCE
from kindling_dagster.stream_events import health_evaluation
from kindling_dagster.table_checks.events import result_of
from kindling_dagster.translator import CheckData, DagsterKindlingTranslator

_DESCRIPTION = (
    "Whether the stream is as it should be: it runs and gets on, has nothing to read, or is not wanted. "
    "A dead letter, a stall or a missing host fails it; a stream that is being brought back warns."
)


def build_stream_checks(
    project: KindlingProject,
    *,
    translator: DagsterKindlingTranslator | None = None,
    resource_key: str = STREAMS_RESOURCE,
) -> Sequence[AssetChecksDefinition]:
    """The check ``stream_health`` of each asset that a stream writes; none for an app without streams.

    Args:
        project: The app.
        translator: Decides keys and check specs.
        resource_key: Key of the KindlingStreamsResource.

    Raises:
        KindlingDagsterError: The app cannot be loaded.
    """
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())
    return stream_checks_of(assets, resource_key=resource_key)


def stream_checks_of(
    assets: KindlingAssetGraph, *, resource_key: str = STREAMS_RESOURCE
) -> Sequence[AssetChecksDefinition]:
    """What ``build_stream_checks`` does, over a graph that is there."""
    with collector_paused():
        specs = [
            assets.translator.get_asset_check_spec(CheckData(data, HEALTH_CHECK, _DESCRIPTION))
            for data in assets.streaming.values()
        ]
    if not specs:
        return ()
    streams = streams_by_key(assets)

    @multi_asset_check(
        name=f"{app_name(assets.project)}_stream_health",
        specs=specs,
        can_subset=True,
        required_resource_keys={resource_key},
    )
    def stream_health(context):  # type: ignore[no-untyped-def]  # Dagster takes no postponed annotation here
        client = getattr(context.resources, resource_key).client(instance=context.instance)
        snapshot = client.snapshot()
        for check in sorted(context.selected_asset_check_keys):
            views = [snapshot.view(stream_id) for stream_id in streams[check.asset_key]]
            yield result_of(health_evaluation(check.asset_key, views))

    return (stream_health,)


def streams_by_key(assets: KindlingAssetGraph) -> dict[AssetKey, tuple[str, ...]]:
    """Ids of the streams that write each asset, also of those that batch pipes write too."""
    found: dict[AssetKey, tuple[str, ...]] = {}
    for pipe in assets.manifest.pipes:
        if pipe.streaming:
            key = assets.key_of(pipe.output_entity_id)
            found[key] = (*found.get(key, ()), pipe.id)
    return found
