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


def table(entityid, schema, keys, tags):
    DataEntities.entity(
        entityid=entityid,
        name=entityid.replace(".", "_"),
        merge_columns=keys,
        tags=tags,
        schema=schema,
    )


table("raw.orders", ORDERS, ["id"], {"provider_type": "csv", "provider.header": "true"})
table("silver.orders", ORDERS, ["id"], {})
table("gold.totals", TOTALS, ["item"], {"dataset.kind": "derived"})
table("gold.endless", TOTALS, ["item"], {})
table("ref.items", TOTALS, ["item"], {"scd.type": "2"})
