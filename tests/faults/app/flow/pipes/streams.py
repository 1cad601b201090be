from kindling.data_pipes import DataPipes
from pyspark.sql import functions as F

STREAM = {"processing_mode": "streaming"}


def poison(amount):
    """Fails on a row whose amount is -1."""
    return F.when(amount == -1, F.raise_error(F.lit("a poison row"))).otherwise(amount).cast("long")


@DataPipes.pipe(
    pipeid="clean",
    name="clean",
    tags=STREAM,
    input_entity_ids=["raw.orders"],
    output_entity_id="silver.orders",
    output_type="table",
)
def clean(raw_orders):
    """Appends each order as it comes."""
    return raw_orders.select("id", "item", "amount")


@DataPipes.pipe(
    pipeid="priced",
    name="priced",
    tags=STREAM,
    input_entity_ids=["silver.orders", "ref.items"],
    output_entity_id="gold.priced",
    output_type="table",
)
def priced(silver_orders, ref_items):
    """Orders with the price of their item, merged by id."""
    joined = silver_orders.join(ref_items, "item", "left")
    amount = poison(F.col("amount"))
    return joined.select("id", "item", amount.alias("amount"), "price", (amount * F.col("price")).alias("value"))


@DataPipes.pipe(
    pipeid="history",
    name="history",
    tags=STREAM,
    input_entity_ids=["raw.orders"],
    output_entity_id="gold.history",
    output_type="table",
)
def history(raw_orders):
    """Versions of each order."""
    return raw_orders.select("id", "item", "amount")
