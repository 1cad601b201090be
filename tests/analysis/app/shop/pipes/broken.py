import time
from pathlib import Path

from kindling.data_pipes import DataPipes
from pyspark.sql import functions as F

from shop.pipes.helpers import price_of
from shop.pipes.sound import pipe


@pipe("bronze.orders", "broken.column")
def column(bronze_orders):
    kept = bronze_orders.filter("id > 0")
    return kept.select("id", "item", "amuont")  # line: column


@pipe("bronze.orders", "broken.attribute")
def attribute(bronze_orders):
    return bronze_orders.filter(bronze_orders.itme == "pen")  # line: attribute


@pipe("bronze.orders", "broken.type")
def wrong_type(bronze_orders):
    return bronze_orders.withColumn("item", F.year(F.array("amount")))  # line: wrong_type


@pipe("bronze.orders", "broken.helper")
def helper(bronze_orders):
    return price_of(bronze_orders)


@pipe("bronze.orders", "broken.raises")
def raises(bronze_orders):
    raise KeyError("rates")  # line: raises


@pipe("bronze.orders", "broken.none")
def none(bronze_orders):
    bronze_orders.filter("amount > 0")


@pipe("bronze.orders", "broken.hangs")
def hangs(bronze_orders):
    while True:
        time.sleep(0.02)  # line: hangs


@pipe("bronze.orders", "broken.key")
def key(bronze_orders):
    return bronze_orders.withColumnRenamed("id", "ids")


@pipe("bronze.orders", "broken.cast")
def cast(bronze_orders):
    return bronze_orders.withColumn("amount", F.col("amount").cast("string"))


@pipe("bronze.orders", "broken.twice")
def twice(bronze_orders):
    return bronze_orders.select("id", "item", "amount", F.lit(1).cast("long").alias("amount"))


@pipe("bronze.orders", "broken.partition")
def partition(bronze_orders):
    return bronze_orders.withColumn("days", F.current_date())


@pipe("bronze.orders", "broken.cluster")
def cluster(bronze_orders):
    return bronze_orders


@pipe("bronze.orders", "broken.sequence")
def sequence(bronze_orders):
    return bronze_orders


@pipe("bronze.orders", "broken.slices")
def slices(bronze_orders):
    return bronze_orders


@pipe("bronze.orders", "broken.surrogate")
def surrogate(bronze_orders):
    return bronze_orders


DataPipes.view(
    pipeid="broken_view",
    input_entity_ids=["bronze.orders"],
    output_entity_id="broken.view",
    sql="SELECT id, itm FROM bronze_orders",
)


@pipe("bronze.orders", "broken.drift")
def drift(bronze_orders):
    return bronze_orders.withColumn("extra", F.lit(1))


@pipe("bronze.orders", "broken.live_type")
def live_type(bronze_orders):
    return bronze_orders.select("id", F.current_date().alias("amount"))


@pipe("bronze.orders", "broken.lacks")
def lacks(bronze_orders):
    return bronze_orders.select("id", "item", F.col("amount").alias("amont"))


@pipe("bronze.orders", "behind.rows")
def rows(bronze_orders):
    newest = bronze_orders.orderBy("id").first()
    return bronze_orders.filter(F.col("id") > newest["id"])  # line: rows


# Sound when watermarks are on, which add the column.
@pipe("bronze.orders", "broken.incremental", use_watermark=True)
def incremental(bronze_orders):
    return bronze_orders.select("id", "SourceVersion")


@pipe("broken.sql", "broken.from_sql")
def from_broken_sql(broken_sql):
    return broken_sql


@pipe("bronze.orders", "behind.bare")
def bare(bronze_orders):
    priced = bronze_orders.select("id", F.lit(1).alias("price"))
    return priced.select("nothing_like_it")  # line: bare


@pipe("behind.bare", "behind.after_bare")
def after_bare(behind_bare):
    return behind_bare


@pipe("broken.column", "behind.after_declared")
def after_declared(broken_column):
    return broken_column.select("id", "amount")


@pipe("bronze.orders", "behind.writes")
def writes(bronze_orders):
    try:
        bronze_orders.write.format("delta").save("data/lake/by_hand")
    except Exception as error:
        raise RuntimeError("cannot write") from error
    return bronze_orders


@pipe("behind.writes", "behind.after_writes")
def after_writes(behind_writes):
    return behind_writes


@pipe("bronze.orders", "broken.caught")
def caught(bronze_orders):
    spark = bronze_orders.sparkSession
    for write in (
        lambda: bronze_orders.write.parquet("data/lake/parquet"),
        lambda: bronze_orders.writeTo("t").create(),
        lambda: spark.sql("CREATE TABLE made_by_sql (id INT) USING delta"),
        lambda: spark.sql("INSERT INTO delta.`data/lake/sound/wide` SELECT 1, 'a'"),
        lambda: bronze_orders.rdd.saveAsTextFile("data/lake/text"),
        lambda: spark.catalog.createTable("made_by_catalog", schema=bronze_orders.schema),
        lambda: _delta().merge(bronze_orders.alias("n"), "n.id = id"),
        lambda: _provider().write_to_entity(bronze_orders, None),
    ):
        try:
            write()
        except Exception as error:
            with Path("../refused.txt").open("a") as log:
                log.write(f"{type(error).__name__}: {error}\n")
        else:
            raise AssertionError("written")
    return bronze_orders


def _delta():
    from delta.tables import DeltaTable
    from pyspark.sql import SparkSession

    return DeltaTable.forPath(SparkSession.getActiveSession(), "data/lake/sound/wide")


def _provider():
    from kindling.entity_provider_memory import MemoryEntityProvider
    from kindling.injection import get_kindling_service

    return get_kindling_service(MemoryEntityProvider)
