"""Silver: cleaned facts, and facts joined with what explains them."""

from kindling.data_entities import DataEntities

from flights.schema import BOOL, DATE, DOUBLE, INT, STRING, TIMESTAMP, table

_TAGS = {"layer": "silver", "owner": "team:operations"}

_FLIGHT = {
    "flight_date": DATE,
    "time_hour": TIMESTAMP,
    "carrier": STRING,
    "flight": INT,
    "origin": STRING,
    "dest": STRING,
    "tailnum": STRING,
    "scheduled_departure": TIMESTAMP,
    "departure": TIMESTAMP,
    "dep_delay_min": INT,
    "arr_delay_min": INT,
    "air_time_min": INT,
    "distance_mi": INT,
    "cancelled": BOOL,
    "diverted": BOOL,
    "late": BOOL,
}
_WEATHER = {
    "temp_f": DOUBLE,
    "wind_mph": DOUBLE,
    "gust_mph": DOUBLE,
    "precip_in": DOUBLE,
    "visibility_mi": DOUBLE,
}

DataEntities.entity(
    entityid="silver.flights",
    name="silver_flights",
    merge_columns=["time_hour", "carrier", "flight"],
    tags=_TAGS,
    schema=table(**_FLIGHT),
)

DataEntities.entity(
    entityid="silver.weather_hourly",
    name="silver_weather_hourly",
    merge_columns=["origin", "time_hour"],
    tags=_TAGS,
    schema=table(origin=STRING, time_hour=TIMESTAMP, obs_date=DATE, **_WEATHER),
)

DataEntities.derived_entity(
    entityid="silver.flights_enriched",
    name="silver_flights_enriched",
    merge_columns=[],
    tags=_TAGS,
    schema=table(
        **_FLIGHT,
        airline=STRING,
        origin_name=STRING,
        dest_name=STRING,
        built=INT,
        manufacturer=STRING,
        seats=INT,
    ),
)

DataEntities.derived_entity(
    entityid="silver.flights_weather",
    name="silver_flights_weather",
    merge_columns=[],
    tags=_TAGS,
    schema=table(**_FLIGHT, **_WEATHER),
)
