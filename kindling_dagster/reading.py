"""Reads an entity's table without a JVM: the columns and rows that are asked for, and no others. Free of Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kindling_dagster.delta_log import local_path, open_table
from kindling_dagster.errors import RunError
from kindling_dagster.locations import table_location
from kindling_dagster.manifest import EntitySpec

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable
    from sqlglot import exp

# The names of sqlglot's classes: it is imported by those who make SQL, since definitions do without.
_COMPARISONS: Mapping[str, str] = {
    "=": "EQ",
    "==": "EQ",
    "!=": "NEQ",
    "<": "LT",
    "<=": "LTE",
    ">": "GT",
    ">=": "GTE",
}
OPERATORS = (*_COMPARISONS, "in", "not in", "is null", "is not null")
"""The operators of a condition."""

_ARROW_SQL = "postgres"  # DataFusion, the SQL engine of delta-rs, quotes and casts as PostgreSQL does
_TABLE = "entity"


@dataclass(frozen=True)
class Condition:
    """What rows must meet: a column, one of ``OPERATORS``, and a value (a list for ``in`` and ``not in``).

    Raises:
        RunError: There is no such operator, or no such value can be compared.
    """

    column: str
    operator: str
    value: Any = None

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS:
            raise RunError(
                f"The filter on {self.column} has the operator {self.operator!r}.",
                f"Use one of {', '.join(OPERATORS)}.",
            )
        for value in self._values():
            if not isinstance(value, bool | int | float | str | Decimal | date):
                raise RunError(
                    f"The filter on {self.column} compares with {value!r}.",
                    "Compare with a text, a number, a bool, a date or a datetime, and with a list of such by "
                    "`in`; use `is null` for missing values.",
                )

    def _values(self) -> tuple[Any, ...]:
        if self.operator in ("in", "not in"):
            return tuple(self.value) if isinstance(self.value, list | tuple | set | frozenset) else (None,)
        return () if self.operator.startswith("is ") else (self.value,)

    def to_sql(self) -> exp.Expr:
        """The condition as SQL of no dialect yet."""
        from sqlglot import exp

        column = exp.column(self.column, quoted=True)
        match self.operator:
            case "is null":
                return exp.Is(this=column, expression=exp.null())
            case "is not null":
                return exp.Not(this=exp.Is(this=column, expression=exp.null()))
            case "in" | "not in":
                if not self._values():
                    return exp.false() if self.operator == "in" else exp.true()
                among = exp.In(this=column, expressions=[_literal(value) for value in self._values()])
                return among if self.operator == "in" else exp.Not(this=among)
        compared: exp.Expr = getattr(exp, _COMPARISONS[self.operator])(
            this=column, expression=_literal(self.value)
        )
        return compared

    def to_arrow(self) -> Any:
        """The condition as pyarrow's expression."""
        import pyarrow.dataset as ds

        column: Any = ds.field(self.column)
        match self.operator:
            case "is null":
                return column.is_null()
            case "is not null":
                return ~column.is_null()
            case "in":
                return column.isin(list(self._values()))
            case "not in":
                return ~column.isin(list(self._values())) & ~column.is_null()
        compared: Mapping[str, Callable[[], Any]] = {
            "=": lambda: column == self.value,
            "==": lambda: column == self.value,
            "!=": lambda: column != self.value,
            "<": lambda: column < self.value,
            "<=": lambda: column <= self.value,
            ">": lambda: column > self.value,
            ">=": lambda: column >= self.value,
        }
        return compared[self.operator]()


def _literal(value: Any) -> exp.Expr:
    from sqlglot import exp

    if isinstance(value, bool):
        return exp.true() if value else exp.false()
    if isinstance(value, datetime):
        kind = exp.DataType.Type.TIMESTAMP if value.tzinfo is None else exp.DataType.Type.TIMESTAMPTZ
        return exp.cast(exp.Literal.string(value.isoformat(sep=" ")), exp.DataType.build(kind))
    if isinstance(value, date):
        return exp.cast(exp.Literal.string(value.isoformat()), exp.DataType.build(exp.DataType.Type.DATE))
    if isinstance(value, int | float | Decimal):
        return exp.convert(value)
    return exp.Literal.string(value)


