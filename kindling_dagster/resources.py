"""Resources: how a step gets at Kindling and Spark."""

# No `from __future__ import annotations` here: when the class is made, Dagster looks for nested resources among its
# annotations, and passes over those that are text. They could not be configured at launch.

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetKey,
    ConfigurableResource,
    DagsterEventType,
    InitResourceContext,
    MaterializeResult,
)
from dagster_pyspark import LazyPySparkResource
from pydantic import Field, PrivateAttr

from kindling_dagster.assets import CHECKS_TAG, PROJECT_TAG, asset_keys_of
from kindling_dagster.config import KindlingRunConfig, option_layer
from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.engine_resources import EngineResource, EngineSetup, InProcessEngine
from kindling_dagster.engines.base import Engine, RunRequest
from kindling_dagster.errors import RunError
from kindling_dagster.manifest import Manifest
from kindling_dagster.options import OptionLayer, resolve_options
from kindling_dagster.partitions import StepPartitions, window_metadata
from kindling_dagster.project import KindlingProject
from kindling_dagster.signals.bridge import StepAsset, StepReporter
from kindling_dagster.signals.bridge_outputs import BridgeContext
from kindling_dagster.signals.bridge_table import SignalBridge
from kindling_dagster.spark import session_conf, start_session
from kindling_dagster.table_checks.declared import checks_in_step
from kindling_dagster.table_checks.events import held_back
from kindling_dagster.translator import ENTITY_METADATA, PIPES_METADATA
from kindling_dagster.windows import windows_of

# Dagster's own tag on a run that was re-executed "from failure".
_RESUME_TAG = "dagster/is_resume_retry"
_MAX_PARENT_RUNS = 20


class KindlingResource(ConfigurableResource[Any]):
    """Runs Kindling's pipes in a step.

    Spark's settings are those of the nested ``LazyPySparkResource``; the session starts with the
    first step that needs it and is stopped when the run ends, unless it was there before.

    Example::

        defs = Definitions(
            assets=[flights],
            resources={
                "kindling": KindlingResource(
                    spark=LazyPySparkResource(spark_config={"spark.driver.memory": "4g"}),
                    parallel=True,
                )
            },
        )
    """

    spark: LazyPySparkResource
    engine: EngineResource
    watermarks: bool = Field(
        default=False,
        description="Read only new data in every run, by Kindling's watermarks, which its standalone "
        "platform leaves off.",
    )
    parallel: bool | None = Field(default=None, description="Run independent pipes at the same time.")
    max_workers: int | None = Field(default=None, description="How many pipes may run at once (4).")
    barrier: bool | None = Field(
        default=None, description="Finish one generation of pipes before the next starts."
    )
    pipe_timeout: float | None = Field(
        default=None, description="Seconds after which a pipe is cancelled; 0 for no limit."
    )
    error_strategy: str | None = Field(
        default=None, description="skip_dependents (default), continue or fail_fast."
    )
    retries: int | None = Field(default=None, description="How often a failed pipe is tried again.")
    backoff: float | None = Field(
        default=None, description="Seconds before the first retry; doubles with each further one."
    )
    auto_cache: bool | None = Field(
        default=None, description="Cache entities that several pipes of a run read."
    )
    cache_level: str | None = Field(
        default=None, description="Spark's storage level for cached entities (MEMORY_AND_DISK)."
    )
    cache_max_bytes: int | None = Field(
        default=None, description="Larger entities are not cached; 0 for no limit."
    )
    storage_options: dict[str, str] = Field(
        default={},
        description="Credentials for reading the logs of tables on object storage, as deltalake takes them; "
        "without any, Spark reads those logs.",
    )

    _engines: dict[str, Engine] = PrivateAttr(default_factory=dict)

    def __init__(self, **data: Any) -> None:
        # Dagster takes nested resources as arguments only, never as a field's default.
        defaults = {"spark": LazyPySparkResource(spark_config={}), "engine": InProcessEngine()}
        super().__init__(**{**defaults, **data})

    def run(
        self,
        context: AssetExecutionContext,
        *,
        project: KindlingProject | None = None,
        config: KindlingRunConfig | None = None,
        bridge: SignalBridge | None = None,
    ) -> "KindlingRun":
        """Get ready to run the pipes behind the step's selected assets.

        Args:
            context: The step's context, of a function under ``@kindling_assets``.
            project: The app; the one of the decorator when left out.
            config: The run's options, when the function takes a config of its own.
            bridge: What becomes of Kindling's signals in Dagster, where the defaults do not fit.

        Raises:
            RunError: The step is not one of ``@kindling_assets``.
        """
        return KindlingRun(self, context, project or _project_of(context), config, bridge)

    def engine_for(self, project: KindlingProject, context: AssetExecutionContext) -> Engine:
        """The engine that serves a project in this process; made on first use, closed with the resource."""
        conf = session_conf(self.spark.spark_config)
        setup = EngineSetup(project, conf, self.create_session, self.storage_options, context)
        key = self.engine.key(setup)
        if key not in self._engines:
            self._engines[key] = self.engine.open(setup)
        return self._engines[key]

    def create_session(self) -> Any:
        """The Spark session with the resource's settings, made if there is none. Not for the main thread.

        Raises:
            SparkSetupError: Spark does not start.
        """
        conf = session_conf(self.spark.spark_config)
        return start_session(lambda: LazyPySparkResource(spark_config=conf).spark_session, conf)

    def teardown_after_execution(self, context: InitResourceContext) -> None:  # noqa: ARG002
        """Let go of Spark when the run ends."""
        self.close()

    def close(self) -> None:
        """Let go of Spark: needed only where the resource is used without Dagster. Can be called twice."""
        while self._engines:
            self._engines.popitem()[1].close()

    def options(self) -> OptionLayer:
        """What the resource's own fields say of execution options."""
        return option_layer(self.model_dump(exclude={"spark", "engine", "watermarks", "storage_options"}))


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
        events = self._resource.engine_for(self._project, self._context).run(request)
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


def _project_of(context: AssetExecutionContext) -> KindlingProject:
    stated = context.op_def.tags.get(PROJECT_TAG)
    if stated is None:
        raise RunError(
            f"The step {context.op_def.name} was not made by @kindling_assets, so it names no Kindling app.",
            "Decorate it with @kindling_assets, or pass project= to run().",
        )
    return KindlingProject.from_json(stated)


def _step_assets(context: AssetExecutionContext) -> list[StepAsset]:
    selected = context.selected_asset_keys
    return [
        StepAsset(
            spec.key, str(spec.metadata[ENTITY_METADATA]), tuple(map(str, spec.metadata[PIPES_METADATA]))
        )
        for spec in context.assets_def.specs
        if spec.key in selected
    ]
