"""How a pipe's output meets its entity: what the write would refuse, and what schema it would leave. No JVM needed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pyspark.sql.types import ArrayType, DataType, MapType, NullType, StructType

from kindling_dagster.analysis.findings import FindingKind

_INTEGERS = ("tinyint", "smallint", "int", "bigint")
_NUMBERS = (*_INTEGERS, "float", "double", "decimal")


@dataclass(frozen=True)
class Sink:
    """An entity as the target of a write.

    Args:
        entity_id: The entity.
        mode: ``merge``, ``scd2``, ``append``, ``replace`` (the whole table) or ``replace_slices``.
        strict: Whether the provider holds writes to the table's schema, as Delta does.
        table: The schema of the table as it is when the pipe's turn comes; None when there is none.
        declared: The schema a new table would be made with; None when the entity declares none.
        keys: Merge columns.
        slice_keys: Columns of ``derived.replace_keys``.
        sequence: The column of ``scd.sequence_by``; empty when there is none.
        partitions: Partition columns, where files are partitioned.
        clusters: Cluster columns.
        minted: Columns that the write itself makes: SCD2's temporal ones, surrogate keys.
        drift: ``evolve``, ``warn`` or ``fail``.
    """

    entity_id: str
    mode: str
    strict: bool = True
    table: StructType | None = None
    declared: StructType | None = None
    keys: tuple[str, ...] = ()
    slice_keys: tuple[str, ...] = ()
    sequence: str = ""
    partitions: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    minted: tuple[str, ...] = ()
    drift: str = "evolve"

    @property
    def target(self) -> StructType | None:
        """The schema the write meets: the table's, else the one it would be made with."""
        return self.table if self.table is not None else self.declared

    @property
    def casts(self) -> bool:
        """Whether this write is a MERGE, which casts; a plain write takes no other type than the table's."""
        return self.mode == "scd2" or (self.mode == "merge" and self.table is not None)


@dataclass(frozen=True)
class Mismatch:
    """Something that does not fit between an output and its entity."""

    kind: FindingKind
    message: str
    column: str = ""
    severity: str = "error"
    suggestion: str = ""


@dataclass
class _Columns:
    """Column names that are compared as Spark and Delta do: without regard to case."""

    names: Iterable[str]
    _by_key: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self._by_key = {name.lower(): name for name in self.names}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._by_key

    def closest(self, name: str) -> str:
        return closest(name, self._by_key.values())


def closest(name: str, candidates: Iterable[str]) -> str:
    """The candidate that looks most like ``name``; empty when none does."""
    by_key = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(name.lower(), list(by_key), n=1, cutoff=0.6)
    return by_key[found[0]] if found else ""


def did_you_mean(name: str, candidates: Iterable[str], otherwise: str = "") -> str:
    """A suggestion that names the closest candidate."""
    near = closest(name, candidates)
    return f"Did you mean `{near}`?" if near else otherwise


def mismatches(sink: Sink, output: StructType) -> list[Mismatch]:
    """Everything that does not fit between what a pipe gives and the entity it writes, errors first."""
    found = [
        *_doubles(output),
        *_keys(sink, output),
        *_layout(sink, output),
        *_types(sink, output),
        *_missing(sink, output),
        *_drift(sink, output),
    ]
    return sorted(found, key=lambda mismatch: mismatch.severity)


def schema_after(sink: Sink, output: StructType) -> StructType:
    """The schema of the entity once this output is written: what the next reader finds.

    A whole replacement takes the output's schema; every other write keeps the target's columns and
    types, and adds the columns it does not have (Kindling writes with schema evolution on).
    """
    # Only Delta makes a table of what is declared before the first rows come.
    target = sink.target if sink.strict else sink.table
    replaced = sink.mode == "replace" and sink.table is not None
    base = [] if target is None or replaced else list(target.fields)
    known = _Columns(column.name for column in base)
    return StructType(base + [column for column in output.fields if column.name not in known])


