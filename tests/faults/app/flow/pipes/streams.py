from kindling.data_pipes import DataPipes
from pyspark.sql import functions as F

from flow.entities.tables import COPIES


def stream(inputs, output, pipe_id=None):
    def declare(function):
        return DataPipes.pipe(
            pipeid=pipe_id or function.__name__,
            name=pipe_id or function.__name__,
            tags={"processing_mode": "streaming"},
            input_entity_ids=inputs.split(),
            output_entity_id=output,
            output_type="table",
        )(function)

    return declare


@stream("raw.orders", "silver.orders")
def clean(raw_orders):
    """Appends each order as it comes."""
    return raw_orders.select("id", "item", "amount")


@stream("silver.orders ref.items", "gold.priced")
def priced(silver_orders, ref_items):
    """Orders with the price of their item, merged by id; a price below zero is poison."""
    joined = silver_orders.join(ref_items, "item", "left")
    price = (
        F.when(F.col("price") < 0, F.raise_error(F.lit("poison: a price below zero")))
        .otherwise(F.col("price"))
        .cast("long")
    )
    return joined.select(
        "id", "item", "amount", price.alias("price"), (F.col("amount") * price).alias("value")
    )


@stream("raw.orders", "gold.history")
def history(raw_orders):
    """Versions of each order."""
    return raw_orders.select("id", "item", "amount")


for name in COPIES:
    stream("raw.orders", f"silver.{name}", name)(clean)
