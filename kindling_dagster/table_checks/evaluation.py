"""One check of one table, evaluated; what cannot be told is said, as a warning. Free of Dagster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from kindling_dagster.delta_log import local_path
from kindling_dagster.engines.commits import PATIENCE
from kindling_dagster.engines.masking import secret_book
from kindling_dagster.errors import RunError
from kindling_dagster.locations import table_location
from kindling_dagster.manifest import EntitySpec, Manifest
from kindling_dagster.table_checks.declared import FRESHNESS, HISTORY, NOT_NULL, SCHEMA, UNIQUE, TableCheck
from kindling_dagster.table_checks.drift import check_schema
from kindling_dagster.table_checks.freshness import check_freshness
from kindling_dagster.table_checks.history import check_history
from kindling_dagster.table_checks.keys import check_not_null, check_unique
from kindling_dagster.table_checks.outcome import CheckOutcome, told_in_a_line
from kindling_dagster.table_checks.tables import DeltaFile, Table

UNKNOWN: Final = "kindling/not_checked"
_RULES: Final[Mapping[str, Callable[[TableCheck, Table], CheckOutcome]]] = {
    NOT_NULL: check_not_null,
    UNIQUE: check_unique,
    HISTORY: check_history,
}


class TableChecker:
    """Evaluates checks without a JVM.

    Args:
        manifest: What the app declares.
        working_dir: Where relative paths count from.
        storage_options: How to reach the tables' storage, as deltalake takes it.
    """

    def __init__(
        self,
        manifest: Manifest,
        working_dir: Path | None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self._manifest = manifest
        self._working_dir = working_dir
        self._storage_options = {**PATIENCE, **(storage_options or {})}
        self._mask = secret_book(manifest.secrets).mask
        self._open: tuple[str, DeltaFile] | None = None

    def check(self, check: TableCheck) -> CheckOutcome:
        """Evaluate one check. What keeps it from being told is an outcome too: a warning that blocks nothing."""
        entity = self._manifest.entities_by_id[check.entity_id]
        try:
            if check.name == FRESHNESS:
                location = self._location(entity)
                found = check_freshness(check, entity.provider, location, self._options(location))
            else:
                found = evaluate(check, self._table(entity), migration_command(self._manifest))
        except Exception as error:  # one table that cannot be read must not hide what others hold
            found = not_told(check, error, entity)
        # A location may be a secret.
        masked = {
            name: self._mask(value) if isinstance(value, str) else value
            for name, value in found.metadata.items()
        }
        return replace(found, text=self._mask(found.text), metadata=masked)

    def _table(self, entity: EntitySpec) -> DeltaFile:
        location = self._location(entity)
        if self._open is None or self._open[0] != location:
            found = DeltaFile.open(location, self._options(location))
            if found is None:
                raise RunError(f"There is no Delta table at {location} yet.")
            self._open = location, found
        return self._open[1]

    def _location(self, entity: EntitySpec) -> str:
        found = table_location(entity, self._working_dir)
        if found is None:
            raise RunError(
                f"The table of {entity.id} is known to Spark's catalog alone.",
                "It is checked in the step that writes it; for checks at any time, give the entity a provider.path.",
            )
        return found

    def _options(self, location: str) -> Mapping[str, str] | None:
        return None if local_path(location) is not None else self._storage_options


def migration_command(manifest: Manifest) -> str:
    """What shows the plan that ends a drift."""
    return f"See `kindling migrate plan --env {manifest.app.environment}`."


def evaluate(check: TableCheck, table: Table, command: str) -> CheckOutcome:
    """Evaluate a check of keys, history or schema.

    Args:
        check: The check.
        table: Its table.
        command: What to do about a schema that differs.

    Raises:
        RunError: The table lacks a column that the check is about.
        Exception: Whatever reading the table raises.
    """
    if check.name == SCHEMA:
        outcome = check_schema(check, table, command)
    else:
        outcome = _RULES[check.name](_with_live_names(check, table), table)
    version = {} if table.version is None else {"kindling/delta_version": table.version}
    return replace(outcome, metadata={**outcome.metadata, **version})


def not_told(check: TableCheck, error: Exception, entity: EntitySpec) -> CheckOutcome:
    """The outcome of a check that could not be made."""
    line = told_in_a_line(error, entity)
    return CheckOutcome(
        check.name,
        passed=False,
        severe=False,
        text=f"Could not be checked. {line}",
        metadata={UNKNOWN: line},
        blocking=check.blocking,
    )


def _with_live_names(check: TableCheck, table: Table) -> TableCheck:
    """The check with columns as the table spells them: Spark does not mind their case, others do."""
    live = {str(column["name"]).lower(): str(column["name"]) for column in table.fields()}
    history = check.history
    named = [*check.keys, *((history.start, history.end, history.current) if history else ())]
    missing = [name for name in named if name.lower() not in live]
    if missing:
        raise RunError(
            f"The table of {check.entity_id} has no column {', '.join(missing)}.",
            "See the check schema_drift.",
        )
    return replace(
        check,
        keys=tuple(live[key.lower()] for key in check.keys),
        history=history
        and replace(
            history,
            start=live[history.start.lower()],
            end=live[history.end.lower()],
            current=live[history.current.lower()],
        ),
    )