def _doubles(output: StructType) -> Iterator[Mismatch]:
    seen: set[str] = set()
    for name in output.names:
        if name.lower() in seen:
            yield Mismatch(
                FindingKind.OUTPUT_COLUMNS,
                f"The output has the column `{name}` twice.",
                name,
                suggestion="Drop or rename one, for example by joining on the column's name.",
            )
        seen.add(name.lower())


def _keys(sink: Sink, output: StructType) -> Iterator[Mismatch]:
    roles: list[tuple[str, Sequence[str]]] = []
    if sink.mode in ("merge", "scd2"):
        roles.append(("merge column", sink.keys))
    roles.append(("column of derived.replace_keys", sink.slice_keys))
    roles.append(("scd.sequence_by column", [sink.sequence] if sink.sequence else []))
    columns = _Columns(output.names)
    for role, names in roles:
        for name in names:
            if name not in columns:
                yield Mismatch(
                    FindingKind.MISSING_KEY,
                    f"The output lacks `{name}`, a {role} of {sink.entity_id}.",
                    name,
                    suggestion=did_you_mean(name, output.names, f"It has {_listed(output.names)}."),
                )


def _layout(sink: Sink, output: StructType) -> Iterator[Mismatch]:
    written = _Columns([*output.names, *sink.minted])
    stored = _Columns([*output.names, *sink.minted, *(sink.target.names if sink.target else ())])
    for role, names, columns in (
        ("partition", sink.partitions, written),
        ("cluster", sink.clusters, stored),
    ):
        for name in names:
            if name.split(".")[0] not in columns:
                yield Mismatch(
                    FindingKind.LAYOUT_COLUMN,
                    f"The output lacks `{name}`, a {role} column of {sink.entity_id}.",
                    name,
                    suggestion=did_you_mean(name, output.names, f"It has {_listed(output.names)}."),
                )


def _types(sink: Sink, output: StructType) -> Iterator[Mismatch]:
    """Types that differ from those of the table the write meets, and from the declared ones.

    A replacement takes any schema and other providers than Delta do not look; but what the entity
    declares is what its readers rely on.
    """
    seen: set[str] = set()
    live = sink.table is not None
    enforced = sink.strict and not (sink.mode == "replace" and live)
    if enforced and sink.target is not None:
        for name, wanted, given in conflicts(sink.target, output):
            seen.add(name)
            yield _type_mismatch(sink, name, wanted, given, "table has" if live else "entity declares")
    for name, wanted, given in conflicts(sink.declared, output) if sink.declared is not None else ():
        if name not in seen and (live or not enforced):
            yield Mismatch(
                FindingKind.OUTPUT_TYPE,
                f"`{name}` of the output is {given}; {sink.entity_id} declares {wanted}.",
                name,
                # With a table that agrees with the output, only the declaration is behind.
                "warning" if enforced else "error",
                _cast_advice(name, wanted),
            )


def _type_mismatch(sink: Sink, name: str, wanted: str, given: str, says: str) -> Mismatch:
    text = f"`{name}` of the output is {given}, and the {says} {wanted} ({sink.entity_id})"
    cast = _cast_of(given, wanted) if sink.casts else "refused"
    severity = "error"
    if cast == "refused":
        text += ": the write fails."
    elif cast == "lossy":
        text += ": the merge casts it, which fails or loses values."
    else:
        text, severity = f"{text}: the merge casts it.", "warning"
    if sink.table is not None and sink.drift == "fail":
        severity, text = "error", f"{text} schema.drift is fail."
    return Mismatch(
        FindingKind.OUTPUT_TYPE,
        text,
        name,
        severity,
        _cast_advice(name, wanted),
    )


def _cast_advice(name: str, wanted: str) -> str:
    return f'Cast it: .withColumn("{name}", F.col("{name}").cast("{wanted}")).'


