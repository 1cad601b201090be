from kindling.data_entities import DataEntities
from pyspark.sql.types import DateType, LongType, StringType, StructField, StructType

ORDERS = StructType(
    [
        StructField("id", LongType(), False),
        StructField("item", StringType(), True),
        StructField("amount", LongType(), True),
    ]
)
DAYS = StructType([*ORDERS.fields, StructField("day", DateType(), True)])


def table(entityid, schema=ORDERS, keys=("id",), partitions=(), clusters=(), **tags):
    DataEntities.entity(
        entityid=entityid,
        name=entityid.replace(".", "_"),
        merge_columns=list(keys),
        partition_columns=list(partitions),
        cluster_columns=list(clusters),
        tags={key.replace("__", "."): value for key, value in tags.items()},
        schema=schema,
    )


table("raw.orders", None)
table("bronze.orders")

# One target per kind of finding; the pipes stand in pipes/broken.py.
for name in (
    "column",
    "attribute",
    "type",
    "helper",
    "raises",
    "none",
    "caught",
    "hangs",
    "key",
    "cast",
    "twice",
):
    table(f"broken.{name}")
table("broken.partition", DAYS, partitions=["day"])
table("broken.cluster", None, clusters=["day"])
table("broken.sequence", DAYS, scd__type="2", scd__sequence_by="day")
table("broken.slices", DAYS, (), dataset__kind="derived", derived__replace_keys="day")
table("broken.surrogate", None, surrogate__column="sk", surrogate__from="id,country")
table("broken.view", provider_type="memory")
table("broken.drift", schema__drift="fail")
table("broken.live_type", None)
table("broken.lacks")
table("broken.incremental", None)

# Sound ones, one per kind of entity and pipe.
table("sound.history", scd__type="2", surrogate__column="sk")
table("sound.current_copy", None)
table("sound.keyless", None, ())
table("sound.memory", None, provider_type="memory")
table("sound.view", None, provider_type="memory")
table("sound.derived", dataset__kind="derived")
table("sound.stream")
table("sound.clone")
table("sound.extended", None)
table("sound.wide", None)
table("sound.after_wide", None)
table("sound.counts", None)
table("sound.from_sql", None)
table("sound.audited", None)
DataEntities.sql_entity(
    entityid="sound.sql",
    name="sound_sql",
    sql="WITH big AS (SELECT * FROM bronze_orders WHERE amount > 10) SELECT big.id, o.item FROM big "
    "JOIN sound_wide o ON o.id = big.id",
)
DataEntities.sql_entity(
    entityid="broken.sql",
    name="broken_sql",
    sql="SELECT id, amont FROM bronze_orders",
)
table("broken.from_sql", None)

# What lies behind something broken.
table("behind.bare", None)
table("behind.after_bare", None)
table("behind.after_declared", None)
table("behind.undeclared", None)
table("behind.writes", None)
table("behind.rows")
table("behind.after_writes", None)
