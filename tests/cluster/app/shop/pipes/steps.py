from kindling.data_pipes import DataPipes
from pyspark.sql import functions as F

# A row that takes its time without taking a core.
SLEEP = "java_method('java.lang.Thread', 'sleep', 100L) = 'null'"
TASKS = 40


def pipe(inputs, output):
    def declare(function):
        name = function.__name__
        return DataPipes.pipe(
            pipeid=name,
            name=name,
            tags={},
            input_entity_ids=inputs.split(),
            output_entity_id=output,
            output_type="table",
        )(function)

    return declare


def total(orders, times):
    """Sums per item over so many copies of the orders."""
    copies = times.crossJoin(F.broadcast(orders))
    return copies.groupBy("item").agg(F.sum(F.col("amount").cast("long")).alias("amount"))


@pipe("raw.orders", "silver.orders")
def clean(raw_orders):
    """The orders, typed, without those of nothing."""
    typed = raw_orders.select(F.col("id").cast("long"), "item", F.col("amount").cast("long"))
    return typed.filter("amount > 0")


@pipe("silver.orders", "gold.totals")
def totals(silver_orders):
    """Many tasks of a moment each, and a shuffle after them."""
    return total(silver_orders, silver_orders.sparkSession.range(0, TASKS, 1, TASKS).filter(SLEEP))


@pipe("gold.totals", "ref.items")
def items(gold_totals):
    """The totals with their history."""
    return gold_totals


@pipe("raw.orders", "gold.endless")
def endless(raw_orders):
    """A Spark job that never ends."""
    return total(raw_orders, raw_orders.sparkSession.range(0, 10**12, 1, 4).filter(SLEEP))
