"""The declared schema against the live table's, in the words of ``kindling migrate plan``. From the log alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kindling_dagster.table_checks.declared import TableCheck
from kindling_dagster.table_checks.keys import ANSWERED_BY
from kindling_dagster.table_checks.outcome import CheckOutcome
from kindling_dagster.table_checks.tables import Table

ADVICE = "kindling/advice"


@dataclass(frozen=True)
class Drift:
    """How a live table differs from its declaration.

    Args:
        missing: Declared columns that the table lacks.
        surplus: Columns that nothing declares.
        types: By column, the table's type and the declared one.
        partitions: The table's partition columns and the declared ones, where they differ.
    """

    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    types: Mapping[str, tuple[str, str]] | None = None
    partitions: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    def lines(self) -> list[str]:
        """Each difference as ``kindling migrate plan`` words the change that ends it."""
        found: list[str] = []
        if self.missing:
            found.append(f"add columns: {', '.join(self.missing)}")
        if self.surplus:
            found.append(f"remove columns: {', '.join(self.surplus)}")
        found += [f"{name}: {live} -> {declared}" for name, (live, declared) in (self.types or {}).items()]
        if self.partitions is not None:
            live, declared = (list(columns) for columns in self.partitions)
            found.append(f"partition columns: {live} -> {declared}")
        return found


def check_schema(check: TableCheck, table: Table, command: str) -> CheckOutcome:
    """Whether the table has the declared columns.

    Args:
        check: The check.
        table: The table.
        command: What to do about a difference.

    Raises:
        Exception: Whatever reading the table's log raises.
    """
    live = table.fields()
    drift = find_drift(check, live, table.partition_columns())
    lines = drift.lines()
    extra = added_columns(check, live)
    metadata: dict[str, Any] = {ANSWERED_BY: "the table's schema"}
    if extra:
        metadata["kindling/columns_not_declared"] = ", ".join(extra)
    if lines:
        metadata["kindling/drift"] = [{"change": line} for line in lines]
        metadata[ADVICE] = command
    return CheckOutcome(
        check.name,
        passed=not lines,
        severe=check.severe,
        text=f"The table is not as declared: {'; '.join(lines)}. {command}"
        if lines
        else "The table is as declared.",
        metadata=metadata,
        blocking=check.blocking,
    )


def find_drift(
    check: TableCheck, live: Iterable[Mapping[str, Any]], partitions: tuple[str, ...] | None
) -> Drift:
    """The differences between a declaration and a live schema. Names are compared as Spark does, in any case."""
    declared = {str(column["name"]).lower(): column for column in check.schema}
    found = {str(column["name"]).lower(): column for column in live}
    differing = {
        str(column["name"]): (type_text(found[name].get("type")), type_text(column.get("type")))
        for name, column in declared.items()
        if name in found
    }
    other_partitions = (
        partitions is not None
        and check.partitions is not None
        and sorted(map(str.lower, partitions)) != sorted(map(str.lower, check.partitions))
    )
    return Drift(
        missing=tuple(str(column["name"]) for name, column in declared.items() if name not in found),
        # A table whose writes may add columns is as declared with more of them.
        surplus=() if check.evolves else tuple(added_columns(check, found.values())),
        types={name: pair for name, pair in differing.items() if pair[0] != pair[1]},
        partitions=(partitions or (), check.partitions or ()) if other_partitions else None,
    )


def added_columns(check: TableCheck, live: Iterable[Mapping[str, Any]]) -> list[str]:
    """Columns that neither the declaration nor what writes add accounts for."""
    known = {str(column["name"]).lower() for column in check.schema} | {name.lower() for name in check.made}
    return [str(column["name"]) for column in live if str(column["name"]).lower() not in known]


def type_text(spark_type: object) -> str:
    """A type as Spark names it: ``bigint``, ``array<string>``. Whether nulls may be in it is no part of that."""
    if isinstance(spark_type, Mapping):
        match spark_type.get("type"):
            case "array":
                return f"array<{type_text(spark_type['elementType'])}>"
            case "map":
                return f"map<{type_text(spark_type['keyType'])},{type_text(spark_type['valueType'])}>"
            case "struct":
                fields = (f"{field['name']}:{type_text(field['type'])}" for field in spark_type["fields"])
                return f"struct<{','.join(fields)}>"
            case "udt":
                return type_text(spark_type.get("sqlType"))
    return _SIMPLE.get(str(spark_type), str(spark_type))


_SIMPLE = {"long": "bigint", "integer": "int", "short": "smallint", "byte": "tinyint"}
