"""Reference data: the dimensions that facts are joined with."""

from kindling.data_entities import DataEntities

from flights.schema import DOUBLE, INT, STRING, table

_TAGS = {"layer": "reference", "owner": "team:reference-data"}

DataEntities.entity(
    entityid="ref.airlines",
    name="ref_airlines",
    merge_columns=["carrier"],
    tags=_TAGS,
    schema=table(carrier=STRING, airline=STRING),
)

DataEntities.entity(
    entityid="ref.airports",
    name="ref_airports",
    merge_columns=["airport"],
    tags=_TAGS,
    schema=table(
        airport=STRING,
        airport_name=STRING,
        latitude=DOUBLE,
        longitude=DOUBLE,
        altitude_ft=INT,
        utc_offset_h=INT,
        time_zone=STRING,
    ),
)

# Planes change hands, engines and seats: keep every version, read the current one through
# ref.planes.current.
DataEntities.entity(
    entityid="ref.planes",
    name="ref_planes",
    merge_columns=["tailnum"],
    tags={**_TAGS, "scd.type": "2", "scd.source_kind": "snapshot"},
    schema=table(
        tailnum=STRING,
        built=INT,
        plane_type=STRING,
        manufacturer=STRING,
        model=STRING,
        engines=INT,
        seats=INT,
        engine=STRING,
    ),
)
