"""Live: what the streams keep up to date as flights arrive in bronze."""

from kindling.data_entities import DataEntities

from flights.schema import BOOL, DATE, DOUBLE, INT, LONG, STRING, TIMESTAMP, table

# Rows are only ever added here, so that another stream can follow the table.
DataEntities.insert_only_entity(
    entityid="silver.flights_live",
    name="silver_flights_live",
    merge_columns=["time_hour", "carrier", "flight"],
    tags={"layer": "silver", "owner": "team:operations"},
    schema=table(
        flight_date=DATE,
        time_hour=TIMESTAMP,
        carrier=STRING,
        flight=INT,
        origin=STRING,
        dest=STRING,
        tailnum=STRING,
        dep_delay_min=INT,
        arr_delay_min=INT,
        cancelled=BOOL,
        late=BOOL,
        airline=STRING,
        dest_name=STRING,
        manufacturer=STRING,
    ),
)

DataEntities.entity(
    entityid="gold.live_delays",
    name="gold_live_delays",
    merge_columns=["flight_date", "carrier"],
    tags={"layer": "gold", "owner": "team:punctuality"},
    schema=table(
        flight_date=DATE,
        carrier=STRING,
        airline=STRING,
        flights=LONG,
        cancelled=LONG,
        arrived=LONG,
        late=LONG,
        arr_delay_total_min=LONG,
    ),
)

DataEntities.derived_entity(
    entityid="gold.live_board",
    name="gold_live_board",
    merge_columns=[],
    tags={"layer": "gold", "owner": "team:punctuality"},
    schema=table(
        rank=INT,
        carrier=STRING,
        airline=STRING,
        flights=LONG,
        last_day=DATE,
        late_share=DOUBLE,
        mean_arr_delay_min=DOUBLE,
    ),
)
