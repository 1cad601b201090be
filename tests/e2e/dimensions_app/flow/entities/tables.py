from kindling.data_entities import DataEntities
from pyspark.sql.types import LongType, StringType, StructField, StructType


def entity(entity_id, columns, keys=(), **tags):
    kinds = {"long": LongType(), "string": StringType()}
    fields = [StructField(*(part.split()[0], kinds[part.split()[1]])) for part in columns.split(",")]
    DataEntities.entity(
        entityid=entity_id,
        name=entity_id.replace(".", "_"),
        merge_columns=list(keys),
        tags={name.replace("__", "."): value for name, value in tags.items()},
        schema=StructType(fields),
    )


entity("bronze.numbers", "id long, kind string")
entity("ref.rates", "kind string, rate long", provider_type="parquet", provider__path="data/lake/ref/rates")
entity("ref.zones", "kind string, zone string", ["kind"])
entity("silver.rated", "id long, rate long")
entity("silver.zoned", "id long, zone string, country string")
entity("gold.onward", "id long, rate long", ["id"])
