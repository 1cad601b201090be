"""Bronze and reference → silver: cleaned facts, joined with what explains them."""

from kindling.data_pipes import DataPipes

from flights.transforms import facts


@DataPipes.pipe(
    pipeid="silver.flights",
    name="Flights cleaned",
    tags={"layer": "silver"},
    input_entity_ids=["bronze.flights"],
    output_entity_id="silver.flights",
    output_type="table",
    use_watermark=True,
)
def flights(bronze_flights):
    """Departure times as instants, delays, and whether a flight was cancelled, diverted or late."""
    return facts.clean_flights(bronze_flights)


@DataPipes.pipe(
    pipeid="silver.weather_hourly",
    name="Weather cleaned",
    tags={"layer": "silver"},
    input_entity_ids=["bronze.weather"],
    output_entity_id="silver.weather_hourly",
    output_type="table",
    use_watermark=True,
)
def weather_hourly(bronze_weather):
    """Hourly weather per airport, units in the names."""
    return facts.clean_weather(bronze_weather)


@DataPipes.pipe(
    pipeid="silver.flights_enriched",
    name="Flights with carrier, airports and plane",
    tags={"layer": "silver"},
    input_entity_ids=["silver.flights", "ref.airlines", "ref.airports", "ref.planes.current"],
    output_entity_id="silver.flights_enriched",
    output_type="table",
)
def flights_enriched(silver_flights, ref_airlines, ref_airports, ref_planes_current):
    """Who flew, from where to where, and in which plane."""
    return facts.enrich_flights(silver_flights, ref_airlines, ref_airports, ref_planes_current)


@DataPipes.pipe(
    pipeid="silver.flights_weather",
    name="Flights with weather",
    tags={"layer": "silver"},
    input_entity_ids=["silver.flights", "silver.weather_hourly"],
    output_entity_id="silver.flights_weather",
    output_type="table",
)
def flights_weather(silver_flights, silver_weather_hourly):
    """Flights beside the weather at their airport in their scheduled hour."""
    return facts.with_weather(silver_flights, silver_weather_hourly)
