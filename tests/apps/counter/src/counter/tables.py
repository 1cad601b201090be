from kindling.data_entities import DataEntities
from pyspark.sql.types import LongType, StringType, StructField, StructType

DataEntities.entity(
    entityid="words",
    name="words",
    merge_columns=["word"],
    tags={"layer": "raw"},
    schema=StructType([StructField("word", StringType(), False)]),
)
DataEntities.entity(
    entityid="counts",
    name="counts",
    merge_columns=["word"],
    tags={"layer": "mart"},
    schema=StructType([StructField("word", StringType(), False), StructField("n", LongType(), True)]),
)
