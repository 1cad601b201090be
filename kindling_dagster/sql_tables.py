"""Which tables a Spark SQL query reads."""

from __future__ import annotations

from collections.abc import Mapping


def tables_read(sql: str) -> tuple[str, ...]:
    """Names of the tables a query reads, as written but for quotes and case, once each.

    Names that the query defines itself (common table expressions) are left out. A query that cannot be
    parsed gives nothing: Spark is the one to say what is wrong with it.
    """
    # Here, because it takes long to import, and most apps have no SQL to read.
    import sqlglot
    from sqlglot import exp

    try:
        statements = sqlglot.parse(sql, dialect="spark")
    except sqlglot.errors.SqlglotError:
        return ()
    found: dict[str, None] = {}
    for statement in statements:
        if statement is None:
            continue
        own = {cte.alias_or_name.lower() for cte in statement.find_all(exp.CTE)}
        for table in statement.find_all(exp.Table):
            name = ".".join(part.name for part in table.parts).lower()
            if name not in own:
                found[name] = None
    return tuple(found)


def entities_read(sql: str, names: Mapping[str, str]) -> tuple[str, ...]:
    """Entity ids a query reads, by ``names``: lower-case table name → entity id. Unknown tables are left out."""
    known = (names.get(name) or names.get(name.removeprefix("delta.")) for name in tables_read(sql))
    return tuple(dict.fromkeys(entity_id for entity_id in known if entity_id))
