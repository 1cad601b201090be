import time
from pathlib import Path

from kindling.data_pipes import DataPipes
from pyspark.sql import functions as F


@DataPipes.pipe(
    pipeid="numbers",
    name="numbers",
    tags={},
    input_entity_ids=["raw.numbers"],
    output_entity_id="silver.numbers",
    output_type="table",
)
def numbers(raw_numbers):
    """The numbers, typed."""
    return raw_numbers.select(F.col("id").cast("long"), F.col("value").cast("long"))


@DataPipes.pipe(
    pipeid="late",
    name="late",
    tags={},
    input_entity_ids=["silver.numbers"],
    output_entity_id="silver.late",
    output_type="table",
)
def late(silver_numbers):
    """Waits until somebody lets it go on, or fails."""
    if Path("data/broken").exists():
        raise ValueError("late failed as asked")
    while not Path("data/go").exists():
        time.sleep(0.05)
    return silver_numbers


@DataPipes.pipe(
    pipeid="endless",
    name="endless",
    tags={},
    input_entity_ids=["silver.numbers"],
    output_entity_id="gold.endless",
    output_type="table",
)
def endless(silver_numbers):
    """A Spark job that takes for ever."""
    Path("data/endless_started").touch()
    spark = silver_numbers.sparkSession
    return (
        spark.range(10**15)
        .groupBy((F.col("id") % 7).alias("id"))
        .agg(F.sum("id").cast("long").alias("value"))
    )
