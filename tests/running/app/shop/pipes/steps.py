import time
from pathlib import Path

from kindling.data_pipes import DataPipes
from pyspark.sql import functions as F


def pipe(inputs, output, **more):
    def declare(function):
        note = function.__name__

        def noted(**frames):
            with Path("data/calls.txt").open("a") as calls:
                calls.write(f"{note}\n")
            return function(**frames)

        noted.__doc__ = function.__doc__
        noted.__wrapped__ = function
        return DataPipes.pipe(
            pipeid=note,
            name=note,
            tags=more.pop("tags", {}),
            input_entity_ids=inputs.split(),
            output_entity_id=output,
            output_type="table",
            **more,
        )(noted)

    return declare


@pipe("raw.orders", "bronze.orders")
def land(raw_orders):
    """Types the raw orders."""
    return raw_orders.select(F.col("id").cast("long"), "item", F.col("amount").cast("long"))


@pipe("bronze.orders", "silver.orders")
def clean(bronze_orders):
    return bronze_orders.filter("amount > 0")


@pipe("bronze.orders", "silver.delta", use_watermark=True)
def follow(bronze_orders):
    return bronze_orders.select("id", "item", "amount")


@pipe("silver.orders", "silver.both")
def both_first(silver_orders):
    return silver_orders


@pipe("bronze.orders", "silver.both")
def both_second(bronze_orders):
    if Path("data/break_second").exists():
        raise ValueError("the second writer is broken")
    return bronze_orders.select(F.col("id") + 1000, "item", "amount").toDF("id", "item", "amount")


@pipe("silver.orders", "silver.flaky")
def flaky(silver_orders):
    fail = Path("data/fail")
    if fail.exists():
        text = fail.read_text()
        if text == "once":
            fail.unlink()
        if text == "hang":
            while fail.exists():
                time.sleep(0.05)
        if text == "job":
            # For hours, until Spark is told to end it.
            silver_orders.sparkSession.range(10**13).selectExpr("sum(hash(id))").collect()
        if text == "column":
            return silver_orders.select("no_such_column")
        raise ValueError("flaky failed as asked")
    return silver_orders


@pipe("silver.flaky", "silver.after_flaky")
def after_flaky(silver_flaky):
    return silver_flaky


@pipe("silver.orders", "memory.recent")
def recent(silver_orders):
    return silver_orders.orderBy(F.desc("id")).limit(2)


@pipe("memory.recent", "gold.recent")
def keep_recent(memory_recent):
    return memory_recent


@pipe("silver.orders", "gold.totals")
def totals(silver_orders):
    return silver_orders.groupBy("item").agg(F.sum("amount").alias("amount"))


@pipe("silver.orders", "gold.by_item")
def by_item(silver_orders):
    return silver_orders.groupBy("item").agg(F.sum("amount").alias("amount"))


@pipe("gold.totals", "ref.items")
def items(gold_totals):
    return gold_totals


@pipe("silver.orders", "gold.secret")
def secret(silver_orders):
    return silver_orders


@pipe("silver.orders", "silver.mended")
def misnamed(orders):
    return orders
