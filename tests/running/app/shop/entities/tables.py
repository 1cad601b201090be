from kindling.data_entities import DataEntities
from pyspark.sql.types import LongType, StringType, StructField, StructType

ORDERS = StructType(
    [
        StructField("id", LongType(), False),
        StructField("item", StringType(), True),
        StructField("amount", LongType(), True),
    ]
)

TOTALS = StructType([StructField("item", StringType(), False), StructField("amount", LongType(), True)])


def table(entityid, schema=ORDERS, keys=("id",), **tags):
    DataEntities.entity(
        entityid=entityid,
        name=entityid.replace(".", "_"),
        merge_columns=list(keys),
        tags={key.replace("__", "."): value for key, value in tags.items()},
        schema=schema,
    )


table("raw.orders", provider_type="csv", provider__header="true")
table("bronze.orders")
table("silver.orders")
table("silver.delta")
table("silver.both")
table("silver.flaky")
table("silver.after_flaky")
table("silver.mended")
table("memory.recent", provider_type="memory")
table("gold.recent")
table("gold.secret", provider__path="@secret:SHOP_SECRET_PATH")
table("gold.totals", TOTALS, ("item",), dataset__kind="derived")
table(
    "gold.by_item", TOTALS, ("item",), dataset__kind="derived", derived__replace_keys="item",
    **{
        "dagster/partitions": "static",
        "dagster/partitions__keys": "cap,ink,pen",
        "dagster/partition_column": "item",
    },
)  # fmt: skip
table("ref.items", TOTALS, ("item",), scd__type="2")
table("dropped.notes", None, ())
