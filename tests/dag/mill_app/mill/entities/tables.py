from kindling.data_entities import DataEntities
from pyspark.sql.types import LongType, StringType, StructField, StructType

GRAIN = StructType([StructField("id", LongType(), False), StructField("kind", StringType(), True)])


def table(entityid, **tags):
    DataEntities.entity(
        entityid=entityid,
        name=entityid.replace(".", "_"),
        merge_columns=["id"],
        tags={key.replace("__", "."): value for key, value in tags.items()},
        schema=GRAIN,
    )


for entityid in ("lake.grain", "lake.kept"):
    table(entityid)
for name in ("a", "b", "c", "after", "start", "slow", "fast", "after_fast", "end", "both", "read"):
    # Parquet: quicker to write than Delta, where what is written is not the point.
    table(f"out.{name}", provider_type="parquet", provider__path=f"data/out/{name}")
