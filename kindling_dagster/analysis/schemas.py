"""What a pipe will find when its turn comes: live schemas, declared ones, and those derived on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import sqlglot
from pyspark.sql.types import LongType, StructField, StructType, TimestampType
from sqlglot import exp

from kindling_dagster.analysis.sinks import Sink
from kindling_dagster.dag.failures import concise
from kindling_dagster.manifest import EntitySpec, Manifest
from kindling_dagster.runtime import KindlingRuntime

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# These are read where they are stored; whatever else there is (an event hub, a query service) is a
# service that costs, so that a declared schema is preferred to asking it.
_STORED = frozenset({"delta", "parquet", "csv", "memory"})
_VIEW_PREFIX = "__kindling_analysis_"


@dataclass(frozen=True)
class Known:
    """An entity's schema, and where it is from: ``live``, ``declared`` or ``derived``."""

    schema: StructType
    origin: str


@dataclass(frozen=True)
class Unknown:
    """Why an entity's schema is not known."""

    reason: str


class SchemaBook:
    """The schemas of an app's entities as a run over some pipes would find them, one pipe after the other.

    An entity that a pipe of the analysis has written before is what that write leaves: the table's
    columns and types with the output's new columns, or the output alone where it replaces the table.
    Any other is what its table has now; without a table, what the entity declares.

    Args:
        manifest: What the app declares.
        runtime: The app, started.
        spark: The session.
    """

    def __init__(self, manifest: Manifest, runtime: KindlingRuntime, spark: SparkSession) -> None:
        self._manifest = manifest
        self._runtime = runtime
        self._spark = spark
        self._derived: dict[str, StructType] = {}
        self._not_derived: dict[str, str] = {}
        self._live: dict[str, StructType | None] = {}

    def note_written(self, entity_id: str, schema: StructType) -> None:
        """A pipe has written the entity, which now has this schema."""
        self._derived[entity_id] = schema
        self._not_derived.pop(entity_id, None)

    def note_failed(self, entity_id: str, why: str) -> None:
        """What a pipe writes to the entity could not be derived."""
        if entity_id not in self._derived:
            self._not_derived[entity_id] = why

    def read(self, entity_id: str) -> Known | Unknown:
        """What a pipe that reads the entity now would find."""
        spec = self._manifest.entities_by_id.get(entity_id)
        if spec is None:
            return Unknown(f"{entity_id} is not declared")
        fixture = self._fixture(entity_id)
        if fixture is not None:
            return Known(fixture, "live")
        if spec.companion_of:
            return self.read(spec.companion_of)
        if spec.sql is not None:
            return self._read_sql(spec)
        if entity_id in self._derived:
            return Known(self._derived[entity_id], "derived")
        return self._stored_or_declared(spec)

    def _stored_or_declared(self, spec: EntitySpec) -> Known | Unknown:
        declared = self.declared(spec.id)
        if declared is not None and spec.provider not in _STORED:
            return Known(declared, "declared")
        try:
            live = self.live(spec.id)
        except Exception as error:
            if declared is None:
                text = f"{type(error).__name__}: {concise(str(error))}"
                return Unknown(f"{spec.id} cannot be read ({text})")
            live = None  # what it declares will do: that it cannot be read now is for the run to say
        if live is not None:
            return Known(live, "live")
        if declared is not None:
            return Known(declared, "declared")
        nothing = f"{spec.id} has no table yet and declares no schema"
        why = self._not_derived.get(spec.id)
        return Unknown(f"of {spec.id}: {why}, and {nothing}" if why else nothing)

    def live(self, entity_id: str) -> StructType | None:
        """The schema of what is stored now; None when there is nothing. Raises what reading it raises."""
        if entity_id not in self._live:
            entity = self._runtime.entities.get_entity_definition(entity_id)
            provider = self._runtime.providers.get_provider_for_entity(entity)
            schema = provider.read_entity(entity).schema if provider.check_entity_exists(entity) else None
            # Kindling takes a table without columns for one whose schema is still to come.
            self._live[entity_id] = schema if schema is not None and schema.fields else None
        return self._live[entity_id]

    def declared(self, entity_id: str) -> StructType | None:
        """The schema a table of the entity is made with: declared columns, then those its writes add."""
        entity = self._runtime.entities.get_entity_definition(entity_id)
        return self.with_minted(entity_id, entity.schema) if entity.schema else None

    def with_minted(self, entity_id: str, schema: StructType) -> StructType:
        """A schema with the columns that writes to the entity make: SCD2's temporal ones, surrogate keys."""
        from kindling.data_entities import augment_schema_for_scd2, scd_config_from_tags
        from kindling.surrogate_keys import augment_schema_for_surrogate_keys

        entity = self._runtime.entities.get_entity_definition(entity_id)
        augmented = augment_schema_for_scd2(schema, scd_config_from_tags(entity))
        made: StructType = augment_schema_for_surrogate_keys(augmented, entity)
        return made

    def sink(self, entity_id: str) -> Sink:
        """The entity as the next write to it would meet it."""
        from kindling.data_entities import (
            derived_config_from_tags,
            scd_config_from_tags,
            surrogate_key_columns,
        )

        entity = self._runtime.entities.get_entity_definition(entity_id)
        provider = self._runtime.providers.get_provider_for_entity(entity)
        scd, derived = scd_config_from_tags(entity), derived_config_from_tags(entity)
        minted = [*surrogate_key_columns(entity)]
        if scd.enabled:
            minted += [scd.effective_from_column, scd.effective_to_column, scd.is_current_column]
        if entity.schema:
            # Pipes are looked at without the stamp that adds them in a run.
            minted += [name for name in self._runtime.lineage.columns if name in entity.schema.names]
        clusters = (
            [entity.cluster_columns] if isinstance(entity.cluster_columns, str) else entity.cluster_columns
        )
        sink = Sink(
            entity_id,
            mode="append",
            strict=self._manifest.entities_by_id[entity_id].provider == "delta",
            table=self._derived.get(entity_id) or self.live(entity_id),
            declared=self.declared(entity_id),
            keys=tuple(entity.merge_columns or ()),
            sequence=(scd.sequence_by or "") if scd.enabled else "",
            partitions=() if clusters else tuple(entity.partition_columns or ()),
            clusters=() if list(clusters or ()) == ["auto"] else tuple(clusters or ()),
            minted=tuple(minted),
            drift=str((entity.tags or {}).get("schema.drift") or "evolve").strip().lower(),
        )
        if derived.enabled:
            slices = tuple(derived.replace_keys or ())
            return replace(
                sink, mode="replace_slices" if slices else "replace", slice_keys=slices, drift="evolve"
            )
        # As Kindling's persist step decides it.
        write_mode = str((entity.tags or {}).get("write.mode") or "").strip().lower()
        merges = hasattr(provider, "merge_to_entity") and (
            write_mode in ("merge", "insert") or (not write_mode and bool(entity.merge_columns))
        )
        if merges:
            return replace(sink, mode="scd2" if scd.enabled else "merge")
        return sink

    # SQL entities

    def _read_sql(self, spec: EntitySpec) -> Known | Unknown:
        """The schema of a SQL entity's query, over empty frames in the place of the entities it reads."""
        from kindling.entity_provider_sql import require_query_sql

        sql = spec.sql or ""
        require_query_sql(sql, spec.id)
        found: dict[str, Known] = {}
        for source in spec.sql_inputs:
            known = self.read(source)
            if isinstance(known, Unknown):
                return known
            found[source] = known
        views = {source: f"{_VIEW_PREFIX}{number}" for number, source in enumerate(found)}
        try:
            for source, known in found.items():
                self._spark.createDataFrame([], known.schema).createOrReplaceTempView(views[source])
            schema = self._spark.sql(over_views(sql, self._names(spec), views)).schema
        finally:
            for name in views.values():
                self._spark.catalog.dropTempView(name)
        origins = {known.origin for known in found.values()}
        return Known(schema, next((each for each in ("derived", "declared") if each in origins), "live"))

    def _names(self, spec: EntitySpec) -> Mapping[str, str]:
        """The names, in lower case, by which the SQL may call the entities it reads."""
        names: dict[str, str] = {}
        for source in spec.sql_inputs:
            entity = self._runtime.entities.get_entity_definition(source)
            table = self._runtime.table_name(entity)
            location = self._manifest.entities_by_id[source].location.value
            for name in (entity.name, table, location, source.replace(".", "_"), source):
                if name:
                    names[name.lower()] = source
        return names

    # Kindling's fixtures

    def _fixture(self, entity_id: str) -> StructType | None:
        """The schema of a CSV file below tests/entities, which Kindling reads in an entity's place when it runs locally."""
        from kindling.entity_provider_csv import (
            FixtureCSVEntityProvider,
            fixture_csv_has_data_rows,
            resolve_fixture_csv_path,
        )

        path = resolve_fixture_csv_path(entity_id, Path.cwd())
        if path is None or not _runs_locally() or not fixture_csv_has_data_rows(path):
            return None
        entity = self._runtime.entities.get_entity_definition(entity_id)
        schema: StructType = FixtureCSVEntityProvider(path).read_entity(entity).schema
        return schema


