"""Tables that a query reads, as a table of cases."""

from __future__ import annotations

import pytest

from kindling_dagster.sql_tables import entities_read, tables_read


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT * FROM silver.orders", ("silver.orders",)),
        ("select 1", ()),
        ("SELECT * FROM a JOIN b ON a.id = b.id LEFT JOIN c USING (id)", ("a", "b", "c")),
        ("SELECT * FROM a, b", ("a", "b")),
        ("SELECT * FROM `my cat`.`db`.`Orders` o", ("my cat.db.orders",)),
        ("WITH x AS (SELECT * FROM a) SELECT * FROM x JOIN b", ("b", "a")),
        ("SELECT * FROM (SELECT * FROM a WHERE id IN (SELECT id FROM b))", ("a", "b")),
        ("SELECT * FROM a -- FROM b\n/* JOIN c */", ("a",)),
        ("SELECT 'x FROM y' FROM a", ("a",)),
        ("SELECT * FROM delta.`/lake/orders`", ("delta./lake/orders",)),
        ("SELECT * FROM a UNION ALL SELECT * FROM b", ("a", "b")),
        ("this is no SQL (", ()),
    ],
)
def test_tables(sql: str, tables: tuple[str, ...]) -> None:
    assert set(tables_read(sql)) == set(tables)


def test_entities_by_name_and_by_path() -> None:
    names = {"silver_orders": "silver.orders", "/lake/items": "silver.items"}
    sql = "SELECT * FROM silver_orders JOIN delta.`/lake/items` USING (id) JOIN other USING (id)"
    assert entities_read(sql, names) == ("silver.orders", "silver.items")
