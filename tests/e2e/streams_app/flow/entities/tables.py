from kindling.data_entities import DataEntities
from pyspark.sql.types import LongType, StructField, StructType

NUMBERS = StructType([StructField("id", LongType(), False), StructField("value", LongType(), True)])

for name in ("bronze.numbers", "silver.live", "gold.squares"):
    DataEntities.entity(
        entityid=name, name=name.replace(".", "_"), merge_columns=["id"], tags={}, schema=NUMBERS
    )
