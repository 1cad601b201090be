"""Bronze: every row ever landed, typed, once."""

from kindling.data_entities import DataEntities

from flights.schema import DATE, DOUBLE, INT, STRING, TIMESTAMP, table

_TAGS = {"layer": "bronze", "owner": "team:ingestion"}

DataEntities.insert_only_entity(
    entityid="bronze.flights",
    name="bronze_flights",
    merge_columns=["time_hour", "carrier", "flight"],
    tags=_TAGS,
    schema=table(
        flight_date=DATE,
        time_hour=TIMESTAMP,
        carrier=STRING,
        flight=INT,
        origin=STRING,
        dest=STRING,
        tailnum=STRING,
        hour=INT,
        minute=INT,
        sched_dep_time=INT,
        dep_time=INT,
        dep_delay=INT,
        sched_arr_time=INT,
        arr_time=INT,
        arr_delay=INT,
        air_time=INT,
        distance=INT,
    ),
)

DataEntities.insert_only_entity(
    entityid="bronze.weather",
    name="bronze_weather",
    merge_columns=["origin", "time_hour"],
    tags=_TAGS,
    schema=table(
        obs_date=DATE,
        origin=STRING,
        time_hour=TIMESTAMP,
        temp=DOUBLE,
        dewp=DOUBLE,
        humid=DOUBLE,
        wind_dir=INT,
        wind_speed=DOUBLE,
        wind_gust=DOUBLE,
        precip=DOUBLE,
        pressure=DOUBLE,
        visib=DOUBLE,
    ),
)
