from kindling.data_entities import DataEntities
from pyspark.sql.types import LongType, StructField, StructType

NUMBERS = StructType([StructField("id", LongType(), False), StructField("value", LongType(), True)])

DataEntities.entity(
    entityid="raw.numbers",
    name="numbers",
    merge_columns=["id"],
    tags={"provider_type": "csv", "provider.header": "true"},
    schema=NUMBERS,
)
for name in ("silver.numbers", "silver.late", "gold.endless"):
    DataEntities.entity(
        entityid=name, name=name.replace(".", "_"), merge_columns=["id"], tags={}, schema=NUMBERS
    )
