from kindling.data_pipes import DataPipes
from pyspark.sql import functions as F


def pipe(inputs, output):
    return DataPipes.pipe(
        pipeid=output.rpartition(".")[2],
        name=output,
        tags={},
        input_entity_ids=inputs.split(),
        output_entity_id=output,
        output_type="table",
    )


@pipe("raw.sales raw.shops", "gold.joined")
def joined(raw_sales, raw_shops):
    """The key comes of both sides, which a full join shows."""
    return raw_sales.join(raw_shops, raw_sales.shop == raw_shops.id, "full").select(
        raw_sales.id.alias("sale"),
        F.coalesce(raw_sales.shop, raw_shops.id).alias("shop"),
        F.concat("name", F.lit(":"), "amount").alias("label"),
    )


@pipe("raw.sales", "memory.totals")
def totals(raw_sales):
    return raw_sales.groupBy("shop").agg(F.sum("amount").alias("amount"), F.count("*").alias("sales"))


@pipe("raw.sales", "memory.pairs")
def pairs(raw_sales):
    one, other = raw_sales.alias("one"), raw_sales.alias("other")
    return one.join(other, F.expr("one.shop = other.shop AND one.id < other.id")).select(
        F.col("one.id").alias("first"), F.expr("other.amount - one.amount").alias("more")
    )


@pipe("raw.sales ref.open_shops", "memory.titled")
def titled(raw_sales, ref_open_shops):
    raw_sales.createOrReplaceTempView("sales")
    ref_open_shops.createOrReplaceTempView("shops")
    return raw_sales.sparkSession.sql(
        "WITH some AS (SELECT shop, amount FROM sales WHERE amount > 0) "
        "SELECT s.title, some.amount FROM some JOIN shops s ON s.id = some.shop"
    )


@pipe("raw.sales", "memory.unknown")
def unknown(raw_sales):
    numbers = raw_sales.sparkSession.range(10).withColumnRenamed("id", "number")
    return raw_sales.join(numbers, raw_sales.id == numbers.number).select(
        "id", "number", F.lit("EUR").alias("currency")
    )
