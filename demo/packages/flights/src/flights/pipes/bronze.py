"""Landing → bronze: each landed row, once."""

from kindling.data_pipes import DataPipes

from flights.transforms import landed


@DataPipes.pipe(
    pipeid="bronze.flights",
    name="Flights landed",
    tags={"layer": "bronze"},
    input_entity_ids=["landing.flights"],
    output_entity_id="bronze.flights",
    output_type="table",
)
def flights(landing_flights):
    """Type the landed departures and keep those not seen before."""
    return landed.type_flights(landing_flights)


@DataPipes.pipe(
    pipeid="bronze.weather",
    name="Weather landed",
    tags={"layer": "bronze"},
    input_entity_ids=["landing.weather"],
    output_entity_id="bronze.weather",
    output_type="table",
)
def weather(landing_weather):
    """Type the landed weather hours and keep those not seen before."""
    return landed.type_weather(landing_weather)
