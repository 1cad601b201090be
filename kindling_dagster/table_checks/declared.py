"""Which checks a table gets, by what the app declares of it, its tags and the app's settings. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from kindling_dagster.delta_log import local_path
from kindling_dagster.errors import DeclarationError
from kindling_dagster.lineage.columns import lineage_column
from kindling_dagster.lineage.settings import LineageSettings
from kindling_dagster.manifest import EntitySpec, Manifest

NOT_NULL: Final = "merge_keys_not_null"
UNIQUE: Final = "merge_keys_unique"
SCHEMA: Final = "schema_drift"
HISTORY: Final = "scd2_history"
FRESHNESS: Final = "source_freshness"
NAMES: Final = (NOT_NULL, UNIQUE, SCHEMA, HISTORY, FRESHNESS)

TAG: Final = "dagster/checks"
"""On an entity: the checks it gets: ``true``, ``false`` or names."""
BLOCKING_TAG: Final = "dagster/blocking_checks"
"""On an entity: the checks that hold back what depends on it: ``true``, ``false`` or names."""
MAX_AGE_TAG: Final = "dagster/max_age"
"""On an entity that no pipe writes: how old its last data may be, such as ``26h``."""

_SETTINGS: Final = "kindling.dagster.checks."
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_EXAMPLES: Final = 5
# What makes files of data that can be looked at without Spark, or that Spark reads as one table.
_CHECKED: Final = ("delta",)
_WITH_FILES: Final = ("delta", "csv", "parquet", "json")


@dataclass(frozen=True)
class CheckSettings:
    """What an app says of checks, in ``kindling.dagster.checks.*``.

    Args:
        enabled: The checks that entities get unless they say otherwise.
        blocking: Those of them that hold back what depends on the entity.
        max_age: How old the last data of an entity that no pipe writes may be; None for no limit.
        examples: How many of the rows that fail a check are shown; 0 for none, where keys are secret.
    """

    enabled: frozenset[str] = frozenset(NAMES)
    blocking: frozenset[str] = frozenset()
    max_age: timedelta | None = None
    examples: int = _EXAMPLES

    @staticmethod
    def from_settings(settings: Mapping[str, Any]) -> CheckSettings:
        """Read the settings of a manifest (dotted keys).

        Raises:
            DeclarationError: A value is not what it should be; names the setting.
        """

        def said(name: str) -> tuple[Any, str]:
            return settings.get(_SETTINGS + name), _SETTINGS + name

        age, where = said("max_age")
        examples, examples_at = said("examples")
        try:
            shown = _EXAMPLES if examples is None else max(0, int(examples))
        except (TypeError, ValueError) as error:
            raise DeclarationError(f"{examples_at} is {examples!r}.", "Give a number.") from error
        return CheckSettings(
            enabled=_names(*said("enabled"), default=frozenset(NAMES)),
            blocking=_names(*said("blocking"), default=frozenset()),
            max_age=None if age is None else parse_age(age, where),
            examples=shown,
        )


@dataclass(frozen=True)
class History:
    """The columns of an SCD2 table that say when a row is valid; ``start`` belongs to it, ``end`` does not."""

    start: str
    end: str
    current: str


@dataclass(frozen=True)
class TableCheck:
    """One check of one entity's table.

    Args:
        entity_id: The entity.
        name: Which check, one of ``NAMES``.
        description: What it holds the table to.
        blocking: Whether it holds back what depends on the entity.
        keys: The merge columns.
        history: Where validity stands, for SCD2.
        schema: The declared columns, as Spark's JSON has them.
        made: Columns that writes may add to the declared ones.
        partitions: The declared partition columns; None where they are not compared.
        evolves: Whether writes may add columns (``schema.drift: evolve``).
        max_age: How old the last data may be.
        examples: How many failing rows are shown.
    """

    entity_id: str
    name: str
    description: str = ""
    blocking: bool = False
    keys: tuple[str, ...] = ()
    history: History | None = None
    schema: tuple[Mapping[str, Any], ...] = ()
    made: frozenset[str] = frozenset()
    partitions: tuple[str, ...] | None = None
    evolves: bool = True
    max_age: timedelta | None = None
    examples: int = _EXAMPLES

    @property
    def severe(self) -> bool:
        """Whether what it finds is an error in any case: the data is wrong. Else that is so only when blocking."""
        return self.blocking or self.name in (NOT_NULL, UNIQUE, HISTORY)


class DeclaredChecks:
    """The checks of an app's entities.

    Args:
        manifest: What the app declares.

    Raises:
        DeclarationError: A setting is not what it should be.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._settings = CheckSettings.from_settings(manifest.settings)
        self._written = frozenset(pipe.output_entity_id for pipe in manifest.pipes)
        # Columns of any layer may be carried on from what a pipe reads.
        layers = LineageSettings.from_settings(manifest.settings).layers
        self._lineage = frozenset(lineage_column(layer) for layer in layers)

    def of(self, entity_id: str) -> tuple[TableCheck, ...]:
        """The checks of one entity; none for one that is not declared.

        Raises:
            DeclarationError: A tag is not what it should be, or asks for a check that cannot be.
        """
        entity = self._manifest.entities_by_id.get(entity_id)
        if entity is None:
            return ()
        possible = {check.name: check for check in self._possible(entity)}
        where = f"of entity {entity.id}"
        stated = entity.tags.get(TAG)
        enabled = _names(stated, f"{TAG} {where}", default=self._settings.enabled)
        if stated and not _is_flag(stated):
            _refuse_impossible(enabled - set(possible), entity)
        said = entity.tags.get(BLOCKING_TAG)
        blocking = _names(said, f"{BLOCKING_TAG} {where}", default=self._settings.blocking)
        return tuple(
            replace(check, blocking=True) if check.name in blocking else check
            for check in possible.values()
            if check.name in enabled
        )

    def _possible(self, entity: EntitySpec) -> list[TableCheck]:
        """Everything that the entity's declaration gives reason to check."""
        if entity.companion_of or entity.sql is not None or entity.location.kind in ("memory", "none"):
            return []
        found: list[TableCheck] = []
        if entity.provider in _CHECKED and entity.merge_columns:
            found += self._key_checks(entity)
        if entity.provider in _CHECKED and entity.schema:
            found.append(self._schema_check(entity))
        age = self._max_age(entity)
        if age is not None:
            text = f"Its last data is no older than {spell_age(age)}; no pipe of the app writes it."
            found.append(TableCheck(entity.id, FRESHNESS, text, max_age=age))
        return found

    def _key_checks(self, entity: EntitySpec) -> list[TableCheck]:
        shared: dict[str, Any] = {"keys": entity.merge_columns, "examples": self._settings.examples}
        named = ", ".join(entity.merge_columns)
        found = [TableCheck(entity.id, NOT_NULL, f"No row lacks a merge key ({named}).", **shared)]
        history = _history(entity)
        if history is not None:
            text = (
                f"Each key ({named}) has at most one current row, its rows' validity does not overlap, "
                "and none ends before it starts."
            )
            found.append(TableCheck(entity.id, HISTORY, text, history=history, **shared))
        elif entity.tags.get("write.mode", "").strip().lower() != "append":
            found.append(TableCheck(entity.id, UNIQUE, f"No two rows have the same {named}.", **shared))
        return found

    def _schema_check(self, entity: EntitySpec) -> TableCheck:
        history = _history(entity)
        minted = {entity.tags.get(name, "") for name in ("surrogate.column", "surrogate.durable_column")}
        minted |= {history.start, history.end, history.current} if history else set()
        return TableCheck(
            entity.id,
            SCHEMA,
            "The table has the declared columns, of the declared types.",
            schema=entity.schema or (),
            made=self._lineage | minted,
            # A clustered table has none, whatever is declared.
            partitions=None if entity.cluster_columns else entity.partition_columns,
            evolves=entity.tags.get("schema.drift", "evolve").strip().lower() == "evolve",
        )

    def _max_age(self, entity: EntitySpec) -> timedelta | None:
        if entity.id in self._written:
            return None
        stated = entity.tags.get(MAX_AGE_TAG)
        if stated is not None:
            return parse_age(stated, f"{MAX_AGE_TAG} of entity {entity.id}")
        return self._settings.max_age if entity.provider in _WITH_FILES else None


