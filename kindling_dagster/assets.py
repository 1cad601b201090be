"""Kindling pipes as Dagster assets: ``@kindling_assets`` and ``build_kindling_asset_specs``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from dagster import (
    AssetCheckKey,
    AssetCheckSpec,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    PartitionsDefinition,
    RetryPolicy,
    multi_asset,
)

from kindling_dagster.collector import collector_paused
from kindling_dagster.config import KindlingRunConfig
from kindling_dagster.dag.graph import PipeGraph, PipeGraphBuilder
from kindling_dagster.errors import DeclarationError, SelectionError
from kindling_dagster.ingestion.landing import Entries, IngestionPaths
from kindling_dagster.manifest import EntitySpec, Manifest, PipeSpec
from kindling_dagster.partitions import COLUMN_METADATA, check_partitions, own_column, partitions_tag
from kindling_dagster.project import KindlingProject
from kindling_dagster.selection import Selection, select_entities
from kindling_dagster.table_checks.declared import DeclaredChecks, TableCheck
from kindling_dagster.translator import IO_MANAGER_METADATA, AssetData, CheckData, DagsterKindlingTranslator

PROJECT_TAG = "kindling-dagster/project"
KEYS_TAG = "kindling-dagster/asset_keys"
CHECKS_TAG = "kindling-dagster/checks"

StepCheckChoice = Literal["all", "blocking", "none"]
"""Which checks of tables the step that writes them makes, where they cannot be made or do no good elsewhere."""


def app_name(project: KindlingProject) -> str:
    """The app's name as a part of Dagster's names."""
    return re.sub(r"[^A-Za-z0-9_]", "_", project.name)


@dataclass(frozen=True)
class KindlingAssetGraph:
    """An app's entities as assets: which pipes write them, what they depend on, their specs.

    Args:
        project: The app.
        translator: Decides what each asset looks like.
        io_manager_key: Key of the KindlingIOManager through which other assets take these as inputs;
            Dagster's default I/O manager when empty.
    """

    project: KindlingProject
    translator: DagsterKindlingTranslator
    io_manager_key: str = ""

    @property
    def manifest(self) -> Manifest:
        """The app's manifest."""
        return self.project.manifest

    @cached_property
    def graph(self) -> PipeGraph:
        """The graph of the batch pipes; raises CycleError where they go in a circle."""
        return PipeGraphBuilder(self.manifest).build_graph(
            [pipe.id for pipe in self.manifest.pipes if not pipe.streaming]
        )

    @cached_property
    def written(self) -> Mapping[str, AssetData]:
        """Entities that batch pipes write, in declaration order."""
        writers: dict[str, list[PipeSpec]] = {}
        for node in self.graph.nodes:
            writers.setdefault(node.output, []).append(node.pipe)
        return {entity_id: self._data(entity_id, pipes, self.graph) for entity_id, pipes in writers.items()}

    @cached_property
    def streaming_graph(self) -> PipeGraph:
        """The graph of the streams. Circles are looked for where it is known that streams become assets."""
        streams = [pipe.id for pipe in self.manifest.pipes if pipe.streaming]
        return PipeGraphBuilder(self.manifest).build_graph(streams, allow_cycles=True)

    @cached_property
    def streaming(self) -> Mapping[str, AssetData]:
        """Entities that streams write and no batch pipe does, in declaration order."""
        writers: dict[str, list[PipeSpec]] = {}
        for pipe in self.manifest.pipes:
            if pipe.streaming and pipe.output_entity_id not in self.written:
                writers.setdefault(pipe.output_entity_id, []).append(pipe)
        return {id_: self._data(id_, pipes, self.streaming_graph) for id_, pipes in writers.items()}

    @cached_property
    def ingested(self) -> Mapping[str, AssetData]:
        """Entities that landed files are written to and no pipe writes; none where no landing path is set."""
        if IngestionPaths.of(self.manifest, self.project.working_dir) is None:
            return {}
        written = {pipe.output_entity_id for pipe in self.manifest.pipes}
        return {
            id_: replace(self._data(id_, (), self.graph), ingestion=entries)
            for id_, entries in Entries(self.manifest).reachable().items()
            if id_ not in written
        }

    @cached_property
    def ingested_specs(self) -> Mapping[str, AssetSpec]:
        """Specs of the assets that files are written to, by entity id."""
        return {entity_id: self._spec(data) for entity_id, data in self.ingested.items()}

    @cached_property
    def external(self) -> Mapping[str, AssetData]:
        """Entities that no pipe of the app writes; companions belong to their base entity."""
        written = {pipe.output_entity_id for pipe in self.manifest.pipes}
        return {
            entity.id: self._data(entity.id, (), self.graph)
            for entity in self.manifest.entities
            if entity.id not in written and not entity.companion_of and entity.id not in self.ingested
        }

    def _data(self, entity_id: str, pipes: Sequence[PipeSpec], graph: PipeGraph) -> AssetData:
        entity = self.manifest.entities_by_id.get(entity_id) or _undeclared(entity_id)
        read: dict[str, None] = dict.fromkeys(entity.sql_inputs)
        for pipe in pipes:
            read.update(dict.fromkeys(graph.node(pipe.id).sources))
        read.pop(entity_id, None)
        return AssetData(
            manifest=self.manifest,
            entity=entity,
            pipes=tuple(pipes),
            upstream=tuple(read),
            project=self.project,
            io_manager_key=self.io_manager_key,
        )

    @cached_property
    def specs(self) -> Mapping[str, AssetSpec]:
        """Specs of the written assets by entity id, dependencies included."""
        return {entity_id: self._spec(data) for entity_id, data in self.written.items()}

    @cached_property
    def streaming_specs(self) -> Mapping[str, AssetSpec]:
        """Specs of the assets that streams write, by entity id, dependencies included."""
        return {entity_id: self._spec(data) for entity_id, data in self.streaming.items()}

    @cached_property
    def external_specs(self) -> Mapping[str, AssetSpec]:
        """Specs of the external assets by entity id."""
        return {entity_id: self._spec(data) for entity_id, data in self.external.items()}

    def _spec(self, data: AssetData) -> AssetSpec:
        deps = tuple(self.translator.get_deps(data, self.key_of))
        spec = self.translator.get_asset_spec(replace(data, deps=deps) if deps else data)
        if spec.key != self.key_of(data.entity.id):
            raise DeclarationError(
                f"The translator gives {data.entity.id} the key {spec.key.to_user_string()} in "
                f"get_asset_spec and {self.key_of(data.entity.id).to_user_string()} in get_asset_key.",
                "Override get_asset_key to change keys; dependencies go by it too.",
            )
        # An override may have made a spec of its own, without them.
        stated = {dep.asset_key for dep in spec.deps}
        missing = [key for key in deps if key not in stated]
        if missing:
            spec = spec.replace_attributes(deps=[*spec.deps, *missing])
        spec = self._with_partitions(data, spec)
        if self.io_manager_key and IO_MANAGER_METADATA not in spec.metadata:
            spec = spec.with_io_manager_key(self.io_manager_key)
        return spec

    def _with_partitions(self, data: AssetData, spec: AssetSpec) -> AssetSpec:
        # An override of get_asset_spec may have set them already.
        partitions = spec.partitions_def or self.translator.get_partitions_def(data)
        if partitions is None or (not data.pipes and spec.partitions_def is not None):
            return spec
        check_partitions(data, partitions, self.translator.get_partition_columns(data))
        column = own_column(data.entity)
        return spec.replace_attributes(
            partitions_def=partitions,
            metadata={**spec.metadata, COLUMN_METADATA: column} if column else spec.metadata,
        )

    def partitions_tag(self, entity_ids: Iterable[str]) -> dict[str, str]:
        """The tag that tells a step which columns tell the partitions of its inputs."""
        columns = {id_: self.translator.get_partition_columns(self.written[id_]) for id_ in entity_ids}
        return partitions_tag({id_: self.specs[id_] for id_ in columns}, columns)

    def key_of(self, entity_id: str) -> AssetKey:
        """The key of an entity's asset, through the translator."""
        return self._keys.get(entity_id) or self.translator.get_asset_key(
            AssetData(self.manifest, _undeclared(entity_id))
        )

    @cached_property
    def _keys(self) -> Mapping[str, AssetKey]:
        return {
            entity_id: self.translator.get_asset_key(data)
            for source in (self.written, self.streaming, self.external, self.ingested)
            for entity_id, data in source.items()
        }

    def select(self, select: Selection | None, exclude: Selection | None) -> list[str]:
        """Ids of the entities of batch pipes that a selection names, in declaration order."""
        return self._select(self.written, self.specs, select, exclude)

    def select_streaming(self, select: Selection | None, exclude: Selection | None) -> list[str]:
        """Ids of the entities of streams that a selection names, in declaration order."""
        return self._select(self.streaming, self.streaming_specs, select, exclude)

    def _select(
        self,
        written: Mapping[str, AssetData],
        specs: Mapping[str, AssetSpec],
        select: Selection | None,
        exclude: Selection | None,
    ) -> list[str]:
        if select is None and exclude is None:
            return list(written)
        candidates = {id_: (data.entity, data.pipes) for id_, data in written.items()}
        chosen = select_entities(candidates, specs, select, exclude)
        if not chosen:
            raise SelectionError(
                f"select={select!r} and exclude={exclude!r} leave no asset of {self.manifest.app.name}.",
                "Widen select or narrow exclude.",
            )
        return [entity_id for entity_id in written if entity_id in chosen]

    @cached_property
    def checks(self) -> Mapping[AssetCheckKey, tuple[TableCheck, AssetCheckSpec]]:
        """The checks of what the app declares of its assets' tables, with their specs.

        Raises:
            DeclarationError: A tag or setting is not what it should be, or the translator renames a check.
        """
        declared = DeclaredChecks(self.manifest)
        found: dict[AssetCheckKey, tuple[TableCheck, AssetCheckSpec]] = {}
        with collector_paused():
            for source in (self.written, self.streaming, self.external, self.ingested):
                for entity_id, data in source.items():
                    for check in declared.of(entity_id):
                        spec = self._check_spec(data, check)
                        found[spec.key] = check, spec
        return found

    def _check_spec(self, data: AssetData, check: TableCheck) -> AssetCheckSpec:
        asked = CheckData(data, check.name, check.description, check.blocking)
        spec = self.translator.get_asset_check_spec(asked)
        if spec.name != check.name:
            raise DeclarationError(
                f"The translator names the check {check.name} of {check.entity_id} {spec.name}.",
                "Leave the names of checks as they are: events go by them.",
            )
        return spec

    def checks_tag(self, choice: StepCheckChoice) -> dict[str, str]:
        """The tag that tells a step which checks to make itself; none where it makes none."""
        if choice == "none":
            return {}
        blocking: dict[str, list[str]] = {}
        for check, spec in self.checks.values():
            if spec.blocking:
                blocking.setdefault(check.entity_id, []).append(check.name)
        if choice == "blocking" and not blocking:
            return {}
        return {CHECKS_TAG: json.dumps({"all": choice == "all", "blocking": blocking})}

    @cached_property
    def keys_tag(self) -> dict[str, str]:
        """The tag of keys that are not the entity's id split on dots: a run reports on all entities by them."""
        keys = {
            entity.id: self.key_of(entity.id) for entity in self.manifest.entities if not entity.companion_of
        }
        other = {id_: list(key.path) for id_, key in keys.items() if list(key.path) != id_.split(".")}
        return {KEYS_TAG: json.dumps(other)} if other else {}


