"""The one place that decides what a Kindling entity looks like in Dagster."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from dagster import (
    AssetCheckSpec,
    AssetDep,
    AssetKey,
    AssetSpec,
    AutomationCondition,
    BetaWarning,
    CodeReferencesMetadataValue,
    FreshnessPolicy,
    LocalFileCodeReference,
    PartitionsDefinition,
    TableColumn,
    TableColumnConstraints,
    TableSchema,
)

from kindling_dagster.conditions import AUTOMATION_TAG, condition_of, freshness_of
from kindling_dagster.manifest import EntitySpec, IngestionSpec, Manifest, PipeSpec
from kindling_dagster.partitions import declared_columns, declared_partitions
from kindling_dagster.project import KindlingProject
from kindling_dagster.table_checks.declared import MAX_AGE_TAG, parse_age

# Code references are beta in Dagster; used on purpose, and not worth a line per asset.
warnings.filterwarnings("ignore", category=BetaWarning, module=__name__)

ENTITY_METADATA = "kindling/entity"
PIPES_METADATA = "kindling/pipes"
IO_MANAGER_METADATA = "dagster/io_manager_key"
"""Where ``AssetSpec.with_io_manager_key`` notes it."""

_KEY_CHARACTER = re.compile(r"[^A-Za-z0-9_.\-]")
_SECRET = re.compile(r"^@secret[:\s]")
_TAG_PART = re.compile(r"[^A-Za-z0-9_.\-]")
# Tags that configure a provider: paths, connection strings, formats. They belong to the location.
_PROVIDER_TAG = re.compile(r"^provider(\.|_type$)")
_MAX_TAG_LENGTH = 63


@dataclass(frozen=True)
class TranslatorSettings:
    """What the default translator does, as plain settings.

    Args:
        code_references: Link each asset to the file and line of its pipe.
        owner_tag: Kindling tag that names owners, comma-separated: e-mail addresses or team names.
        description_tag: Kindling tag that describes an entity, used beside the pipes' docstrings.
        external_group: Group of entities that no pipe of the app writes; empty for their layer.
        automation: By layer, the condition on which batch assets are materialized, as the tag
            ``dagster/automation`` of a single entity says it: ``eager``, ``on_cron 0 6 * * *``, ``on_missing``,
            ``on_dimension_change`` or ``none``.
    """

    code_references: bool = True
    owner_tag: str = "owner"
    description_tag: str = "description"
    external_group: str = ""
    automation: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AssetData:
    """What the translator is told about one asset.

    One record, so that a later version can say more without changing a hook's signature.

    Args:
        manifest: Everything the app declares.
        entity: The entity that the asset stands for.
        pipes: The pipes that write it, in the order in which they run; none for an external asset.
        upstream: Ids of the entities it depends on.
        deps: Keys of the assets it depends on, as ``get_deps`` gave them; empty while that is asked.
        ingestion: The file ingestion entries that fill it, where no pipe writes it.
        project: The app, for what only this machine knows: files, and where relative paths count from.
        io_manager_key: Key of the I/O manager through which other assets take it as an input; empty for
            Dagster's default.
    """

    manifest: Manifest
    entity: EntitySpec
    pipes: tuple[PipeSpec, ...] = ()
    upstream: tuple[str, ...] = ()
    project: KindlingProject | None = None
    deps: tuple[AssetKey, ...] = ()
    ingestion: tuple[IngestionSpec, ...] = ()
    io_manager_key: str = ""

    @property
    def working_dir(self) -> Path | None:
        """Where relative storage paths count from; None when not known."""
        return None if self.project is None else self.project.working_dir


@dataclass(frozen=True)
class CheckData:
    """What the translator is told about one asset check: its asset, a name and what it checks."""

    asset: AssetData
    name: str
    description: str = ""
    blocking: bool = False


class DagsterKindlingTranslator:
    """Turns what Kindling declares into what Dagster shows.

    Subclass it and override one hook; everything that must agree (specs, dependencies, checks,
    events, selections) goes through the same hooks::

        class Prefixed(DagsterKindlingTranslator):
            def get_asset_key(self, data: AssetData) -> AssetKey:
                return super().get_asset_key(data).with_prefix("lake")
    """

    def __init__(self, settings: TranslatorSettings | None = None) -> None:
        self.settings = settings or TranslatorSettings()

    def get_asset_key(self, data: AssetData) -> AssetKey:
        """The asset's key: the entity id split on dots, with ``_`` for what Dagster takes in no name of an output."""
        return _key_of(data.entity.id)

    def get_asset_spec(self, data: AssetData) -> AssetSpec:
        """The asset's spec; its dependencies are those of ``get_deps``.

        An override usually calls ``super()`` and ``replace_attributes`` or ``merge_attributes``.
        The key is ``get_asset_key``'s: override that to change keys.
        """
        return AssetSpec(
            key=self.get_asset_key(data),
            deps=[_dep_on(key) for key in data.deps],
            description=self._description(data),
            group_name=self._group(data),
            kinds=self._kinds(data),
            tags=self._tags(data),
            owners=self._owners(data),
            code_version=self._code_version(data),
            metadata=self._metadata(data),
            skippable=bool(data.pipes or data.ingestion),
            automation_condition=self.get_automation_condition(data),
            freshness_policy=self.get_freshness_policy(data),
        )

    def get_deps(self, data: AssetData, key_of: Callable[[str], AssetKey]) -> Sequence[AssetKey]:
        """Keys of the assets it depends on. ``key_of`` gives the key of an entity id."""
        return [key_of(entity_id) for entity_id in data.upstream]

    def get_partitions_def(self, data: AssetData) -> PartitionsDefinition[str] | None:
        """The asset's partitions: by time, static or dynamic; those of its tags ``dagster/partitions`` by default.

        A run of some of them reads what belongs to them and replaces or merges nothing else; partitions that
        would not hold that are refused when the definitions are made.
        """
        return declared_partitions(data.entity)

    def get_partition_columns(self, data: AssetData) -> Mapping[str, str]:
        """Of a partitioned asset, by input entity the column that tells a row's partition.

        What is not named is read whole. By default the column of the entity's tag
        ``dagster/partition_column``, in the inputs that drive its pipes.
        """
        return declared_columns(data.entity, data.pipes)

    def get_automation_condition(self, data: AssetData) -> AutomationCondition[Any] | None:
        """On what the asset is materialized by itself: its tag ``dagster/automation``, else its layer's setting.

        Only of batch assets; streams are kept running by their supervisor.
        """
        if not data.pipes or any(pipe.streaming for pipe in data.pipes):
            return None
        entity = data.entity
        said = entity.tags.get(AUTOMATION_TAG)
        where = f"{AUTOMATION_TAG} of entity {entity.id}"
        if said is None:
            said = self.settings.automation.get(entity.layer, "")
            where = f"The automation of the layer {entity.layer}"
        return condition_of(said, where, _dimension_keys(data))

    def get_freshness_policy(self, data: AssetData) -> FreshnessPolicy | None:
        """How old the last materialization may be: the tag ``dagster/max_age`` of an entity that a pipe writes."""
        said = data.entity.tags.get(MAX_AGE_TAG)
        if said is None or not data.pipes:
            return None
        where = f"{MAX_AGE_TAG} of entity {data.entity.id}"
        return freshness_of(parse_age(said, where), where)

    def get_asset_check_spec(self, data: CheckData) -> AssetCheckSpec:
        """The spec of one check of the asset."""
        return AssetCheckSpec(
            name=data.name,
            asset=self.get_asset_key(data.asset),
            description=data.description or None,
            blocking=data.blocking,
        )

    def _group(self, data: AssetData) -> str:
        layer = data.entity.layer
        if not data.pipes and self.settings.external_group:
            layer = self.settings.external_group
        return _in_words(layer) or "default"

    def _kinds(self, data: AssetData) -> set[str]:
        kinds = {"kindling", _in_words(data.entity.provider)}
        if data.pipes:
            kinds.add("sql" if all(pipe.kind == "view" for pipe in data.pipes) else "pyspark")
        return kinds

    def _tags(self, data: AssetData) -> dict[str, str]:
        tags: dict[str, str] = {}
        for source in (*(pipe.tags for pipe in data.pipes), data.entity.tags):
            tags.update(valid_tags(source))
        return tags

    def _owners(self, data: AssetData) -> list[str]:
        named: dict[str, None] = {}
        for tags in (data.entity.tags, *(pipe.tags for pipe in data.pipes)):
            for owner in str(tags.get(self.settings.owner_tag, "")).split(","):
                if owner.strip():
                    named[_valid_owner(owner.strip())] = None
        return list(named)

    def _description(self, data: AssetData) -> str | None:
        texts = [data.entity.tags.get(self.settings.description_tag, ""), data.entity.description]
        texts += [pipe.description for pipe in data.pipes]
        distinct = dict.fromkeys(text.strip() for text in texts if text and text.strip())
        return "\n\n".join(distinct) or None

    def _code_version(self, data: AssetData) -> str | None:
        versions = [pipe.code_version for pipe in data.pipes if pipe.code_version]
        if len(versions) <= 1:
            return versions[0][:16] if versions else None
        return hashlib.sha256("".join(versions).encode()).hexdigest()[:16]

    def _metadata(self, data: AssetData) -> dict[str, Any]:
        entity = data.entity
        metadata: dict[str, Any] = {ENTITY_METADATA: entity.id}
        if data.pipes:
            metadata[PIPES_METADATA] = [pipe.id for pipe in data.pipes]
        if entity.merge_columns:
            metadata["kindling/merge_columns"] = ", ".join(entity.merge_columns)
        if entity.partition_columns:
            metadata["kindling/partition_columns"] = ", ".join(entity.partition_columns)
        if entity.schema:
            metadata["dagster/column_schema"] = table_schema(entity.schema)
        metadata["dagster/storage_kind"] = entity.provider
        metadata |= _location_metadata(data)
        references = self._code_references(data)
        if references:
            metadata["dagster/code_references"] = CodeReferencesMetadataValue(code_references=references)
        if data.io_manager_key:
            metadata[IO_MANAGER_METADATA] = data.io_manager_key
        return metadata

    def _code_references(self, data: AssetData) -> list[Any]:
        if not self.settings.code_references or data.project is None:
            return []
        found: list[Any] = []
        for label, source in [(pipe.id, pipe.source) for pipe in data.pipes] or [
            (data.entity.id, data.entity.source)
        ]:
            path = None if source is None else data.project.source_path(source)
            if source is not None and path is not None:
                found.append(
                    LocalFileCodeReference(file_path=str(path), line_number=source.line, label=label)
                )
        return found


