"""SQL that asks tables for their version lineage: valid in Spark SQL, identifiers quoted, literals escaped.

The statements are built as syntax trees by sqlglot, never by pasting text: a name or version with a
quote in it stays a name or version.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Final
from urllib.parse import urlsplit

from sqlglot import exp

from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.columns import DEFAULT_LAYERS, lineage_column

_DIALECT: Final = "spark"


def find_records_by_version(
    table: str, version: str, pipe: str | None = None, *, layer: str | None = None
) -> str:
    """A query for the rows that one version of a package wrote.

    Args:
        table: A table's name (``silver.orders``, dots between its parts) or its path or URI.
        version: The package's version, as in the lineage column.
        pipe: Only rows that this pipe wrote.
        layer: Whose lineage column to ask; told by the table's name when None.

    Returns:
        A ``SELECT *`` over the table.

    Raises:
        LineageError: The table's name is none, or says no layer.
    """
    column = _column(table, layer)
    query = exp.select("*").from_(_table(table)).where(_equal(column, "version", version))
    if pipe is not None:
        query = query.where(_equal(column, "pipe", pipe))
    return _sql(query)


def version_adoption_report(table: str, *, layer: str | None = None) -> str:
    """A query for how many rows each version of each pipe wrote.

    Args:
        table: A table's name or its path or URI.
        layer: Whose lineage column to ask; told by the table's name when None.

    Returns:
        A query for ``pipe``, ``package``, ``version``, ``rows``, ``share`` (0 to 1 of the table's rows),
        ``first_written`` and ``last_written``, most rows first. Rows without lineage are one line of nulls.

    Raises:
        LineageError: The table's name is none, or says no layer.
    """
    column = _column(table, layer)
    keys = [_field(column, name) for name in ("pipe", "package", "version")]
    counted = exp.Count(this=exp.Star())
    total = exp.Window(this=exp.Sum(this=counted.copy()))
    written = _field(column, "timestamp")
    query = (
        exp.select(
            *(exp.alias_(key.copy(), key.name) for key in keys),
            exp.alias_(counted.copy(), "rows", quoted=True),
            exp.alias_(exp.Div(this=counted.copy(), expression=total), "share"),
            exp.alias_(exp.Min(this=written.copy()), "first_written"),
            exp.alias_(exp.Max(this=written.copy()), "last_written"),
        )
        .from_(_table(table))
        .group_by(*keys)
        .order_by(exp.Ordered(this=exp.column("rows", quoted=True), desc=True))
    )
    return _sql(query)


def stale_version_report(table: str, current: str, older_than: datetime, *, layer: str | None = None) -> str:
    """A query for the rows of other versions than the current one, written before a moment.

    Args:
        table: A table's name or its path or URI.
        current: The version that is not stale.
        older_than: Rows written at or after it are left out; without a time zone it is taken as UTC.
        layer: Whose lineage column to ask; told by the table's name when None.

    Returns:
        A query for ``pipe``, ``package``, ``version``, ``rows``, ``first_written`` and ``last_written``,
        oldest first. Rows without lineage are not in it: nothing says which version wrote them.

    Raises:
        LineageError: The table's name is none, or says no layer.
    """
    column = _column(table, layer)
    keys = [_field(column, name) for name in ("pipe", "package", "version")]
    written = _field(column, "timestamp")
    moment = older_than if older_than.tzinfo else older_than.replace(tzinfo=timezone.utc)
    # With its offset in the text, so that the session's time zone does not change what it means.
    literal = exp.cast(_text(moment.astimezone(timezone.utc).isoformat(sep=" ")), exp.DataType.Type.TIMESTAMP)
    query = (
        exp.select(
            *(exp.alias_(key.copy(), key.name) for key in keys),
            exp.alias_(exp.Count(this=exp.Star()), "rows", quoted=True),
            exp.alias_(exp.Min(this=written.copy()), "first_written"),
            exp.alias_(exp.Max(this=written.copy()), "last_written"),
        )
        .from_(_table(table))
        .where(exp.NEQ(this=_field(column, "version"), expression=_text(current)))
        .where(exp.LT(this=written.copy(), expression=literal))
        .group_by(*keys)
        .order_by(exp.Ordered(this=exp.column("last_written")))
    )
    return _sql(query)


def _column(table: str, layer: str | None) -> str:
    if layer is not None:
        return lineage_column(layer)
    names = _location_parts(table) if _is_location(table) else table.split(".")
    for name in reversed(names):
        for known in DEFAULT_LAYERS:
            # A path may hold an entity's whole id as one folder: .../silver.orders
            if name == known or name.startswith(f"{known}."):
                return lineage_column(known)
    raise LineageError(
        f"The name of the table {table} says no layer ({', '.join(DEFAULT_LAYERS)}).",
        "Name the layer whose lineage column you want.",
    )


def _is_location(table: str) -> bool:
    return "/" in table


def _location_parts(table: str) -> list[str]:
    return [part for part in urlsplit(table).path.split("/") if part]


def _table(table: str) -> exp.Table:
    parts = [table] if _is_location(table) else table.split(".")
    if not table.strip() or any(not part for part in parts) or (len(parts) > 3):
        raise LineageError(
            f"{table!r} is not a table's name or path.",
            "Give catalog.schema.table, schema.table, table, or a path or URI with a slash in it.",
        )
    if _is_location(table):
        # Spark reads the table at a path as delta.`path`.
        return exp.Table(this=_name(table), db=_name("delta"))
    fields = dict(zip(("this", "db", "catalog"), map(_name, reversed(parts)), strict=False))
    return exp.Table(**fields)


def _name(text: str) -> exp.Identifier:
    return exp.to_identifier(text, quoted=True)


def _field(column: str, name: str) -> exp.Dot:
    return exp.Dot(this=exp.Column(this=_name(column)), expression=_name(name))


def _equal(column: str, name: str, value: str) -> exp.EQ:
    return exp.EQ(this=_field(column, name), expression=_text(value))


def _text(value: str) -> exp.Literal:
    return exp.Literal.string(value)


def _sql(query: exp.Expression) -> str:
    return query.sql(dialect=_DIALECT, pretty=True)
