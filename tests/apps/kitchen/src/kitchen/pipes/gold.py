"""Silver to gold."""

from kindling.data_pipes import DataPipes


def _make(name):
    @DataPipes.pipe(
        pipeid=f"gold.{name}",
        name=name,
        tags={},
        input_entity_ids=["silver.orders", "silver.customers.current"],
        output_entity_id=f"gold.{name}",
        output_type="delta",
    )
    def run(**frames):
        return frames["silver_orders"].groupBy(name).count()

    return run


for _name in ("summary", "ranking"):
    _make(_name)

DataPipes.view(
    pipeid="gold.enriched",
    input_entity_ids=["silver.orders", "silver.products"],
    output_entity_id="gold.enriched",
    sql_file="enriched.sql",
)


@DataPipes.view(
    pipeid="gold.labelled",
    name="Labelled",
    input_entity_ids=["gold.enriched"],
    output_entity_id="gold.labelled",
    sql="SELECT *, 1 AS label FROM gold_enriched",
)
def labelled(df):
    """The enriched rows, labelled."""
    return df
