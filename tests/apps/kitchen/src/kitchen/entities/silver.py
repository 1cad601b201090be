"""Cleaned data."""

from kindling.data_entities import DataEntities
from pyspark.sql.types import DateType, LongType, StringType, StructField, StructType

from kitchen.entities.bronze import ORDERS

DataEntities.entity(
    entityid="silver.orders",
    name="orders",
    merge_columns=["order_id"],
    tags={"tier": "critical"},
    schema=ORDERS,
)

DataEntities.entity(
    entityid="silver.customers",
    name="customers",
    merge_columns=["customer_id"],
    tags={"scd.type": "2", "scd.untracked": "last_seen"},
    schema=StructType(
        [
            StructField("customer_id", LongType(), False),
            StructField("name", StringType(), True),
            StructField("last_seen", DateType(), True),
        ]
    ),
)

DataEntities.entity(
    entityid="silver.products",
    name="products",
    merge_columns=["product_id"],
    tags={"provider_type": "parquet", "provider.path": "lake/products"},
    schema=[StructField("product_id", LongType(), False), StructField("category", StringType(), True)],
)

DataEntities.clone("silver.orders_eu", from_entity="silver.orders", name="orders_eu", tags={"region": "eu"})
DataEntities.extend("silver.orders", add_columns=[StructField("checked_on", DateType(), True)])