def _undeclared(entity_id: str) -> EntitySpec:
    from kindling_dagster.manifest import Location

    return EntitySpec(entity_id, entity_id, provider="undeclared", location=Location("none"))


def build_kindling_asset_specs(
    *,
    project: KindlingProject,
    select: Selection | None = None,
    exclude: Selection | None = None,
    translator: DagsterKindlingTranslator | None = None,
    external: bool = False,
) -> Sequence[AssetSpec]:
    """The asset specs of an app's pipes, without anything to run them.

    Args:
        project: The app.
        select: Kindling ids with globs, ``tag:name=value``, Dagster selection strings, or a list of such.
        exclude: The same, for what to leave out.
        translator: Decides keys, groups, kinds and so on.
        external: Give the specs of entities that no pipe writes instead (all of them).

    Raises:
        KindlingDagsterError: The app cannot be loaded, its pipes go in a circle, or a selection fits nothing.
    """
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())
    with collector_paused():
        if external:
            return list(assets.external_specs.values())
        return [assets.specs[entity_id] for entity_id in assets.select(select, exclude)]


def kindling_assets(
    *,
    project: KindlingProject,
    select: Selection | None = None,
    exclude: Selection | None = None,
    translator: DagsterKindlingTranslator | None = None,
    name: str | None = None,
    op_tags: Mapping[str, Any] | None = None,
    required_resource_keys: Iterable[str] | None = None,
    pool: str | None = None,
    retry_policy: RetryPolicy | None = None,
    partitions_def: PartitionsDefinition[str] | None = None,
    backfill_policy: BackfillPolicy | None = None,
    blocking_checks: bool = True,
    io_manager_key: str | None = None,
) -> Callable[[Callable[..., Any]], AssetsDefinition]:
    """Make the decorated function the one step that materializes an app's pipes.

    Each entity that a batch pipe writes is an asset; any subset can be materialized. Streaming pipes
    are left out. The body is usually one line::

        @kindling_assets(project=KindlingProject("demo"))
        def flights(context: AssetExecutionContext, kindling: KindlingResource):
            yield from kindling.run(context=context).stream()

    Args:
        project: The app.
        select: Kindling ids with globs, ``tag:name=value``, Dagster selection strings, or a list of such.
        exclude: The same, for what to leave out.
        translator: Decides keys, groups, kinds and so on.
        name: Name of the op; the function's name by default.
        op_tags: Tags of the op.
        required_resource_keys: Resources that the body takes from its context.
        pool: Concurrency pool of the op.
        retry_policy: Dagster's retry policy for the step.
        partitions_def: Partitions of all the assets, which the function itself maps to what is read and
            written; those that Kindling is told of come from the translator's ``get_partitions_def``.
        backfill_policy: Backfill policy of all the assets; one run for all partitions when the translator
            gives partitions.
        blocking_checks: Make the checks that the app calls blocking in the step, as soon as a table is
            written, so that pipes downstream of one that fails do not run.
        io_manager_key: Resource key of a ``KindlingIOManager``, through which other assets take these as
            inputs.

    Raises:
        KindlingDagsterError: The app cannot be loaded, its pipes go in a circle, or a selection fits nothing.
    """
    return step_of(
        KindlingAssetGraph(project, translator or DagsterKindlingTranslator(), io_manager_key or ""),
        select=select,
        exclude=exclude,
        name=name,
        op_tags=op_tags,
        required_resource_keys=set(required_resource_keys or ()),
        pool=pool,
        retry_policy=retry_policy,
        partitions_def=partitions_def,
        backfill_policy=backfill_policy,
        checks="blocking" if blocking_checks else "none",
    )


