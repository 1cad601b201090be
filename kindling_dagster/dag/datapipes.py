"""Drop-in ways to run pipes for people who drive Kindling themselves, without Dagster."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

from kindling.data_entities import DataEntityRegistry, EntityPathLocator
from kindling.data_pipes import DataPipesExecution, DataPipesRegistry, resolve_driving_entity_ids
from kindling.injection import get_kindling_service
from kindling.signaling import SignalProvider
from kindling.spark_config import ConfigService
from kindling.spark_session import get_or_create_spark_session

from kindling_dagster.dag.cache import EntityCache
from kindling_dagster.dag.cancellation import SparkCanceller, WriteGate
from kindling_dagster.dag.orchestrator import ExecutionOrchestrator
from kindling_dagster.dag.plan import ExecutionPlan, ExecutionPlanGenerator
from kindling_dagster.dag.results import ExecutionResult
from kindling_dagster.dag.strategy import ExecutionStrategy
from kindling_dagster.delta_log import local_path, read_state
from kindling_dagster.engines.base import RunOptions
from kindling_dagster.errors import RunError
from kindling_dagster.manifest import AppRef, EntitySpec, Location, Manifest, PipeSpec
from kindling_dagster.options import OptionLayer, resolve_options
from kindling_dagster.signals.dispatch import SIGNAL_SECONDS, SignalDispatcher
from kindling_dagster.signals.settings import SignalSettings
from kindling_dagster.sql_tables import entities_read


def run_datapipes(
    pipes: Iterable[str],
    use_dag: bool = False,
    dag_strategy: ExecutionStrategy | None = None,
    no_watermark: bool = False,
    entity_tags: Mapping[str, Mapping[str, str]] | None = None,
    **dag_options: Any,
) -> ExecutionResult | None:
    """Run pipes of an initialised Kindling app.

    Args:
        pipes: Pipe ids.
        use_dag: Plan by dependencies with ``run_datapipes_dag``. By default Kindling's own
            ``run_datapipes`` runs them, in the order given, exactly as without this package.
        dag_strategy: How to order them when ``use_dag``.
        no_watermark: Read everything, whatever the pipes declare.
        entity_tags: Per-run tag overrides by entity id.
        **dag_options: Further arguments of ``run_datapipes_dag``.

    Returns:
        The result with ``use_dag``; None without, as Kindling's own.

    Raises:
        Exception: Without ``use_dag``, what the first failing pipe raises.
        RunError: With it, when pipes failed and ``raise_on_failure`` is not False.
    """
    if use_dag:
        return run_datapipes_dag(
            pipes, dag_strategy, no_watermark=no_watermark, entity_tags=entity_tags, **dag_options
        )
    execution = get_kindling_service(DataPipesExecution)
    tags = {entity_id: dict(values) for entity_id, values in (entity_tags or {}).items()}
    execution.run_datapipes(list(pipes), no_watermark=no_watermark, entity_tags=tags or None)
    return None


def run_datapipes_dag(
    pipes: Iterable[str],
    strategy: ExecutionStrategy | None = None,
    *,
    no_watermark: bool = False,
    entity_tags: Mapping[str, Mapping[str, str]] | None = None,
    raise_on_failure: bool = True,
    **options: Any,
) -> ExecutionResult:
    """Run pipes of an initialised Kindling app in the order their data flows.

    Args:
        pipes: Pipe ids, in any order.
        strategy: How to order them; chosen by what they are when left out.
        no_watermark: Read everything, whatever the pipes declare.
        entity_tags: Per-run tag overrides by entity id.
        raise_on_failure: Raise when a pipe did not succeed; otherwise only the result tells.
        **options: Fields of ``OptionLayer``: ``parallel``, ``max_workers``, ``pipe_timeout``, …; what
            is left out comes from the pipes' tags and ``kindling.execution.*``.

    Raises:
        PlanError: The pipes cannot run as asked.
        CycleError: They depend on each other in a circle.
        RunError: A pipe did not succeed; names each.

    Example::

        result = run_datapipes_dag(["silver.orders", "gold.daily"], parallel=True, max_workers=2)
    """
    pipe_ids = list(pipes)
    manifest = registered_manifest()
    plan = ExecutionPlanGenerator(manifest, strategy).generate_plan(pipe_ids)
    layer = OptionLayer(**{**({"mode": "full_refresh"} if no_watermark else {}), **options})
    resolved = resolve_options(manifest, pipe_ids, run=layer, entity_tags=entity_tags)
    entities = get_kindling_service(DataEntityRegistry)
    tags = {entity_id: dict(values) for entity_id, values in resolved.entity_tags.items()}
    with entities.tag_overrides(tags) if tags else nullcontext():
        result = _execute(manifest, plan, resolved)
    if raise_on_failure and not result.ok:
        raise RunError(_told(result), "The result of raise_on_failure=False has each error in full.")
    return result


def _execute(manifest: Manifest, plan: ExecutionPlan, options: RunOptions) -> ExecutionResult:
    execution = get_kindling_service(DataPipesExecution)
    signals = get_kindling_service(SignalProvider)
    run_id = str(uuid.uuid4())
    gate = WriteGate()
    gate.connect(signals)
    dispatcher = SignalDispatcher(SignalSettings.from_config(manifest.settings))

    def run_pipe(pipe_id: str) -> None:
        execution.run_datapipes([pipe_id], no_watermark=options.pipes[pipe_id].full_refresh)

    try:
        return ExecutionOrchestrator(
            manifest,
            run_pipe,
            signals=signals,
            options=options,
            canceller=SparkCanceller(get_or_create_spark_session(), run_id, gate),
            cache=EntityCache(
                manifest,
                signals,
                auto_cache=options.auto_cache,
                level=options.cache_level,
                max_bytes=options.cache_max_bytes,
                size_of=_table_bytes,
                run_id=run_id,
                dispatcher=dispatcher,
            ),
            run_id=run_id,
            dispatcher=dispatcher,
        ).execute_plan(plan)
    finally:
        gate.close()
        dispatcher.shutdown(SIGNAL_SECONDS)


def _table_bytes(entity_id: str) -> int | None:
    """Bytes of a Delta entity's table on a local path, from its log; None where that does not tell."""
    entity = get_kindling_service(DataEntityRegistry).get_entity_definition(entity_id)
    tags = (entity.tags or {}) if entity is not None else {}
    default = get_kindling_service(ConfigService).get("kindling.delta.access_mode", None)
    mode = str(tags.get("provider.access_mode") or default or "catalog").lower()
    in_storage = mode != "catalog" or bool(tags.get("provider.path"))
    if entity is None or tags.get("provider_type", "delta") != "delta" or not in_storage:
        return None
    path = str(get_kindling_service(EntityPathLocator).get_table_path(entity))
    try:
        state = read_state(path) if local_path(path) is not None else None
    except Exception:  # only an estimate: the read itself will say what is wrong with the table
        return None
    return state.bytes if state else None


