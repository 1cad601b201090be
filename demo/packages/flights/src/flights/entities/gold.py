"""Gold: answers. Each is computed anew from its inputs (derived), so nothing stale stays.

``gold.daily_operations`` is replaced day by day: what a run computes of some days leaves the others as they are.
"""

from kindling.data_entities import DataEntities

from flights.schema import DATE, DOUBLE, INT, LONG, STRING, table

_TAGS = {"layer": "gold", "owner": "team:punctuality"}

DataEntities.derived_entity(
    entityid="gold.delay_by_carrier_month",
    name="gold_delay_by_carrier_month",
    merge_columns=[],
    tags=_TAGS,
    schema=table(
        carrier=STRING,
        airline=STRING,
        month=INT,
        flights=LONG,
        cancelled=LONG,
        arrived=LONG,
        late=LONG,
        arr_delay_total_min=LONG,
        mean_dep_delay_min=DOUBLE,
        mean_arr_delay_min=DOUBLE,
        late_share=DOUBLE,
    ),
)

# Lives in the Spark session alone: a run that wants gold.worst_routes computes this one too.
DataEntities.entity(
    entityid="gold.route_stats",
    name="gold_route_stats",
    merge_columns=["origin", "dest"],
    tags={"layer": "gold", "provider_type": "memory"},
    schema=table(
        origin=STRING,
        dest=STRING,
        dest_name=STRING,
        flights=LONG,
        cancelled=LONG,
        arrived=LONG,
        late=LONG,
        arr_delay_total_min=LONG,
        distance_mi=INT,
    ),
)

DataEntities.derived_entity(
    entityid="gold.worst_routes",
    name="gold_worst_routes",
    merge_columns=[],
    tags=_TAGS,
    schema=table(
        rank=INT,
        origin=STRING,
        dest=STRING,
        dest_name=STRING,
        flights=LONG,
        cancelled=LONG,
        arrived=LONG,
        late=LONG,
        mean_arr_delay_min=DOUBLE,
        late_share=DOUBLE,
        distance_mi=INT,
    ),
)

DataEntities.derived_entity(
    entityid="gold.weather_delay",
    name="gold_weather_delay",
    merge_columns=[],
    tags=_TAGS,
    schema=table(
        visibility=STRING,
        precipitation=STRING,
        flights=LONG,
        cancelled=LONG,
        cancelled_share=DOUBLE,
        mean_dep_delay_min=DOUBLE,
        late_share=DOUBLE,
    ),
)

DataEntities.derived_entity(
    entityid="gold.carrier_punctuality",
    name="gold_carrier_punctuality",
    merge_columns=[],
    tags=_TAGS,
    schema=table(
        rank=INT,
        carrier=STRING,
        airline=STRING,
        flights=LONG,
        cancelled=LONG,
        diverted=LONG,
        on_time=LONG,
        on_time_share=DOUBLE,
        cancelled_share=DOUBLE,
    ),
)

DataEntities.derived_entity(
    entityid="gold.plane_age_delay",
    name="gold_plane_age_delay",
    merge_columns=[],
    tags=_TAGS,
    schema=table(
        age_from=INT,
        age_to=INT,
        planes=LONG,
        flights=LONG,
        cancelled=LONG,
        mean_dep_delay_min=DOUBLE,
        mean_arr_delay_min=DOUBLE,
    ),
)

DataEntities.derived_entity(
    entityid="gold.daily_operations",
    name="gold_daily_operations",
    replace_keys=["flight_date"],
    merge_columns=[],
    tags=_TAGS,
    schema=table(
        flight_date=DATE,
        origin=STRING,
        flights=LONG,
        cancelled=LONG,
        mean_dep_delay_min=DOUBLE,
        worst_dep_delay_min=INT,
        precip_in=DOUBLE,
        lowest_visibility_mi=DOUBLE,
        strongest_wind_mph=DOUBLE,
    ),
)

DataEntities.derived_entity(
    entityid="gold.carrier_scorecard",
    name="gold_carrier_scorecard",
    merge_columns=[],
    tags=_TAGS,
    schema=table(
        rank=INT,
        carrier=STRING,
        airline=STRING,
        flights=LONG,
        on_time_share=DOUBLE,
        cancelled_share=DOUBLE,
        months=LONG,
        best_month=INT,
        best_month_arr_delay_min=DOUBLE,
        worst_month=INT,
        worst_month_arr_delay_min=DOUBLE,
    ),
)
