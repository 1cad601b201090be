"""Raw orders and what is around them."""

from kindling.data_entities import DataEntities
from pyspark.sql.types import DecimalType, LongType, StructField, StructType, TimestampType

ORDERS = StructType(
    [
        StructField("order_id", LongType(), False),
        StructField("customer_id", LongType(), True),
        StructField("amount", DecimalType(12, 2), True),
        StructField("placed_at", TimestampType(), True),
    ]
)

DataEntities.entity(
    entityid="bronze.orders",
    name="orders_raw",
    merge_columns=["order_id"],
    partition_columns=[],
    tags={"tier": "critical", "comment": "Orders as the shop sends them."},
    schema=ORDERS,
)

DataEntities.insert_only_entity(
    entityid="bronze.events",
    name="events",
    merge_columns=["event_id"],
    schema=None,
    cluster_columns=["event_id"],
)

DataEntities.entity(
    entityid="bronze.lookup",
    name="lookup",
    merge_columns=[],
    tags={"provider_type": "csv", "provider.path": "@secret:KITCHEN_LOOKUP_PATH", "provider.header": "true"},
    schema=None,
)

DataEntities.entity(
    entityid="bronze.files_north",
    name="files_north",
    merge_columns=["id"],
    tags={"layer": "bronze"},
    schema=None,
)
