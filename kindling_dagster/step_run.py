"""One step's run of Kindling's pipes: from the selected assets to a request, and from its events to Dagster's."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dagster import AssetExecutionContext, AssetKey, DagsterEventType, MaterializeResult

from kindling_dagster.assets import CHECKS_TAG, asset_keys_of
from kindling_dagster.config import KindlingRunConfig, option_layer
from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.engines.base import RunRequest
from kindling_dagster.manifest import Manifest
from kindling_dagster.options import resolve_options
from kindling_dagster.partitions import StepPartitions, window_metadata
from kindling_dagster.project import KindlingProject
from kindling_dagster.signals.bridge import StepAsset, StepReporter
from kindling_dagster.signals.bridge_outputs import BridgeContext
from kindling_dagster.signals.bridge_table import SignalBridge
from kindling_dagster.table_checks.declared import checks_in_step
from kindling_dagster.table_checks.events import held_back
from kindling_dagster.translator import ENTITY_METADATA, PIPES_METADATA
from kindling_dagster.windows import windows_of

if TYPE_CHECKING:
    from kindling_dagster.resources import KindlingResource

# Dagster's own tag on a run that was re-executed "from failure".
_RESUME_TAG = "dagster/is_resume_retry"
_MAX_PARENT_RUNS = 20


class KindlingRun:
    """One step's run: ``stream`` does it.

    Args:
        resource: Where options and the engine come from.
        context: The step's context.
        project: The app.
        config: The run's options; read from the context when None.
        bridge: What becomes of signals; the package's rules when None.
    """

    def __init__(
        self,
        resource: KindlingResource,
        context: AssetExecutionContext,
        project: KindlingProject,
        config: KindlingRunConfig | None = None,
        bridge: SignalBridge | None = None,
    ) -> None:
        self._bridge = bridge or SignalBridge()
        self._resource = resource
        self._context = context
        self._project = project
        self._config: Mapping[str, Any] = (
            config.model_dump() if config is not None else context.op_execution_context.op_config or {}
        )

    @property
    def manifest(self) -> Manifest:
        """The app's manifest."""
        return self._project.manifest

    def stream(self) -> Iterator[MaterializeResult[Any]]:
        """Run the pipes; gives each asset's MaterializeResult the moment it is committed.

        An asset whose pipes found no new data gives none. Stopping the iteration early, also by
        Terminate, cancels the Spark jobs that run and waits until nothing can be committed any more.

        Raises:
            Failure: Some pipe did not succeed; raised after all that could still run has run.
            KindlingDagsterError: The run cannot start.
        """
        selected = _step_assets(self._context)
        assets = self._to_run(selected)
        if not assets:
            return
        names = BridgeContext(self.manifest, asset_keys_of(self._context.op_def.tags))
        request = self._request(assets, selected)
        told = self._with_windows(assets, request.options.entity_tags)
        reporter = StepReporter(self._context, told, names, self._bridge)
        run = self._resource.engine_for(self._project, self._context).run(request)
        # Closed at once: one that waits for the garbage collector runs on, when the interrupt came while an
        # event was being told.
        with closing(run) as events:  # type: ignore[type-var]
            try:
                for event in events:
                    yield from reporter.handle(event)
            except BaseException:
                reporter.interrupt()
                raise
        reporter.finish()

    def _request(self, assets: Sequence[StepAsset], selected: Sequence[StepAsset]) -> RunRequest:
        pipe_ids = tuple(pipe_id for asset in assets for pipe_id in asset.pipe_ids)
        options = resolve_options(
            self.manifest,
            pipe_ids,
            run=option_layer(self._config),
            resource=self._resource.options(),
            watermarks=self._resource.watermarks,
            entity_tags=self._entity_tags(assets),
            reprocess=self._config.get("reprocess") or {},
            # What this run continues was given the same options, for pipes that have committed meanwhile.
            of_pipes=[pipe_id for asset in selected for pipe_id in asset.pipe_ids],
        )
        durations = self._past_durations(assets) if options.parallel else {}
        return RunRequest(
            self._context.run_id, pipe_ids, options, durations, self._bridge.signals, self._checks(assets)
        )

    def _entity_tags(self, assets: Sequence[StepAsset]) -> dict[str, dict[str, str]]:
        """The tags of the run's config over those of its partitions."""
        stated: Mapping[str, Mapping[str, str]] = self._config.get("entity_tags") or {}
        if not self._partitioned:
            return {id_: dict(tags) for id_, tags in stated.items()}
        by_key = {spec.key: spec for spec in self._context.assets_def.specs}
        written = {asset.entity_id: by_key[asset.key] for asset in assets}
        found = StepPartitions(self._context, self.manifest).entity_tags(written)
        return {id_: {**found.get(id_, {}), **stated.get(id_, {})} for id_ in {**found, **stated}}

    def _with_windows(
        self, assets: Sequence[StepAsset], entity_tags: Mapping[str, Mapping[str, str]]
    ) -> list[StepAsset]:
        windows = windows_of(entity_tags)
        keys = self._context.partition_keys if windows and self._partitioned else ()
        return [
            replace(asset, metadata=window_metadata(windows[asset.entity_id], keys))
            if asset.entity_id in windows
            else asset
            for asset in assets
        ]

    @property
    def _partitioned(self) -> bool:
        return bool(self._context.has_partition_key or self._context.has_partition_key_range)

    def _checks(self, assets: Sequence[StepAsset]) -> dict[str, dict[str, bool]]:
        """The checks that the step makes itself, as its tag asks for them."""
        stated = self._context.op_def.tags.get(CHECKS_TAG)
        if stated is None:
            return {}
        asked = json.loads(stated)
        return checks_in_step(
            self.manifest,
            [asset.entity_id for asset in assets],
            asked["blocking"],
            everything=asked["all"],
            storage_options=bool(self._resource.storage_options),
        )

    def _past_durations(self, assets: Sequence[StepAsset]) -> dict[str, float]:
        """Seconds that the pipes took when they last committed, by the assets' metadata."""
        durations: dict[str, float] = {}
        for asset in assets:
            event = self._context.instance.get_latest_materialization_event(asset.key)
            found = event.asset_materialization if event else None
            value = found.metadata.get("kindling/durations") if found else None
            stated = value.value if value is not None else None
            if isinstance(stated, dict):
                # Masked where a pipe's id reads like a secret's name.
                durations.update({id_: s for id_, s in stated.items() if isinstance(s, int | float)})
        return durations

    def _to_run(self, assets: Sequence[StepAsset]) -> list[StepAsset]:
        """The assets that did not commit yet in the run that this one continues, and what they read of memory."""
        left = _left(self.manifest, assets, self._committed_before())
        if len(left) < len(assets):
            done = ", ".join(asset.entity_id for asset in assets if asset not in left)
            self._context.log.info(f"Already committed by the run this one continues, not run again: {done}")
        return left

    def _committed_before(self) -> set[AssetKey]:
        committed: set[AssetKey] = set()
        instance, run = self._context.instance, self._context.run
        run_ids = [run.run_id] if self._context.op_execution_context.retry_number > 0 else []
        while run.tags.get(_RESUME_TAG) == "true" and run.parent_run_id and len(run_ids) < _MAX_PARENT_RUNS:
            run_ids.append(run.parent_run_id)
            parent = instance.get_run_by_id(run.parent_run_id)
            if parent is None:
                break
            run = parent
        again: set[AssetKey] = set()
        for run_id in run_ids:  # from the newest on: of each asset the last that was said counts
            records = instance.get_records_for_run(
                run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION
            ).records
            written = {record.asset_key for record in records if record.asset_key is not None}
            bad = held_back(instance, run_id) - committed
            again |= bad
            committed |= written - again
        return committed


