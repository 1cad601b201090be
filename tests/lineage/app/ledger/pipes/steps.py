import os

from kindling.data_pipes import DataPipes
from pyspark.sql import functions as F


def pipe(pipeid, inputs, output):
    return DataPipes.pipe(
        pipeid=pipeid,
        name=pipeid,
        tags={},
        input_entity_ids=inputs.split(),
        output_entity_id=output,
        output_type="table",
    )


@pipe("bronze.land", "raw.orders", "bronze.orders")
def land(raw_orders):
    return raw_orders.select(F.col("id").cast("long"), "item", F.col("amount").cast("long"))


@pipe("silver.clean", "bronze.orders", "silver.orders")
def clean(bronze_orders):
    factor = int(os.environ.get("LEDGER_FACTOR", "1"))
    return bronze_orders.filter("amount > 0").withColumn("amount", F.col("amount") * factor)


@pipe("silver.count", "bronze.orders", "silver.items")
def count(bronze_orders):
    return bronze_orders.groupBy("item").agg(F.sum("amount").alias("amount"))


@pipe("gold.total", "silver.orders silver.items", "gold.totals")
def total(silver_orders, silver_items):
    # Both sides bring the same lineage columns along, which a join of everything would not survive.
    joined = silver_orders.join(silver_items.filter("__is_current").drop("amount"), "item")
    return joined.groupBy("item").agg(F.sum("amount").alias("amount"))


@pipe("gold.plain", "silver.orders", "gold.plain")
def plain(silver_orders):
    return silver_orders.groupBy("item").agg(F.sum("amount").alias("amount"))
