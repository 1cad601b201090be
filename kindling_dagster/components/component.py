"""KindlingProjectComponent: a Kindling app in a ``defs.yaml``; the app's manifest is its state."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from dagster import (
    AssetExecutionContext,
    AssetSpec,
    ComponentLoadContext,
    Definitions,
    MaterializeResult,
    Model,
    ResolutionContext,
    Resolvable,
    Resolver,
    StateBackedComponent,
    in_process_executor,
    scaffold_with,
)
from dagster.components import DefsStateConfig, DefsStateConfigArgs, ResolvedDefsStateConfig
from dagster.components.resolved.core_models import OpSpec
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import ConfigDict, Field, PrivateAttr

from kindling_dagster.components.attributes import (
    attribute_model,
    dataclass_from,
    rendered,
    resolver_of,
)
from kindling_dagster.components.scaffolder import KindlingProjectScaffolder
from kindling_dagster.components.translation import ComponentTranslator
from kindling_dagster.definitions import OpSettings, build_kindling_definitions
from kindling_dagster.engine_resources import EngineResource
from kindling_dagster.errors import DeclarationError
from kindling_dagster.lineage.settings import LineageSettings
from kindling_dagster.lineage_checks import build_lineage_audit, build_lineage_checks
from kindling_dagster.manifest import Manifest
from kindling_dagster.manifest_cache import ManifestCache
from kindling_dagster.project import KindlingProject
from kindling_dagster.resources import KindlingResource
from kindling_dagster.spark_resources import SparkSettings
from kindling_dagster.stream_resources import KindlingStreamsResource
from kindling_dagster.streaming.restarts import RestartConfig
from kindling_dagster.streaming.supervision import SupervisorPolicy
from kindling_dagster.streaming.watched import DimensionPolicy
from kindling_dagster.translator import AssetData, DagsterKindlingTranslator, TranslatorSettings

_ResourceAttributes = attribute_model(
    KindlingResource, replaced={"spark": dict[str, Any], "engine": dict[str, Any]}
)
_StreamsAttributes = attribute_model(KindlingStreamsResource, without=("project",))
_DimensionAttributes = attribute_model(
    DimensionPolicy, replaced={"detection": dict[str, str], "restarts": attribute_model(RestartConfig)}
)


if TYPE_CHECKING:
    _Resource = KindlingResource
else:
    # Dagster would look through the class for fields that YAML cannot say, which it has (Spark, the engine), although
    # the attribute has a model of its own.
    _Resource = Any


def _name_of(app: Path) -> str:
    """An app's folder as seen from the Python project that it lies in; its last part where it lies in none.

    No path of this machine: an image may be built on another. Two apps of a project may have folders of one name.
    """
    folder = app.parent if app.suffix == ".py" else app
    for root in folder.parents:
        if (root / "pyproject.toml").is_file() or (root / "dg.toml").is_file():
            return folder.relative_to(root).as_posix()
    return folder.name


def _path(context: ResolutionContext, stated: str | None) -> str | None:
    """A path of the YAML; a relative one counts from the file that states it."""
    return None if stated is None else str(context.resolve_source_relative_path(stated))


def _engine(said: str | Mapping[str, Any]) -> EngineResource:
    """The engine that YAML names, alone or with its settings: ``warm``, ``{type: warm, idle_minutes: 30}``."""
    options = {"type": said} if isinstance(said, str) else dict(said)
    engines = {engine_name(kind): kind for kind in EngineResource.__subclasses__()}
    name = str(options.pop("type", ""))
    if name not in engines:
        raise DeclarationError(
            f"There is no engine {name!r} (resource: engine: type).",
            f"Use one of {', '.join(sorted(engines))}.",
        )
    return engines[name](**options)


def engine_name(kind: type[EngineResource]) -> str:
    """An engine's name in YAML: ``WarmEngine`` is ``warm``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__.removesuffix("Engine")).lower()


def _resource(said: dict[str, Any]) -> KindlingResource:
    if "spark" in said:
        said["spark"] = SparkSettings(spark_config=said["spark"])
    if "engine" in said:
        said["engine"] = _engine(said["engine"])
    return KindlingResource(**said)


