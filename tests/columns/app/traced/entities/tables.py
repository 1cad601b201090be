from pathlib import Path

from kindling.data_entities import DataEntities

LAKE = Path(__file__).parents[2] / "data" / "lake"


def entity(entityid, **tags):
    DataEntities.entity(
        entityid=entityid,
        name=entityid.replace(".", "_"),
        merge_columns=[],
        tags={key.replace("__", "."): value for key, value in tags.items()},
        schema=None,
    )


entity("raw.sales")
entity("raw.shops")
DataEntities.sql_entity(
    entityid="ref.open_shops",
    name="open_shops",
    sql=f"SELECT id, upper(name) AS title FROM delta.`{LAKE / 'raw' / 'shops'}` WHERE open",
)
# A table of a pipe is written as Delta once; that is enough to see that it makes no difference.
entity("gold.joined")
for name in ("totals", "pairs", "titled", "unknown"):
    entity(f"memory.{name}", provider_type="memory")