def step_of(
    assets: KindlingAssetGraph,
    *,
    select: Selection | None,
    exclude: Selection | None,
    name: str | None = None,
    op_tags: Mapping[str, Any] | None = None,
    checks: StepCheckChoice = "blocking",
    **options: Any,
) -> Callable[[Callable[..., Any]], AssetsDefinition]:
    """What ``kindling_assets`` does, over a graph that is there; ``options`` are ``multi_asset``'s own."""
    project = assets.project
    with collector_paused():
        chosen = assets.select(select, exclude)
        specs = [assets.specs[entity_id] for entity_id in chosen]
    if options.get("backfill_policy") is None and any(spec.partitions_def for spec in specs):
        # A run costs a start of Spark, and one that reads a longer window costs little more than any.
        options["backfill_policy"] = BackfillPolicy.single_run()
    if not specs:
        raise DeclarationError(
            f"The app {project.manifest.app.name} declares no batch pipe, so there is nothing to materialize.",
            "Declare a pipe, or check that its package is named in lake-reqs.txt.",
        )

    def decorate(function: Callable[..., Any]) -> AssetsDefinition:
        takes_config = "config" in function.__annotations__
        with collector_paused():
            return multi_asset(
                name=name or function.__name__,
                specs=specs,
                can_subset=True,
                op_tags={
                    **(op_tags or {}),
                    PROJECT_TAG: project.to_json(),
                    **assets.keys_tag,
                    **assets.checks_tag(checks),
                    **assets.partitions_tag(chosen),
                },
                config_schema=None if takes_config else KindlingRunConfig.to_fields_dict(),
                **options,
            )(function)

    return decorate


def asset_keys_of(tags: Mapping[str, str]) -> dict[str, AssetKey]:
    """Keys by entity id, as the tags of a step that ``kindling_assets`` made state them."""
    return {id_: AssetKey(path) for id_, path in json.loads(tags.get(KEYS_TAG, "{}")).items()}
