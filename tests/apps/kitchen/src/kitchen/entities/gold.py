"""Answers."""

from kindling.data_entities import DataEntities

DataEntities.derived_entity(
    entityid="gold.summary", name="summary", merge_columns=[], schema=None, replace_keys=["day"]
)
DataEntities.entity(entityid="gold.ranking", name="ranking", merge_columns=["rank"], tags={}, schema=None)
DataEntities.entity(
    entityid="gold.enriched", name="enriched", merge_columns=[], tags={"provider_type": "memory"}, schema=None
)
DataEntities.entity(
    entityid="gold.labelled", name="labelled", merge_columns=[], tags={"provider_type": "memory"}, schema=None
)
DataEntities.sql_entity(
    entityid="reporting.recent",
    name="recent",
    sql="SELECT * FROM silver.orders o -- not bronze.orders\nJOIN `silver`.`customers` c USING (customer_id)",
)
