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


def table(entityid, schema, keys, **tags):
    DataEntities.entity(
        entityid=entityid,
        name=entityid.replace(".", "_"),
        merge_columns=list(keys),
        tags={key.replace("__", "."): value for key, value in tags.items()},
        schema=schema,
    )


table("raw.orders", ORDERS, ["id"], provider_type="csv", provider__header="true")
table("bronze.orders", ORDERS, ["id"])
table("silver.orders", None, ["id"])
table("silver.items", TOTALS, ["item"], scd__type="2")
table("gold.totals", TOTALS, ["item"], dataset__kind="derived")
table("gold.plain", TOTALS, ["item"], **{"dagster/lineage": "false"})