@dataclass(frozen=True)
class ReadRequest:
    """Which part of an entity is read.

    Args:
        columns: Their names, in that order; all when empty.
        filters: Alternatives, each of which is a number of conditions that all must be met; none for all rows.
        current: Of an entity with history (SCD2), the current row of each key alone.
        version: Version of the Delta table; the latest when None.
    """

    columns: tuple[str, ...] = ()
    filters: tuple[tuple[Condition, ...], ...] = ()
    current: bool = False
    version: int | None = None

    @staticmethod
    def of(said: Mapping[str, Any], where: str) -> ReadRequest:
        """A request as metadata says it: ``columns``, ``filters``, ``current``, ``version``.

        ``filters`` is a list of ``(column, operator, value)`` that all must be met, or a list of such lists
        of which one must be, as pyarrow and pandas take them.

        Raises:
            RunError: Something in it is not of this form; ``where`` names the place.
        """
        columns = said.get("columns") or ()
        if isinstance(columns, str) or not all(isinstance(name, str) for name in columns):
            raise RunError(f"columns of {where} is {columns!r}.", "Give a list of names.")
        version = said.get("version")
        if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
            raise RunError(f"version of {where} is {version!r}.", "Give the number of a Delta version.")
        filters = _alternatives(said.get("filters") or (), where)
        return ReadRequest(tuple(columns), filters, bool(said.get("current")), version)

    def also(self, *alternatives: Sequence[Condition]) -> ReadRequest:
        """The same, of which all conditions of one of these alternatives must be met too."""
        met = self.filters or ((),)
        return replace(self, filters=tuple((*one, *other) for one in met for other in alternatives))

    def where(self, dialect: str = _ARROW_SQL) -> str:
        """The filters as a SQL condition; empty when there are none."""
        if not self.filters:
            return ""
        from sqlglot import exp

        met = [exp.and_(*(each.to_sql() for each in conditions)) for conditions in self.filters]
        return str(exp.or_(*met).sql(dialect=dialect))


def _alternatives(said: Any, where: str) -> tuple[tuple[Condition, ...], ...]:
    def conditions(items: Any) -> tuple[Condition, ...]:
        return tuple(Condition(*map(_name, item[:2]), *item[2:]) for item in items)

    try:
        if not said:
            return ()
        if isinstance(said[0][0], str):
            return (conditions(said),)
        return tuple(conditions(items) for items in said)
    except (TypeError, IndexError, KeyError, AttributeError) as error:
        raise RunError(
            f"filters of {where} is {said!r}.",
            "Give a list of (column, operator, value), or a list of such lists of which one must be met.",
        ) from error


def _name(said: Any) -> str:
    if not isinstance(said, str):
        raise TypeError(f"not a text: {said!r}")
    return said


@dataclass(frozen=True)
class EntityReader:
    """Reads one entity through delta-rs and pyarrow.

    Args:
        entity: The entity: Delta or Parquet, not in Spark's catalog alone.
        working_dir: Where relative paths count from.
        storage_options: As deltalake takes them.
    """

    entity: EntitySpec
    working_dir: Path | None = None
    storage_options: Mapping[str, str] = field(default_factory=dict)

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """The rows, in batches that are read as they are asked for.

        Raises:
            RunError: The entity cannot be read without Spark, has no table yet, or lacks a column.
        """
        source = self._source(request)
        request = heed_current(self.entity, request)
        self._check_columns(request, source.schema.names)
        return source.read(request)

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns that ``read`` gives, with their types; raises as it does."""
        import pyarrow as pa

        found = self._source(request).schema
        self._check_columns(request, found.names)
        return pa.schema([found.field(name) for name in request.columns or found.names])

    def _source(self, request: ReadRequest) -> _DeltaSource | _ParquetSource:
        uri = table_location(self.entity, self.working_dir) if self.entity.location.kind != "table" else None
        if uri is None or self.entity.provider not in ("delta", "parquet"):
            raise RunError(f"{self.entity.id} {_why_not(self.entity)}", "Take it as a pyspark DataFrame.")
        if self.entity.provider == "parquet":
            if request.version is not None:
                raise RunError(
                    f"{self.entity.id} is in Parquet, which has no versions.", "Leave version out."
                )
            return _ParquetSource.open(self.entity, uri, self.storage_options)
        table = open_table(uri, self.storage_options)
        if table is None:
            raise _not_made_yet(self.entity)
        if request.version is not None:
            table.load_as_version(request.version)
        return _DeltaSource.of(table)

    def _check_columns(self, request: ReadRequest, names: Sequence[str]) -> None:
        filtered = (condition.column for conditions in request.filters for condition in conditions)
        missing = [name for name in dict.fromkeys((*request.columns, *filtered)) if name not in names]
        if missing:
            raise RunError(
                f"{self.entity.id} has no column {', '.join(missing)}.",
                f"Its columns are {', '.join(names)}.",
            )


def kind_of_type(arrow_type: pa.DataType) -> str:
    """Spark's name of an arrow type, as far as partitions go by it."""
    import pyarrow as pa

    if pa.types.is_timestamp(arrow_type):
        return "timestamp_ntz" if arrow_type.tz is None else "timestamp"
    if pa.types.is_integer(arrow_type):
        return "long"
    return {"date32[day]": "date"}.get(str(arrow_type), str(arrow_type))