def _left(
    manifest: Manifest, assets: Sequence[StepAsset], committed: Collection[AssetKey]
) -> list[StepAsset]:
    """The assets to run when some have committed before, in their order.

    What lived in the memory of that run's session is gone with it: it is made again for those who read it.
    """
    left = [asset for asset in assets if asset.key not in committed]
    if not left or len(left) == len(assets):
        return left
    in_memory = {
        asset.entity_id: asset
        for asset in assets
        if asset.key in committed and manifest.entities_by_id[asset.entity_id].location.kind == "memory"
    }
    graph = PipeGraphBuilder(manifest).build_graph(pipe_id for asset in assets for pipe_id in asset.pipe_ids)
    for asset in left:  # grows while it is read
        for source in (source for pipe_id in asset.pipe_ids for source in graph.node(pipe_id).sources):
            if source in in_memory:
                left.append(in_memory.pop(source))
    return [asset for asset in assets if asset in left]


def _step_assets(context: AssetExecutionContext) -> list[StepAsset]:
    selected = context.selected_asset_keys
    return [
        StepAsset(
            spec.key, str(spec.metadata[ENTITY_METADATA]), tuple(map(str, spec.metadata[PIPES_METADATA]))
        )
        for spec in context.assets_def.specs
        if spec.key in selected
    ]
