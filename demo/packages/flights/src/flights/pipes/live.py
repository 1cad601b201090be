"""Streams: bronze → silver → gold as flights arrive, and the batch pipe that reads what they committed."""

from kindling.data_pipes import DataPipes

from flights.transforms import live

_STREAM = {"processing_mode": "streaming"}


@DataPipes.pipe(
    pipeid="silver.flights_live",
    name="Flights as they arrive",
    tags={"layer": "silver", **_STREAM},
    input_entity_ids=["bronze.flights", "ref.airlines", "ref.airports", "landing.planes"],
    output_entity_id="silver.flights_live",
    output_type="table",
)
def flights_live(bronze_flights, ref_airlines, ref_airports, landing_planes):
    """Each flight with its carrier's and its destination's name, and who built the plane by the newest register."""
    return live.enrich(bronze_flights, ref_airlines, ref_airports, landing_planes)


@DataPipes.pipe(
    pipeid="gold.live_delays",
    name="Delays as flights arrive",
    tags={"layer": "gold", **_STREAM},
    input_entity_ids=["silver.flights_live"],
    output_entity_id="gold.live_delays",
    output_type="table",
)
def live_delays(silver_flights_live):
    """Each carrier's day so far: how many flights, how many late, how late in all."""
    return live.delays_by_day(silver_flights_live)


@DataPipes.pipe(
    pipeid="gold.live_board",
    name="Carriers by punctuality, live",
    tags={"layer": "gold"},
    input_entity_ids=["gold.live_delays"],
    output_entity_id="gold.live_board",
    output_type="table",
)
def live_board(gold_live_delays):
    """The carriers' ranking over all days that the streams have seen."""
    return live.board(gold_live_delays)