def heed_current(entity: EntitySpec, request: ReadRequest) -> ReadRequest:
    """The request with ``current`` as a condition.

    Raises:
        RunError: The entity has no history.
    """
    if not request.current:
        return request
    if not entity.scd2:
        raise RunError(
            f"{entity.id} keeps no history (SCD2), so all its rows are current.", "Leave current out."
        )
    flag = Condition(entity.tags.get("scd.current_col", "__is_current"), "=", True)
    return replace(request.also((flag,)), current=False)


def _why_not(entity: EntitySpec) -> str:
    if entity.location.kind == "table":
        return f"is the table {entity.location.value} of Spark's catalog, which alone knows where it lies."
    if entity.location.kind == "memory":
        return "is kept in the memory of the session that wrote it, and in no other place."
    return f"is of the provider {entity.provider}, which only Spark reads."


def _not_made_yet(entity: EntitySpec) -> RunError:
    return RunError(f"There is no table of {entity.id} yet.", "Materialize its asset first.")


@dataclass(frozen=True)
class _DeltaSource:
    """A Delta table, by delta-rs's SQL engine: it heeds deletion vectors and mapped column names."""

    table: DeltaTable
    schema: pa.Schema

    @staticmethod
    def of(table: DeltaTable) -> _DeltaSource:
        import pyarrow as pa

        return _DeltaSource(table, pa.schema(table.schema().to_arrow()))

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        import pyarrow as pa
        from deltalake import QueryBuilder
        from sqlglot import exp

        names = request.columns or tuple(self.schema.names)
        chosen = ", ".join(exp.to_identifier(name, quoted=True).sql(dialect=_ARROW_SQL) for name in names)
        where = request.where()
        query = f"SELECT {chosen} FROM {_TABLE}" + (f" WHERE {where}" if where else "")
        found = pa.RecordBatchReader.from_stream(QueryBuilder().register(_TABLE, self.table).execute(query))
        # The engine has types of its own for the same values (views on texts), which not everybody takes.
        wanted = [self.schema.field(each.name).with_nullable(each.nullable) for each in found.schema]
        return _cast(found, pa.schema(wanted))


def _cast(found: pa.RecordBatchReader, schema: pa.Schema) -> pa.RecordBatchReader:
    import pyarrow as pa

    if found.schema.equals(schema):
        return found

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in found:
            yield from pa.Table.from_batches([batch]).cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


@dataclass(frozen=True)
class _ParquetSource:
    """A directory of Parquet files as Spark writes it, by pyarrow."""

    dataset: Any

    @staticmethod
    def open(entity: EntitySpec, uri: str, storage_options: Mapping[str, str]) -> _ParquetSource:
        import pyarrow.dataset as ds
        import pyarrow.fs as fs

        path = local_path(uri)
        if path is not None:
            if not path.exists():
                raise _not_made_yet(entity)
            return _ParquetSource(ds.dataset(str(path), format="parquet", partitioning="hive"))
        from deltalake.fs import DeltaStorageHandler

        # The same options as for Delta tables, which pyarrow's own file systems do not know.
        store = fs.PyFileSystem(DeltaStorageHandler(uri, dict(storage_options) or None))
        return _ParquetSource(ds.dataset("", filesystem=store, format="parquet", partitioning="hive"))

    @property
    def schema(self) -> pa.Schema:
        return self.dataset.schema

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        met = [
            reduce(lambda one, two: one & two, (each.to_arrow() for each in conditions))
            for conditions in request.filters
        ]
        scanner = self.dataset.scanner(
            columns=list(request.columns) or None,
            filter=reduce(lambda one, two: one | two, met) if met else None,
        )
        return scanner.to_reader()
