"""An app whose tables are rows of a Delta table."""

from pathlib import Path

from kindling.data_entities import DataEntities
from kindling.data_pipes import DataPipes
from kindling.spark_session import get_or_create_spark_session

DEFINITIONS = Path(__file__).parent / "definitions"


def make_pipe(source, target):
    @DataPipes.pipe(
        pipeid=f"load.{target}",
        name=f"Load {target}",
        tags={"kind": "generated"},
        input_entity_ids=[source],
        output_entity_id=target,
        output_type="delta",
    )
    def load(**frames):
        return frames[source.replace(".", "_")]


spark = get_or_create_spark_session()
for row in spark.read.format("delta").load(str(DEFINITIONS)).orderBy("source").collect():
    for entity in (row.source, row.target):
        DataEntities.entity(
            entityid=entity,
            name=entity,
            merge_columns=[row.key],
            tags={"provider.path": "@secret:DYNAMIC_ROOT"} if entity == row.source else {},
            schema=None,
        )
    make_pipe(row.source, row.target)