def _dimension_keys(data: AssetData) -> list[AssetKey]:
    """Keys of the inputs that drive none of the asset's pipes."""
    driving = {entity_id for pipe in data.pipes for entity_id in pipe.driving_entity_ids}
    if len(data.deps) != len(data.upstream):
        return []  # an override of get_deps has dependencies of its own
    return [key for id_, key in zip(data.upstream, data.deps, strict=True) if id_ not in driving]


# What follows is asked for thousands of assets that have much in common: layers, providers, tags, columns.


@lru_cache(maxsize=65536)  # asked for each asset, as a dependency, and for each of its checks
def _key_of(entity_id: str) -> AssetKey:
    return AssetKey(_KEY_CHARACTER.sub("_", entity_id).split("."))


@lru_cache(maxsize=65536)
def _dep_on(key: AssetKey) -> AssetDep:
    return AssetDep(key)


@lru_cache(maxsize=1024)
def _in_words(text: str) -> str:
    return re.sub(r"\W", "_", text, flags=re.ASCII)


def valid_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Kindling's tags as Dagster takes them.

    Characters that Dagster refuses become ``_`` and values are cut at 63; secrets, provider options
    (paths, connection strings) and Dagster's own namespace are left out.
    """
    valid = (_valid_tag(key, str(value)) for key, value in tags.items())
    return dict(tag for tag in valid if tag is not None)


@lru_cache(maxsize=4096)
def _valid_tag(key: str, text: str) -> tuple[str, str] | None:
    namespace, slash, name = key.rpartition("/")
    if not name or _SECRET.match(text) or _PROVIDER_TAG.match(key) or key.startswith("dagster/"):
        return None
    clean = _TAG_PART.sub("_", name)[:_MAX_TAG_LENGTH]
    if slash and namespace:
        clean = f"{_TAG_PART.sub('_', namespace)[:_MAX_TAG_LENGTH]}/{clean}"
    return clean, _TAG_PART.sub("_", text)[:_MAX_TAG_LENGTH]


def _valid_owner(owner: str) -> str:
    if re.fullmatch(r"[\w.+-]+@[\w-]+(\.[\w-]+)*\.[A-Za-z]{2,}", owner, re.ASCII):
        return owner
    return "team:" + re.sub(r"\W", "_", owner.removeprefix("team:"))


def table_schema(fields: Iterable[Mapping[str, Any]]) -> TableSchema:
    """Dagster's table schema from Spark's JSON fields."""
    return TableSchema(
        columns=[
            _table_column(
                str(column["name"]),
                _type_text(column.get("type", "")),
                (column.get("metadata") or {}).get("comment"),
                bool(column.get("nullable", True)),
            )
            for column in fields
        ]
    )


@lru_cache(maxsize=4096)
def _table_column(name: str, type_: str, comment: str | None, nullable: bool) -> TableColumn:
    return TableColumn(
        name=name,
        type=type_,
        description=comment,
        constraints=TableColumnConstraints(nullable=nullable),
    )


def _type_text(spark_type: object) -> str:
    if isinstance(spark_type, str):
        return spark_type
    if isinstance(spark_type, Mapping):
        match spark_type.get("type"):
            case "array":
                return f"array<{_type_text(spark_type['elementType'])}>"
            case "map":
                return f"map<{_type_text(spark_type['keyType'])},{_type_text(spark_type['valueType'])}>"
            case "struct":
                inner = (f"{field['name']}:{_type_text(field['type'])}" for field in spark_type["fields"])
                return f"struct<{','.join(inner)}>"
    return json.dumps(spark_type)


def _location_metadata(data: AssetData) -> dict[str, Any]:
    location = data.entity.location
    match location.kind:
        case "path":
            return {"dagster/uri": location_uri(location.value, data.working_dir)}
        case "table":
            return {"dagster/table_name": location.value}
        case "secret":
            return {"kindling/location": f"in the secret {location.value}"}
        case "memory":
            return {"kindling/location": "memory of the run's Spark session"}
    return {}


def location_uri(value: str, working_dir: Path | None) -> str:
    """A storage path as an absolute URI or path; relative ones count from ``working_dir``."""
    if "://" in value or value.startswith(("dbfs:", "file:")) or os.path.isabs(value):  # noqa: PTH117
        return value
    return value if working_dir is None else str(working_dir / value)
