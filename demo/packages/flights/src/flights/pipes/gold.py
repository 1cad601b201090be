"""Silver → gold: the answers."""

from kindling.data_pipes import DataPipes

from flights.transforms import answers

_TAGS = {"layer": "gold"}


@DataPipes.pipe(
    pipeid="gold.delay_by_carrier_month",
    name="Delay by carrier and month",
    tags=_TAGS,
    input_entity_ids=["silver.flights_enriched"],
    output_entity_id="gold.delay_by_carrier_month",
    output_type="table",
)
def delay_by_carrier_month(silver_flights_enriched):
    """How late was each carrier in each month?"""
    return answers.delay_by_carrier_month(silver_flights_enriched)


DataPipes.view(
    pipeid="gold.route_stats",
    name="Flights and delays by route",
    tags=_TAGS,
    input_entity_ids=["silver.flights_enriched"],
    output_entity_id="gold.route_stats",
    sql_file="sql/route_stats.sql",
)


@DataPipes.pipe(
    pipeid="gold.worst_routes",
    name="Worst routes",
    tags=_TAGS,
    input_entity_ids=["gold.route_stats"],
    output_entity_id="gold.worst_routes",
    output_type="table",
)
def worst_routes(gold_route_stats):
    """Which routes arrive latest?"""
    return answers.worst_routes(gold_route_stats)


@DataPipes.pipe(
    pipeid="gold.weather_delay",
    name="Weather against delay",
    tags=_TAGS,
    input_entity_ids=["silver.flights_weather"],
    output_entity_id="gold.weather_delay",
    output_type="table",
)
def weather_delay(silver_flights_weather):
    """What do poor visibility, rain and snow cost?"""
    return answers.weather_delay(silver_flights_weather)


@DataPipes.pipe(
    pipeid="gold.carrier_punctuality",
    name="Punctuality by carrier",
    tags=_TAGS,
    input_entity_ids=["silver.flights_enriched"],
    output_entity_id="gold.carrier_punctuality",
    output_type="table",
)
def carrier_punctuality(silver_flights_enriched):
    """Which carrier keeps its timetable?"""
    return answers.carrier_punctuality(silver_flights_enriched)


@DataPipes.pipe(
    pipeid="gold.plane_age_delay",
    name="Plane age against delay",
    tags=_TAGS,
    input_entity_ids=["silver.flights", "ref.planes.current"],
    output_entity_id="gold.plane_age_delay",
    output_type="table",
)
def plane_age_delay(silver_flights, ref_planes_current):
    """Are old planes later than new ones?"""
    return answers.plane_age_delay(silver_flights, ref_planes_current)


@DataPipes.pipe(
    pipeid="gold.daily_operations",
    name="Each airport's day",
    tags=_TAGS,
    input_entity_ids=["silver.flights", "silver.weather_hourly"],
    output_entity_id="gold.daily_operations",
    output_type="table",
)
def daily_operations(silver_flights, silver_weather_hourly):
    """What did a day look like at each airport, and what was the weather?"""
    return answers.daily_operations(silver_flights, silver_weather_hourly)


@DataPipes.pipe(
    pipeid="gold.carrier_scorecard",
    name="Scorecard by carrier",
    tags=_TAGS,
    input_entity_ids=["gold.carrier_punctuality", "gold.delay_by_carrier_month"],
    output_entity_id="gold.carrier_scorecard",
    output_type="table",
)
def carrier_scorecard(gold_carrier_punctuality, gold_delay_by_carrier_month):
    """Each carrier on one line: rank, punctuality, best and worst month."""
    return answers.carrier_scorecard(gold_carrier_punctuality, gold_delay_by_carrier_month)
