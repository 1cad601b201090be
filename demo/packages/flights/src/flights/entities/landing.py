"""Landing zone: the files as they arrive. CSV, everything text; settings say where they lie."""

from kindling.data_entities import DataEntities

from flights.schema import DATE, STRING, table

_CSV = {
    "layer": "landing",
    "provider_type": "csv",
    "provider.header": "true",
    "provider.inferSchema": "false",
    "provider.nullValue": "NA",
}


def _text(*names: str) -> dict:
    return dict.fromkeys(names, STRING)


DataEntities.entity(
    entityid="landing.flights",
    name="landing_flights",
    merge_columns=[],
    tags={**_CSV, "description": "Departures as the airports report them, one folder a day."},
    schema=table(
        **_text(
            "year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time",
            "sched_arr_time", "arr_delay", "carrier", "flight", "tailnum", "origin", "dest",
            "air_time", "distance", "hour", "minute", "time_hour",
        ),
        date=DATE,
    ),
)  # fmt: skip

DataEntities.entity(
    entityid="landing.weather",
    name="landing_weather",
    merge_columns=[],
    tags={**_CSV, "description": "Hourly weather at the three airports, one folder a day."},
    schema=table(
        **_text(
            "origin", "year", "month", "day", "hour", "temp", "dewp", "humid", "wind_dir",
            "wind_speed", "wind_gust", "precip", "pressure", "visib", "time_hour",
        ),
        date=DATE,
    ),
)  # fmt: skip

DataEntities.entity(
    entityid="landing.airlines",
    name="landing_airlines",
    merge_columns=[],
    tags={**_CSV, "description": "Carrier codes and names."},
    schema=table(**_text("carrier", "name")),
)

DataEntities.entity(
    entityid="landing.airports",
    name="landing_airports",
    merge_columns=[],
    tags={**_CSV, "description": "Airports of the United States."},
    schema=table(**_text("faa", "name", "lat", "lon", "alt", "tz", "dst", "tzone")),
)

DataEntities.entity(
    entityid="landing.planes",
    name="landing_planes",
    merge_columns=[],
    tags={**_CSV, "description": "The aircraft register: always the whole of it."},
    schema=table(
        **_text("tailnum", "year", "type", "manufacturer", "model", "engines", "seats", "speed", "engine")
    ),
)
