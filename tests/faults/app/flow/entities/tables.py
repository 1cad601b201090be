from pathlib import Path

from kindling.data_entities import DataEntities
from pyspark.sql.types import LongType, StringType, StructField, StructType


def fields(text):
    kinds = {"long": LongType(), "string": StringType()}
    return StructType([StructField(*(part.split()[0], kinds[part.split()[1]])) for part in text.split(",")])


def entity(entity_id, columns, keys=(), tags=None):
    DataEntities.entity(
        entityid=entity_id,
        name=entity_id.replace(".", "_"),
        merge_columns=list(keys),
        tags=tags or {},
        schema=fields(columns),
    )


entity("raw.orders", "id long, item string, amount long")
entity("ref.items", "item string, price long", ["item"])
entity("silver.orders", "id long, item string, amount long")
entity("gold.priced", "id long, item string, amount long, price long, value long", ["id"])
entity(
    "gold.history",
    "id long, item string, amount long",
    ["id"],
    {"scd.type": "2"},
)

COPIES = (Path(__file__).parents[2] / "copies.txt").read_text().split()
for name in COPIES:
    entity(f"silver.{name}", "id long, item string, amount long")
