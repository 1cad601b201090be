from kindling.data_pipes import DataPipes
from pyspark.sql import functions as F


def pipe(inputs, output, **more):
    def declare(function):
        return DataPipes.pipe(
            pipeid=function.__name__,
            name=function.__name__,
            input_entity_ids=inputs.split(),
            output_entity_id=output,
            output_type="table",
            **{"tags": {}, **more},
        )(function)

    return declare


@pipe("raw.orders", "bronze.orders")
def land(raw_orders):
    return raw_orders.select(F.col("id").cast("long"), "item", F.col("amount").cast("long"))


@pipe("bronze.orders", "sound.history")
def history(bronze_orders):
    return bronze_orders


@pipe("sound.history.current", "sound.current_copy")
def current(sound_history_current):
    return sound_history_current.filter("__is_current").select("id", "sk", "__effective_from")


@pipe("bronze.orders", "sound.keyless")
def keyless(bronze_orders):
    return bronze_orders.groupBy("item").count()


@pipe("bronze.orders", "sound.memory")
def memory(bronze_orders):
    return bronze_orders.withColumn("double", F.col("amount") * 2)


DataPipes.view(
    pipeid="view",
    input_entity_ids=["sound.memory", "bronze.orders"],
    output_entity_id="sound.view",
    sql="SELECT m.id, m.double, b.item FROM sound_memory m JOIN bronze_orders b ON m.id = b.id",
)


@pipe("sound.view", "sound.derived")
def derived(sound_view):
    return sound_view.select("id", "item", F.col("double").alias("amount"))


@pipe("bronze.orders", "sound.stream", tags={"processing_mode": "streaming"})
def stream(bronze_orders):
    return bronze_orders.filter("amount > 0")


DataPipes.clone("cloned", from_pipe="stream", output_entity_id="sound.clone", name="cloned")


@pipe("bronze.orders", "sound.extended")
def extended(bronze_orders):
    return bronze_orders


DataPipes.extend(
    "extended",
    add_inputs=["sound.keyless"],
    transform=lambda df, sound_keyless: df.join(sound_keyless, "item"),
)


@pipe("bronze.orders", "sound.wide")
def wide(bronze_orders):
    return bronze_orders.withColumn("country", F.lit("NL"))


@pipe("sound.wide", "sound.after_wide")
def after_wide(sound_wide):
    return sound_wide.select("id", "country", "old_column")


@pipe("bronze.orders", "sound.counts")
def counts(bronze_orders):
    total = bronze_orders.count()
    first = bronze_orders.agg(F.max("amount")).collect()[0][0]
    return bronze_orders.select("id", F.lit(total).alias("total"), F.lit(first or 0).alias("first"))


@pipe("sound.sql", "sound.from_sql")
def from_sql(sound_sql):
    return sound_sql.select("id", "item")


@pipe("bronze.orders", "sound.audited")
def audited(bronze_orders):
    # What a receiver of persist.before_persist adds is there for whoever reads it: see broken.py.
    return bronze_orders
