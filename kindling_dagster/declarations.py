"""From Kindling's registries to a Manifest: the one place that reads declarations, recorded or live."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kindling_dagster.apps import AppLayout
from kindling_dagster.code_version import CodeVersions, plain_function
from kindling_dagster.manifest import (
    AppRef,
    EntitySpec,
    IngestionSpec,
    Location,
    Manifest,
    PipeSpec,
    Problem,
    SourceRef,
)
from kindling_dagster.problems import find_problems
from kindling_dagster.registries import (
    RecordingEntities,
    RecordingIngestion,
    RecordingPipes,
    Sites,
    view_parts,
)
from kindling_dagster.secrets import SecretBook, find_secret
from kindling_dagster.sql_tables import entities_read

LAYERS = ("landing", "raw", "bronze", "silver", "gold", "ref", "reference", "staging", "intermediate", "mart")
"""First segments of an id that name a layer."""

SETTING_PREFIXES = (
    "kindling.execution",
    "kindling.storage",
    "kindling.delta",
    "kindling.streaming",
    "kindling.dagster",
    "kindling.signals",
    "kindling.lineage",
    "spark_configs",
)
"""The settings a manifest carries: those that matter for planning and running."""

_NO_LOCATION = ("view", "current_view", "eventhub", "adx-api")


@dataclass(frozen=True)
class Registries:
    """Kindling's services an app was registered with."""

    entities: RecordingEntities
    pipes: RecordingPipes
    ingestion: RecordingIngestion
    config: Any
    providers: Any
    path_locator: Any
    name_mapper: Any