def only_spark_reads(entity: EntitySpec, *, storage_options: bool) -> bool:
    """Whether an entity's table is out of reach without Spark, as far as its declaration tells.

    Args:
        entity: The entity.
        storage_options: Whether there are credentials for object storage.
    """
    if entity.location.kind == "table":
        return True
    return (
        entity.location.kind == "path" and local_path(entity.location.value) is None and not storage_options
    )


def checks_in_step(
    manifest: Manifest,
    entity_ids: Iterable[str],
    blocking: Mapping[str, Collection[str]],
    *,
    everything: bool,
    storage_options: bool,
) -> dict[str, dict[str, bool]]:
    """The checks that the step makes that writes these entities, and which of them hold back what depends on one.

    Args:
        manifest: What the app declares.
        entity_ids: What the step writes.
        blocking: By entity, the checks that hold back what depends on it.
        everything: Whether all checks are wanted: those of tables that only Spark reads are made in the step.
        storage_options: Whether there are credentials for object storage.
    """
    declared = DeclaredChecks(manifest)
    found: dict[str, dict[str, bool]] = {}
    for entity_id in entity_ids:
        holding = blocking.get(entity_id, ())
        entity = manifest.entities_by_id.get(entity_id)
        here = everything and entity is not None and only_spark_reads(entity, storage_options=storage_options)
        names = {
            check.name: check.name in holding
            for check in declared.of(entity_id)
            if here or check.name in holding
        }
        if names:
            found[entity_id] = names
    return found


