"""SQL over views in the place of tables, and what an incremental read adds; no Spark session."""

from __future__ import annotations

import pytest
from pyspark.sql.types import IntegerType, StructField, StructType

from kindling_dagster.analysis.schemas import over_views, with_source_columns

NAMES = {
    "bronze_orders": "bronze.orders",
    "bronze.orders": "bronze.orders",
    "/lake/bronze/orders": "bronze.orders",
    "silver_items": "silver.items",
}
VIEWS = {"bronze.orders": "v0", "silver.items": "v1"}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT id FROM bronze_orders", "SELECT id FROM v0 AS `bronze_orders`"),
        ("SELECT o.id FROM Bronze.Orders o", "SELECT o.id FROM v0 AS o"),
        ("SELECT bronze.orders.id FROM bronze.orders", "SELECT orders.id FROM v0 AS `orders`"),
        ("SELECT id FROM delta.`/lake/bronze/orders`", "SELECT id FROM v0 AS `/lake/bronze/orders`"),
        ("SELECT * FROM a JOIN silver_items i ON a.id = i.id", "SELECT * FROM a JOIN v1 AS i ON a.id = i.id"),
        (
            "WITH silver_items AS (SELECT * FROM bronze_orders) SELECT * FROM silver_items",
            "WITH silver_items AS (SELECT * FROM v0 AS `bronze_orders`) SELECT * FROM silver_items",
        ),
        ("SELECT id FROM (SELECT id FROM bronze_orders) x", "SELECT id FROM (SELECT id FROM v0 AS `bronze_orders`) AS x"),
        ("SELECT s.a.b FROM other s", "SELECT s.a.b FROM other AS s"),
    ],
)  # fmt: skip
def test_tables_become_views(sql: str, expected: str) -> None:
    assert over_views(sql, NAMES, VIEWS) == expected


def test_sql_that_reads_no_entity_stays_as_it_is() -> None:
    assert over_views("select  1", {}, {}) == "select  1"


def test_an_incremental_read_has_version_and_time() -> None:
    schema = StructType([StructField("id", IntegerType()), StructField("sourceversion", IntegerType())])
    assert with_source_columns(schema).simpleString() == (
        "struct<id:int,SourceVersion:bigint,SourceTimestamp:timestamp>"
    )