@dataclass
class ManifestBuilder:
    """Turns registries into a Manifest.

    Args:
        registries: What the app registered with.
        layout: Where the app is.
        environment: The environment it was registered in.
        recorded_by: ``recorder`` or ``initialized``.
        secrets: What is known of secrets; keeps their values out.
    """

    registries: Registries
    layout: AppLayout
    environment: str
    recorded_by: str
    secrets: SecretBook
    _problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._code = CodeVersions(self.layout.source_dirs, self.layout.python_paths)

    def build(self) -> Manifest:
        """The manifest, with the problems of the declarations in it."""
        entities = tuple(self._entity(item_id) for item_id in self._available_entities())
        entities = self._with_sql_inputs(entities)
        registry = self.registries.pipes
        available = [
            item_id for item_id in registry.get_pipe_ids() if item_id not in registry.pending_derivations()
        ]
        pipes = tuple(self._pipe(item_id) for item_id in available)
        ingestion = tuple(self._entry(item_id) for item_id in self.registries.ingestion.get_entry_ids())
        functions = {item_id: registry.get_pipe_definition(item_id).execute for item_id in available}
        writable = {entity.provider: self._writable(entity.provider) for entity in entities}
        self._problems += find_problems(
            entities, pipes, ingestion, functions, self._pending(), writable, self.layout
        )
        return Manifest(
            app=AppRef(
                name=self.layout.name,
                environment=self.environment,
                form="dynamic" if self.recorded_by == "initialized" else self.layout.form,
                recorded_by=self.recorded_by,
                kindling_version=version("spark-kindling"),
                packages=self.layout.packages,
            ),
            entities=entities,
            pipes=pipes,
            ingestion=ingestion,
            settings=self._settings(),
            secrets=self.secrets.references(),
            problems=tuple(self._problems),
        )

    def _available_entities(self) -> list[str]:
        registry = self.registries.entities
        return [
            item_id for item_id in registry.get_entity_ids() if item_id not in registry.pending_derivations()
        ]

    def _writable(self, provider: str) -> bool | None:
        """Whether a provider can be written; None when Kindling knows no such provider."""
        from kindling.entity_provider import WritableEntityProvider

        found = self.registries.providers.get_provider_class(provider)
        return None if found is None else issubclass(found, WritableEntityProvider)

    def _pending(self) -> dict[str, tuple[str, str]]:
        """Derivations whose source is missing: id to (kind, reason)."""
        found: dict[str, tuple[str, str]] = {}
        for kind, registry in (("entity", self.registries.entities), ("pipe", self.registries.pipes)):
            found.update({item_id: (kind, why) for item_id, why in registry.pending_derivations().items()})
        return found

    def _entity(self, item_id: str) -> EntitySpec:
        registry = self.registries.entities
        entity = registry.get_entity_definition(item_id)
        tags = self._tags(item_id, entity.tags, registry.declared.raw_tags)
        provider = "view" if entity.sql is not None else tags.get("provider_type", "delta")
        companion_of = tags.get("scd.companion_of", "")
        clone_of = _clone_of(registry.derivations_for(item_id))
        sites = registry.declared.sites
        declared_at = sites.get(companion_of or item_id) or sites.get(clone_of, ())
        return EntitySpec(
            id=item_id,
            name=str(entity.name),
            provider=provider,
            location=self._location(entity, provider, tags),
            tags=tags,
            merge_columns=_columns(entity.merge_columns),
            partition_columns=_columns(entity.partition_columns),
            cluster_columns=_columns(entity.cluster_columns),
            schema=self._schema(item_id, entity.schema),
            layer=layer_of(item_id, tags),
            kind=_entity_kind(entity, tags),
            scd2=tags.get("scd.type", "").strip() == "2",
            companion_of=companion_of,
            sql=None if entity.sql is None else self.secrets.mask(entity.sql),
            clone_of=clone_of,
            description=tags.get("description") or tags.get("comment") or "",
            source=self._site(declared_at),
        )

    def _tags(self, item_id: str, tags: Any, raw: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        written = raw.get(item_id, {})
        return {
            str(key): self.secrets.unresolved(str(key), tag_text(value), tag_text(written.get(key)))
            for key, value in (tags or {}).items()
        }

    def _schema(self, item_id: str, schema: Any) -> tuple[Mapping[str, Any], ...] | None:
        from pyspark.sql.types import StructType

        if not schema:
            return None
        try:
            struct = schema if isinstance(schema, StructType) else StructType(list(schema))
            fields: list[dict[str, Any]] = struct.jsonValue()["fields"]
        except Exception as error:  # whatever pyspark raises on what is no list of fields
            self._problems.append(
                Problem(
                    "error",
                    item_id,
                    f"The schema of entity {item_id!r} is no Spark schema: {type(error).__name__}: {error}.",
                    "Declare schema= as a StructType or a list of StructFields.",
                )
            )
            return None
        return tuple(fields)

    def _location(self, entity: Any, provider: str, tags: Mapping[str, str]) -> Location:
        """Where the entity's data is; asks Kindling's own locator and name mapper."""
        if provider == "memory":
            return Location("memory")
        if provider in _NO_LOCATION or tags.get("scd.companion_of"):
            return Location("none")
        if provider == "delta" and self._access_mode(tags) == "catalog":
            name = tags.get("provider.table_name") or self._ask(
                self.registries.name_mapper.get_table_name, entity
            )
            return Location("table", name) if name else Location("none")
        path = tags.get("provider.path")
        if not path and provider == "delta":
            path = self._ask(self.registries.path_locator.get_table_path, entity)
        if not path:
            return Location("none")
        secret = find_secret(path)
        return Location("secret", secret) if secret else Location("path", path)

    def _access_mode(self, tags: Mapping[str, str]) -> str:
        configured = str(self.registries.config.get("kindling.delta.access_mode") or "catalog")
        stated = tags.get("provider.access_mode", "")
        return stated if stated in ("catalog", "storage") else configured.lower()

    def _ask(self, locate: Callable[[Any], Any], entity: Any) -> str:
        try:
            return self.secrets.mask(str(locate(entity) or ""))
        except Exception as error:  # a locator of the app's own may raise anything
            message = (
                f"Where entity {entity.entityid!r} is stored is not known: {type(error).__name__}: {error}."
            )
            self._problems.append(Problem("warning", entity.entityid, message, "Set its tag provider.path."))
            return ""

    def _with_sql_inputs(self, entities: tuple[EntitySpec, ...]) -> tuple[EntitySpec, ...]:
        from dataclasses import replace

        if not any(entity.sql for entity in entities):
            return entities
        names: dict[str, str] = {}
        for spec in entities:
            definition = self.registries.entities.get_entity_definition(spec.id)
            table = self._ask(self.registries.name_mapper.get_table_name, definition)
            for name in (spec.name, table, spec.location.value, spec.id.replace(".", "_"), spec.id):
                if name:
                    names[name.lower()] = spec.id
        return tuple(
            replace(entity, sql_inputs=_without(entity.id, entities_read(entity.sql, names)))
            if entity.sql
            else entity
            for entity in entities
        )

    def _pipe(self, item_id: str) -> PipeSpec:
        registry = self.registries.pipes
        pipe = registry.get_pipe_definition(item_id)
        tags = self._tags(item_id, pipe.tags, registry.declared.raw_tags)
        functions, parts = pipe_functions(pipe.execute)
        sql, read_problem = _view_sql(item_id, parts)
        if read_problem is not None:
            self._problems.append(read_problem)
        derivations = registry.derivations_for(item_id)
        inputs = tuple(pipe.input_entity_ids or ())
        return PipeSpec(
            id=item_id,
            name=str(pipe.name or item_id),
            input_entity_ids=inputs,
            output_entity_id=str(pipe.output_entity_id),
            output_type=str(pipe.output_type),
            driving_entity_ids=tuple(pipe.driving_entity_ids or inputs[:1]),
            use_watermark=bool(pipe.use_watermark),
            tags=tags,
            kind="view" if parts else "python",
            parameters=function_parameters(pipe.execute),
            description=_description(functions),
            code_version=self._code.of(functions, [sql] if sql else []),
            clone_of=_clone_of(derivations),
            extended=any(not derivation.is_clone for derivation in derivations),
            sql=None if sql is None else self.secrets.mask(sql),
            source=self._function_site(functions, bool(parts)) or self._site(self._pipe_sites(item_id)),
        )

    def _pipe_sites(self, item_id: str) -> Sites:
        return self.registries.pipes.declared.sites.get(item_id, ())

    def _function_site(self, functions: list[Callable[..., Any]], is_view: bool) -> SourceRef | None:
        for function in functions[:1]:
            plain = plain_function(function)
            code = getattr(plain, "__code__", None)
            if code is not None and not is_view:
                return self._source(code.co_filename, code.co_firstlineno, str(plain.__module__))
        return None

    def _site(self, sites: Sites) -> SourceRef | None:
        return self._source(sites[0].file, sites[0].line, sites[0].module) if sites else None

    def _source(self, file: str, line: int, module: str) -> SourceRef:
        path = Path(file)
        if path.is_relative_to(self.layout.root):
            return SourceRef(module, path.relative_to(self.layout.root).as_posix(), line)
        for root in self.layout.source_dirs:
            if path.is_relative_to(root):
                return SourceRef(module, path.relative_to(root.parent).as_posix(), line, in_app=False)
        top = module.split(".")[0]
        parts = path.parts
        start = max((i for i, part in enumerate(parts) if part == top), default=len(parts) - 1)
        return SourceRef(module, "/".join(parts[start:]), line, in_app=False)

    def _entry(self, item_id: str) -> IngestionSpec:
        entry = self.registries.ingestion.get_entry_definition(item_id)
        return IngestionSpec(
            id=item_id,
            name=str(entry.name),
            patterns=tuple(entry.patterns),
            dest_entity_id=str(entry.dest_entity_id),
            tags=self._tags(item_id, entry.tags, self.registries.ingestion.declared.raw_tags),
            filetype=str(entry.filetype),
            infer_schema=bool(entry.infer_schema),
            discovery=str(entry.discovery),
            source_glob=entry.source_glob,
        )

    def _settings(self) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for prefix in SETTING_PREFIXES:
            _flatten(prefix, self.registries.config.get(prefix), flat)
        return {key: flat[key] for key in sorted(flat) if not self.secrets.holds(flat[key])}


def layer_of(item_id: str, tags: Mapping[str, str]) -> str:
    """The layer of an entity: its tag ``layer``, else the first segment of its id if that names one; else empty."""
    stated = tags.get("layer", "").strip()
    if stated:
        return stated
    first = item_id.split(".")[0]
    return first if "." in item_id and first.lower() in LAYERS else ""


def tag_text(value: Any) -> str:
    """A tag's value as text: YAML may give booleans, numbers or structures where Kindling takes text."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool | Mapping | list | tuple):
        return json.dumps(value, default=str)
    return str(value)


def pipe_functions(execute: Callable[..., Any]) -> tuple[list[Callable[..., Any]], dict[str, Any]]:
    """The app's functions in a pipe, first the original, then what extensions put around it; and a view's parts."""
    added: list[Callable[..., Any]] = []
    while hasattr(execute, "__kindling_wrapped__"):
        names = execute.__code__.co_freevars
        cells = dict(zip(names, execute.__closure__ or (), strict=True))
        transform = cells["transform"].cell_contents
        if getattr(transform, "__module__", "") != "kindling.declaration_derivations":
            added.insert(0, transform)
        execute = execute.__kindling_wrapped__
    parts = view_parts(execute)
    first = [parts["post_fn"]] if parts and parts["post_fn"] is not None else [] if parts else [execute]
    return [*first, *added], parts


def function_parameters(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """Names a function takes by keyword; None when it takes any."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(parameter.name for parameter in parameters if parameter.kind in by_keyword)


def _description(functions: Iterable[Callable[..., Any]]) -> str:
    for function in functions:
        return inspect.getdoc(plain_function(function)) or ""
    return ""


def _view_sql(item_id: str, parts: Mapping[str, Any]) -> tuple[str | None, Problem | None]:
    if not parts:
        return None, None
    if parts["_sf"] is None:
        return str(parts["_sql"]), None
    try:
        return Path(parts["_sf"]).read_text(encoding="utf-8"), None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = (
            f"The SQL file of view pipe {item_id!r} cannot be read: {Path(parts['_sf']).name}: {reason}."
        )
        return None, Problem(
            "error", item_id, message, "sql_file= counts from the declaring module's directory."
        )


def _entity_kind(entity: Any, tags: Mapping[str, str]) -> str:
    if entity.sql is not None and not tags.get("scd.companion_of"):
        return "sql"
    if tags.get("scd.companion_of"):
        return "companion"
    if tags.get("dataset.kind", "").strip().lower() == "derived":
        return "derived"
    return "insert_only" if tags.get("write.mode", "").strip().lower() == "insert" else "state"


def _clone_of(derivations: Iterable[Any]) -> str:
    return next((str(derivation.clone_of) for derivation in derivations if derivation.is_clone), "")


def _columns(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(item) for item in value)


def _without(own_id: str, entity_ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(entity_id for entity_id in entity_ids if entity_id != own_id)


def _flatten(key: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for name in value:
            _flatten(
                f"{key}.{name}" if key == "spark_configs" else f"{key}.{str(name).lower()}", value[name], into
            )
    elif isinstance(value, list | tuple):
        into[key] = [item if isinstance(item, str | int | float | bool) else str(item) for item in value]
    elif value is not None:
        into[key] = value if isinstance(value, str | int | float | bool) else str(value)