def with_source_columns(schema: StructType) -> StructType:
    """The schema of an incremental read: Kindling adds the commit's version and time to each row."""
    added = [StructField("SourceVersion", LongType()), StructField("SourceTimestamp", TimestampType())]
    names = {column.name.lower() for column in added}
    return StructType([column for column in schema.fields if column.name.lower() not in names] + added)


def _runs_locally() -> bool:
    """Whether Kindling runs on its standalone platform, the only one where it looks for fixtures."""
    from kindling.injection import get_kindling_service
    from kindling.platform_provider import PlatformServiceProvider

    service = get_kindling_service(PlatformServiceProvider).get_service()
    return service is None or str(service.get_platform_name()).strip().lower() == "standalone"


def over_views(sql: str, names: Mapping[str, str], views: Mapping[str, str]) -> str:
    """The query with each entity's table replaced by its view; as it is where it reads no entity.

    Args:
        sql: A Spark SQL query.
        names: Entity ids by the names, in lower case, that the query may call them.
        views: Views by entity id.
    """
    if not views:
        return sql
    tree = sqlglot.parse_one(sql, dialect="spark")
    own = {cte.alias_or_name.lower() for cte in tree.find_all(exp.CTE)}

    for column in tree.find_all(exp.Column):
        # `silver.orders.id` must become `orders.id`: the view stands under the table's bare name.
        if column.args.get("db") and f"{column.args['db'].name}.{column.table}".lower() in names:
            column.set("db", None)
            column.set("catalog", None)
    for table in list(tree.find_all(exp.Table)):
        name = ".".join(part.name for part in table.parts).lower()
        source = names.get(name) or names.get(name.removeprefix("delta."), "")
        if name not in own and source in views:
            view = exp.to_table(views[source])
            alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name, quoted=True))
            view.set("alias", alias)
            table.replace(view)
    return tree.sql(dialect="spark")
