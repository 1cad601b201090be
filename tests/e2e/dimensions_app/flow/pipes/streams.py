import json
from functools import partial
from pathlib import Path

from kindling.data_pipes import DataPipes
from kindling.injection import get_kindling_service
from kindling.signaling import SignalProvider
from pyspark.sql import functions as F

HEARD = Path(__file__).parents[2] / "data" / "heard.jsonl"


def stream(inputs, output):
    def declare(function):
        return DataPipes.pipe(
            pipeid=function.__name__,
            name=function.__name__,
            tags={"processing_mode": "streaming"},
            input_entity_ids=inputs.split(),
            output_entity_id=output,
            output_type="table",
        )(function)

    return declare


@stream("bronze.numbers ref.rates", "silver.rated")
def rated(bronze_numbers, ref_rates):
    """Each number with the rate of its kind, which plain files hold."""
    return bronze_numbers.join(ref_rates, "kind", "left").select("id", "rate")


@stream("bronze.numbers ref.zones", "silver.zoned")
def zoned(bronze_numbers, ref_zones):
    """Each number with the zone of its kind, which a Delta table holds, and its country once that is known."""
    country = F.col("country") if "country" in ref_zones.columns else F.lit(None).cast("string")
    return bronze_numbers.join(ref_zones, "kind", "left").select("id", "zone", country.alias("country"))


@stream("silver.rated", "gold.onward")
def onward(silver_rated):
    """What the first stream writes, by id."""
    return silver_rated.select("id", "rate")


def hear(name, sender, **payload):
    with HEARD.open("a") as told:
        told.write(json.dumps([name, payload]) + "\n")


HEARING = {
    name: partial(hear, name)
    for name in (
        "streaming.dimension_changed",
        "streaming.restart_triggered",
        "streaming.cascade_restart_started",
        "streaming.cascade_restart_completed",
    )
}
for name, receiver in HEARING.items():
    get_kindling_service(SignalProvider).create_signal(name).connect(receiver, weak=False)
