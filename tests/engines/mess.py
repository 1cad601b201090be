"""A module for a copy of tests/running/app: leaves things behind in the session, or tells what it finds there."""

import json
from pathlib import Path

from kindling.data_entities import DataEntityRegistry
from kindling.data_pipes import DataPipes
from kindling.entity_provider_registry import EntityProviderRegistry
from kindling.injection import get_kindling_service
from kindling.signaling import SignalProvider
from kindling.spark_session import get_or_create_spark_session

HEARD = Path("data/heard.txt")


def heard(sender, **_):
    with HEARD.open("a") as file:
        file.write("x")


def pipe(pipeid, output):
    return DataPipes.pipe(
        pipeid=pipeid,
        name=pipeid,
        tags={},
        input_entity_ids=["bronze.orders"],
        output_entity_id=output,
        output_type="table",
    )


def cached(spark):
    return [str(rdd.name()) for rdd in spark.sparkContext._jsc.getPersistentRDDs().values()]


def memory_entity():
    """One of the app's, and what holds it."""
    entity = get_kindling_service(DataEntityRegistry).get_entity_definition("memory.recent")
    return get_kindling_service(EntityProviderRegistry).get_provider_for_entity(entity), entity


@pipe("plant", "silver.delta")
def plant(bronze_orders):
    """Leaves a view, cached data, rows in memory, a setting, a function, another database and a subscriber."""
    spark = get_or_create_spark_session()
    bronze_orders.createOrReplaceTempView("planted")
    bronze_orders.createOrReplaceGlobalTempView("planted")
    bronze_orders.cache().count()
    spark.sparkContext.parallelize([1]).cache().count()
    provider, entity = memory_entity()
    provider.write_to_entity(bronze_orders, entity)
    spark.conf.set("spark.sql.shuffle.partitions", "7")
    spark.conf.set("spark.kindling.planted", "yes")
    spark.udf.register("planted_function", lambda value: value)
    spark.sql("CREATE DATABASE IF NOT EXISTS planted")
    spark.catalog.setCurrentDatabase("planted")
    get_kindling_service(SignalProvider).create_signal("persist.after_persist").connect(heard, weak=False)
    return bronze_orders.select("id", "item", "amount")


@pipe("look", "silver.mended")
def look(bronze_orders):
    """Tells what it finds of that."""
    spark = get_or_create_spark_session()
    provider, entity = memory_entity()
    found = {
        "views": [row["viewName"] for row in spark.sql("SHOW VIEWS").collect()]
        + [row["viewName"] for row in spark.sql("SHOW VIEWS IN global_temp").collect()],
        "cached": [name for name in cached(spark) if not name.startswith("Delta Table State")],
        "memory": provider.check_entity_exists(entity),
        "partitions": spark.conf.get("spark.sql.shuffle.partitions"),
        "setting": spark.conf.get("spark.kindling.planted", ""),
        "function": spark.catalog.functionExists("planted_function"),
        "database": spark.catalog.currentDatabase(),
        "group": spark.sparkContext.getLocalProperty("spark.job.description") or "",
    }
    Path("data/found.json").write_text(json.dumps(found))
    return bronze_orders.select("id", "item", "amount")


@pipe("weigh", "silver.mended")
def weigh(bronze_orders):
    """Tells what the JVM holds once its garbage is gone, and what was kept until Spark heard of that."""
    management = get_or_create_spark_session().sparkContext._jvm.java.lang.management.ManagementFactory
    memory = management.getMemoryMXBean()
    heaps = [memory.getHeapMemoryUsage().getUsed()]
    while len(heaps) < 3 or (len(heaps) < 10 and heaps[-1] < heaps[-2] - 2**20):
        memory.gc()
        heaps.append(memory.getHeapMemoryUsage().getUsed())
    held = {
        "heap": heaps[-1],
        "beside the heap": memory.getNonHeapMemoryUsage().getUsed(),
        "threads": management.getThreadMXBean().getThreadCount(),
    }
    Path("data/held.json").write_text(json.dumps(held))
    return bronze_orders.select("id", "item", "amount")
