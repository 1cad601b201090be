from kindling.data_pipes import DataPipes
from pyspark.sql import functions as F

STREAM = {"processing_mode": "streaming"}


@DataPipes.pipe(
    pipeid="live",
    name="live",
    tags=STREAM,
    input_entity_ids=["bronze.numbers"],
    output_entity_id="silver.live",
    output_type="table",
)
def live(bronze_numbers):
    """The numbers, as they come."""
    return bronze_numbers.select("id", "value")


@DataPipes.pipe(
    pipeid="squares",
    name="squares",
    tags=STREAM,
    input_entity_ids=["bronze.numbers"],
    output_entity_id="gold.squares",
    output_type="table",
)
def squares(bronze_numbers):
    """The numbers, squared."""
    return bronze_numbers.select("id", (F.col("value") * F.col("value")).alias("value"))