def _told(result: ExecutionResult) -> str:
    lines = [f"{len(result.results) - len(result.succeeded)} of {len(result.results)} pipes did not succeed:"]
    for pipe in (*result.failed, *result.not_run):
        why = f"{pipe.error.type}: {pipe.error.message}" if pipe.error else pipe.reason
        lines.append(f"  {pipe.pipe_id} {pipe.status.value}: {why}")
    return "\n".join(lines)


def registered_manifest() -> Manifest:
    """What planning needs of the app that is initialised in this process, from Kindling's registries."""
    pipe_registry = get_kindling_service(DataPipesRegistry)
    entity_registry = get_kindling_service(DataEntityRegistry)
    definitions = [entity_registry.get_entity_definition(id_) for id_ in entity_registry.get_entity_ids()]
    names = {
        name.lower(): entity.entityid
        for entity in definitions
        for name in (entity.name, entity.entityid.replace(".", "_"), entity.entityid)
    }
    return Manifest(
        app=AppRef("registered", "", form="dynamic", recorded_by="initialized"),
        entities=tuple(_entity(entity, names) for entity in definitions),
        pipes=tuple(
            _pipe(pipe_registry.get_pipe_definition(pipe_id)) for pipe_id in pipe_registry.get_pipe_ids()
        ),
        settings={**_settings("kindling.execution"), **_settings("kindling.signals")},
    )


def _entity(entity: Any, names: Mapping[str, str]) -> EntitySpec:
    tags = {key: str(value) for key, value in (entity.tags or {}).items()}
    read = entities_read(entity.sql, names) if entity.sql else ()
    return EntitySpec(
        id=entity.entityid,
        name=entity.name,
        provider=tags.get("provider_type", "delta"),
        location=Location("none"),
        tags=tags,
        companion_of=tags.get("scd.companion_of", ""),
        sql=entity.sql,
        sql_inputs=tuple(entity_id for entity_id in read if entity_id != entity.entityid),
    )


def _pipe(pipe: Any) -> PipeSpec:
    return PipeSpec(
        id=pipe.pipeid,
        name=pipe.name,
        input_entity_ids=tuple(pipe.input_entity_ids or ()),
        output_entity_id=pipe.output_entity_id,
        output_type=str(pipe.output_type),
        driving_entity_ids=tuple(resolve_driving_entity_ids(pipe)),
        use_watermark=bool(pipe.use_watermark),
        tags={key: str(value) for key, value in (pipe.tags or {}).items()},
    )


def _settings(section: str) -> dict[str, Any]:
    """A section of the app's settings, flattened to dotted lower-case keys."""
    flat: dict[str, Any] = {}

    def flatten(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                flatten(f"{prefix}.{str(key).lower()}", inner)
        elif value is not None:
            flat[prefix] = value

    flatten(section, get_kindling_service(ConfigService).get(section, None))
    return flat
