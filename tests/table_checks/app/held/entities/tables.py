from kindling.data_entities import DataEntities
from pyspark.sql.types import LongType, StringType, StructField, StructType

ROWS = StructType([StructField("id", LongType(), True), StructField("item", StringType(), True)])


def table(entityid, partitions=(), **tags):
    DataEntities.entity(
        entityid=entityid,
        name=entityid.replace(".", "_"),
        merge_columns=["id"],
        partition_columns=list(partitions),
        tags={key.replace("__", "."): value for key, value in tags.items()},
        schema=ROWS,
    )


ALL = {"dagster/blocking_checks": "true"}

table("raw.rows", **{"dagster/checks": "false"})
table("silver.kept", **ALL)
table("silver.nulls")
table("silver.twice", **{"dagster/blocking_checks": "merge_keys_unique"})
table("gold.of_twice")
table("gold.of_kept", **{"dagster/checks": "false"})
table("silver.moved", ["item"], **{"dagster/blocking_checks": "schema_drift"})
table("silver.people", scd__type="2")
table("silver.broken_people", scd__type="2")
table("silver.known", provider__access_mode="catalog", provider__table_name="held_known")
table("silver.widened", **ALL)