@scaffold_with(KindlingProjectScaffolder)
class KindlingProjectComponent(StateBackedComponent, Resolvable, Model):
    """A Kindling app as assets, streams and jobs.

    The app's manifest is the component's state: ``dg dev`` and ``dagster dev`` record it when the app's files
    have changed; ``dg utils refresh-defs-state`` records it anew, for an image for example. What is loaded from
    it starts neither Spark nor the app.

    Subclass it to change what an asset looks like (``get_asset_spec``) or what its step does (``execute``).

    Example::

        type: kindling_dagster.KindlingProjectComponent

        attributes:
          project: "{{ project_root }}/../flights"
          environment: local
          select: ["silver.*", "gold.*"]
          translation:
            group_name: "{{ entity.layer }}"
          resource:
            parallel: true
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    project: Annotated[
        str,
        Resolver(
            _path,
            model_field_type=str,
            description="The Kindling app: its directory, its app.py, or a package directory. "
            "A relative path counts from this file's directory.",
            examples=["{{ project_root }}/../flights"],
        ),
    ]
    environment: Annotated[
        str, Resolver.default(description="The Kindling environment whose settings apply.")
    ] = "local"
    config_dir: Annotated[
        str | None,
        Resolver(_path, model_field_type=str, description="A directory of settings that apps share."),
    ] = None
    packages: Annotated[
        list[str], Resolver.default(description="Import names to register besides those of lake-reqs.txt.")
    ] = Field(default_factory=list)
    working_dir: Annotated[
        str | None,
        Resolver(
            _path, model_field_type=str, description="Where the app runs; its own directory by default."
        ),
    ] = None
    form: Annotated[
        Literal["scaffold", "entry_point", "packages", "dynamic"] | None,
        Resolver.default(description="The app's form; found out when left out."),
    ] = None
    settings: Annotated[
        dict[str, Any],
        Resolver(
            rendered,
            model_field_type=dict[str, Any],
            description="Settings over all settings files, as `kindling app run --param` gives them.",
            examples=[{"kindling.execution.max_workers": 8}],
        ),
    ] = Field(default_factory=dict)
    select: Annotated[
        str | list[str] | None,
        Resolver.default(
            description="Batch assets to take: Kindling ids with globs, tag:name=value, Dagster's selection syntax.",
            examples=["gold.*", ["silver.*", "tag:layer=gold"]],
        ),
    ] = None
    exclude: Annotated[
        str | list[str] | None, Resolver.default(description="The same, for what to leave out.")
    ] = None
    translation: Annotated[
        TranslationFn[AssetData] | None,
        TranslationFnResolver[AssetData](
            lambda data: {"data": data, "entity": data.entity, "pipes": data.pipes, "manifest": data.manifest}
        ),
    ] = None
    translation_settings: Annotated[
        TranslatorSettings,
        resolver_of(
            attribute_model(TranslatorSettings),
            dataclass_from(TranslatorSettings),
            "How the default look of an asset comes about.",
        ),
    ] = Field(default_factory=TranslatorSettings)
    streams: Annotated[
        bool,
        Resolver.default(description="Add the app's streams, with the jobs and sensors that keep them up."),
    ] = True
    streams_resource: Annotated[
        dict[str, Any],
        resolver_of(
            _StreamsAttributes,
            dict,
            "Where the streams' store is, and how all streams are started and watched.",
            secrets=("store_url",),
        ),
    ] = Field(default_factory=dict)
    supervisor: Annotated[
        SupervisorPolicy | None,
        resolver_of(
            attribute_model(SupervisorPolicy),
            dataclass_from(SupervisorPolicy),
            "How stream hosts are launched.",
        ),
    ] = None
    dimensions: Annotated[
        DimensionPolicy | None,
        resolver_of(
            _DimensionAttributes,
            dataclass_from(DimensionPolicy),
            "How changes of what streams join with are seen, and when they restart streams.",
        ),
    ] = None
    checks: Annotated[
        bool, Resolver.default(description="Add the checks that follow from what the entities declare.")
    ] = True
    lineage: Annotated[
        dict[str, Any],
        resolver_of(
            attribute_model(LineageSettings), dict, "Version lineage: over the app's kindling.lineage.*"
        ),
    ] = Field(default_factory=dict)
    lineage_audit: Annotated[
        bool,
        Resolver.default(description="Add the check lineage_freshness, and a schedule that evaluates it."),
    ] = False
    op: Annotated[
        OpSpec | None,
        Resolver.default(
            description="The step that materializes the batch assets.",
            examples=[{"name": "flights", "tags": {"team": "lake"}, "pool": "spark"}],
        ),
    ] = None
    resource: Annotated[
        _Resource,
        resolver_of(
            _ResourceAttributes,
            _resource,
            "Spark's settings, the engine and execution options: the fields of KindlingResource.",
            secrets=("spark", "storage_options"),
        ),
    ] = Field(default_factory=KindlingResource)
    resource_key: Annotated[
        str,
        Resolver.default(description="Key of the resource; another one for each app of a code location."),
    ] = "kindling"
    executor: Annotated[
        Literal["in_process", "default"],
        Resolver.default(
            description="in_process makes Dagster's in-process executor that of the code location; "
            "default leaves it alone."
        ),
    ] = "in_process"
    defs_state: ResolvedDefsStateConfig = Field(default_factory=DefsStateConfigArgs.local_filesystem)

    _loading: bool = PrivateAttr(default=False)

    @property
    def defs_state_config(self) -> DefsStateConfig:
        """Where the manifest is kept; by default in a file of the Dagster project, not under version control."""
        name = _name_of(Path(self.project))
        said = {"packages": self.packages, "form": self.form, "settings": self.project_settings}
        if any(said.values()):
            # No path of this machine goes into it: an image may be built on another.
            name += (
                f":{hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:8]}"
            )
        return DefsStateConfig.from_args(
            self.defs_state, default_key=f"{type(self).__name__}[{name}:{self.environment}]"
        )

    @property
    def project_settings(self) -> dict[str, Any]:
        """What the project is given over the app's settings: ``settings`` and ``lineage``."""
        lineage = dict(self.lineage)
        layers = {f"layer.{layer}": said for layer, said in dict(lineage.pop("by_layer", None) or {}).items()}
        return {
            **self.settings,
            **{f"kindling.lineage.{key}": item for key, item in {**lineage, **layers}.items()},
        }

    def kindling_project(self, manifest: Path | None = None) -> KindlingProject:
        """The app, with the manifest that it loads instead of being recorded."""
        return KindlingProject(
            self.project,
            environment=self.environment,
            config_dir=self.config_dir,
            packages=self.packages,
            manifest=manifest,
            working_dir=self.working_dir,
            form=self.form,
            settings=self.project_settings,
        )

    def get_asset_spec(self, data: AssetData) -> AssetSpec:
        """What one asset looks like: the default, then ``translation``. Override it to go further.

        Dependencies of ``translation`` add to those that the pipes declare.
        """
        spec = DagsterKindlingTranslator(self.translation_settings).get_asset_spec(data)
        return spec if self.translation is None else self.translation(spec, data)

    def execute(
        self, context: AssetExecutionContext, kindling: KindlingResource
    ) -> Iterator[MaterializeResult[Any]]:
        """What the step does. Override it to do something before, after or instead."""
        yield from kindling.run(context).stream()

    def build_defs(self, context: ComponentLoadContext) -> Definitions:
        """The app's definitions. Takes the manifest from the cache where a refresh would make the same one."""
        self._loading = True
        try:
            return super().build_defs(context)
        finally:
            self._loading = False

    def write_state_to_path(self, state_path: Path) -> None:
        """Write the app's manifest.

        Raises:
            KindlingDagsterError: The app cannot be loaded.
        """
        # Who asks for a refresh may know of a change that the app's files do not show.
        self.kindling_project().load_manifest(refresh=not self._loading).write(state_path)

    def build_defs_from_state(self, context: ComponentLoadContext, state_path: Path | None) -> Definitions:  # noqa: ARG002
        """The definitions that a manifest stands for; where there is none yet, the app is recorded.

        Raises:
            KindlingDagsterError: The app cannot be loaded, its pipes go in a circle, or a selection fits nothing.
        """
        project = self.kindling_project(None if state_path is None else self._lasting(state_path))
        translator = ComponentTranslator(self, self.translation_settings)
        defs = build_kindling_definitions(
            project,
            select=self.select,
            exclude=self.exclude,
            translator=translator,
            resource=self.resource,
            resource_key=self.resource_key,
            streams=self.streams,
            streams_resource=KindlingStreamsResource(project, **self.streams_resource),
            supervisor=self.supervisor,
            dimensions=self.dimensions,
            checks=self.checks,
            op=self._op(),
            executor=in_process_executor if self.executor == "in_process" else None,
        )
        if not self.lineage_audit:
            return defs
        checks = build_lineage_checks(project, translator=translator)
        audit = [build_lineage_audit(project, checks)] if checks else []
        return Definitions.merge(defs, Definitions(asset_checks=checks, schedules=audit))

    def _op(self) -> OpSettings:
        op = self.op or OpSpec()
        return OpSettings(
            name=op.name,
            description=op.description,
            tags=op.tags or {},
            pool=op.pool,
            backfill_policy=op.backfill_policy,
            run=self.execute,
        )

    def _lasting(self, state_path: Path) -> Path | None:
        """The state as a file that is there when a step or a host reads it."""
        if self.defs_state.management_type.value == "LOCAL_FILESYSTEM":
            return state_path
        # Dagster hands out a temporary copy of what is kept elsewhere.
        manifest = Manifest.read(state_path)
        cache, app = ManifestCache.default(), manifest.app.name
        cache.put(app, manifest.content_hash, manifest)
        kept = cache.path(app, manifest.content_hash)
        return kept if kept.is_file() else None