def _missing(sink: Sink, output: StructType) -> Iterator[Mismatch]:
    columns, minted = _Columns(output.names), _Columns(sink.minted)
    told = _Columns([*sink.keys, *sink.slice_keys, sink.sequence, *sink.partitions, *sink.clusters])
    declared = _Columns(sink.declared.names if sink.declared else ())
    new = [name for name in output.names if name not in declared]
    for name in sink.declared.names if sink.declared else ():
        if name not in columns and name not in minted and name not in told:
            yield Mismatch(
                FindingKind.OUTPUT_COLUMNS,
                f"The output lacks `{name}`, which {sink.entity_id} declares: it stays empty.",
                name,
                "warning",
                did_you_mean(name, new, f"Add it, or take it out of the schema of {sink.entity_id}."),
            )


def _drift(sink: Sink, output: StructType) -> Iterator[Mismatch]:
    """New columns, where the entity does not want any."""
    if sink.drift == "evolve" or sink.table is None or sink.mode.startswith("replace"):
        return
    table = _Columns([*sink.table.names, *sink.minted])
    for name in output.names:
        if name not in table:
            yield Mismatch(
                FindingKind.OUTPUT_COLUMNS,
                f"`{name}` is not in the table of {sink.entity_id}, which says schema.drift: {sink.drift}.",
                name,
                "error" if sink.drift == "fail" else "warning",
                did_you_mean(name, sink.table.names, "Leave it out, or set schema.drift: evolve."),
            )


def conflicts(wanted: DataType, given: DataType, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Columns whose types differ: dotted name, type wanted, type given. Nullability does not count."""
    if isinstance(wanted, StructType) and isinstance(given, StructType):
        by_key = {column.name.lower(): column for column in wanted.fields}
        for column in given.fields:
            other = by_key.get(column.name.lower())
            if other is not None:
                name = f"{path}.{other.name}" if path else other.name
                yield from conflicts(other.dataType, column.dataType, name)
    elif isinstance(wanted, ArrayType) and isinstance(given, ArrayType):
        yield from conflicts(wanted.elementType, given.elementType, f"{path}.element")
    elif isinstance(wanted, MapType) and isinstance(given, MapType):
        yield from conflicts(wanted.keyType, given.keyType, f"{path}.key")
        yield from conflicts(wanted.valueType, given.valueType, f"{path}.value")
    elif not isinstance(given, NullType):
        names = type_name(wanted), type_name(given)
        # Delta stores the three shorter integers alike and merges their schemas.
        if names[0] != names[1] and not set(names) <= set(_INTEGERS[:3]):
            yield (path, *names)


def type_name(data_type: DataType) -> str:
    """Spark's short name of a type; strings of limited length are strings, as in a table."""
    return re.sub(r"\b(var)?char\(\d+\)", "string", data_type.simpleString())


def _cast_of(given: str, wanted: str) -> str:
    """What MERGE makes of a value of another type: ``safe``, ``lossy`` or ``refused``. Measured on Delta 3.3."""
    given_base, wanted_base = (name.partition("(")[0] for name in (given, wanted))
    if "<" in given + wanted:
        return "refused"
    if wanted == "string" or (given, wanted) == ("date", "timestamp"):
        return "safe"
    if given_base in _NUMBERS and wanted_base in _NUMBERS:
        return "safe" if _widens(given, wanted) else "lossy"
    if given == "string" and wanted_base in (*_NUMBERS, "date", "timestamp"):
        return "lossy"
    return "lossy" if (given, wanted) == ("timestamp", "date") else "refused"


def _widens(given: str, wanted: str) -> bool:
    if given in _INTEGERS and wanted in _INTEGERS:
        return _INTEGERS.index(given) <= _INTEGERS.index(wanted)
    if wanted == "double":
        return given != "bigint" and not given.startswith("decimal")
    digits = {"tinyint": 3, "smallint": 5, "int": 10, "bigint": 20}
    limits = [re.match(r"decimal\((\d+),(\d+)\)", name) for name in (given, wanted)]
    if limits[1] is None:
        return False
    precision, scale = int(limits[1][1]), int(limits[1][2])
    if given in digits:
        return precision - scale >= digits[given]
    if limits[0] is None:
        return False
    return scale >= int(limits[0][2]) and precision - scale >= int(limits[0][1]) - int(limits[0][2])


def _listed(names: Sequence[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (" …" if len(names) > limit else "") or "no column"