def parse_age(value: object, where: str) -> timedelta:
    """An age such as ``90m``, ``26h``, ``2d``, ``1w``; a number alone is hours.

    Raises:
        DeclarationError: It is none; names where it stands.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([mhdw]?)\s*", str(value).lower())
    if match is None or float(match.group(1)) <= 0:
        raise DeclarationError(f"{where} is {value!r}.", "Give an age, such as 90m, 26h, 2d or 1w.")
    return timedelta(**{_UNITS[match.group(2) or "h"]: float(match.group(1))})


def _history(entity: EntitySpec) -> History | None:
    if not entity.scd2:
        return None
    tags = entity.tags
    return History(
        start=tags.get("scd.effective_from_col", "__effective_from"),
        end=tags.get("scd.effective_to_col", "__effective_to"),
        current=tags.get("scd.current_col", "__is_current"),
    )


def spell_age(age: timedelta) -> str:
    """An age for people: ``26 h``, ``3 d``, ``15 min``."""
    seconds = age.total_seconds()
    for size, unit in ((172_800, "d"), (7_200, "h"), (120, "min")):
        if abs(seconds) >= size:
            return f"{seconds / {'d': 86_400, 'h': 3_600, 'min': 60}[unit]:.3g} {unit}"
    return f"{seconds:.3g} s"


def _is_flag(value: object) -> bool:
    return isinstance(value, bool) or str(value).strip().lower() in ("true", "false", "all", "none")


def _names(value: object, where: str, default: frozenset[str]) -> frozenset[str]:
    """Names of checks: a list, text with commas, or true and false for all and none."""
    if value is None or value == "":
        return default
    if _is_flag(value):
        return frozenset(NAMES) if str(value).strip().lower() in ("true", "all") else frozenset()
    named = value if isinstance(value, list | tuple) else str(value).split(",")
    names = frozenset(str(name).strip() for name in named if str(name).strip())
    unknown = sorted(names - set(NAMES))
    if unknown:
        raise DeclarationError(
            f"{where} names {', '.join(unknown)}, which are no checks.", f"There are {', '.join(NAMES)}."
        )
    return names


def _refuse_impossible(names: frozenset[str], entity: EntitySpec) -> None:
    if names:
        raise DeclarationError(
            f"{TAG} of entity {entity.id} asks for {', '.join(sorted(names))}, which its declaration gives "
            "nothing to check by.",
            "It takes merge_columns for the keys, a schema for drift, scd.type 2 for the history, and "
            f"{MAX_AGE_TAG} on an entity that no pipe writes for freshness.",
        )
