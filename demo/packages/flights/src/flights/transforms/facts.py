"""Cleaned facts, and facts joined with what explains them."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812

LATE_FROM_MIN = 15
"""A flight counts as late from this many minutes after its scheduled arrival: the authorities' rule."""


def _minutes_after(start: Column, minutes: Column) -> Column:
    return F.timestamp_seconds(F.unix_timestamp(start) + minutes * 60)


def clean_flights(flights: DataFrame) -> DataFrame:
    """Flights with departure times as instants and with what became of them.

    A flight without a departure was cancelled; one that left but has no arrival delay was diverted.
    """
    scheduled = _minutes_after(F.col("time_hour"), F.col("minute"))
    cancelled = F.col("dep_time").isNull()
    return flights.select(
        "flight_date",
        "time_hour",
        "carrier",
        "flight",
        "origin",
        "dest",
        "tailnum",
        scheduled.alias("scheduled_departure"),
        _minutes_after(scheduled, F.col("dep_delay")).alias("departure"),
        F.col("dep_delay").alias("dep_delay_min"),
        F.col("arr_delay").alias("arr_delay_min"),
        F.col("air_time").alias("air_time_min"),
        F.col("distance").alias("distance_mi"),
        cancelled.alias("cancelled"),
        (~cancelled & F.col("arr_delay").isNull()).alias("diverted"),
        (F.col("arr_delay") >= LATE_FROM_MIN).alias("late"),
    )


def clean_weather(weather: DataFrame) -> DataFrame:
    """Hourly weather under names that say their units."""
    return weather.select(
        "origin",
        "time_hour",
        "obs_date",
        F.col("temp").alias("temp_f"),
        F.col("wind_speed").alias("wind_mph"),
        F.col("wind_gust").alias("gust_mph"),
        F.col("precip").alias("precip_in"),
        F.col("visib").alias("visibility_mi"),
    )


def enrich_flights(
    flights: DataFrame, airlines: DataFrame, airports: DataFrame, planes: DataFrame
) -> DataFrame:
    """Flights with the names of carrier and airports and the plane that flew; unknown ones stay empty."""
    origins = airports.select(F.col("airport").alias("origin"), F.col("airport_name").alias("origin_name"))
    dests = airports.select(F.col("airport").alias("dest"), F.col("airport_name").alias("dest_name"))
    fleet = planes.select("tailnum", "built", "manufacturer", "seats")
    return (
        flights.join(F.broadcast(airlines), "carrier", "left")
        .join(F.broadcast(origins), "origin", "left")
        .join(F.broadcast(dests), "dest", "left")
        .join(F.broadcast(fleet), "tailnum", "left")
        .select(*flights.columns, "airline", "origin_name", "dest_name", "built", "manufacturer", "seats")
    )


def with_weather(flights: DataFrame, weather: DataFrame) -> DataFrame:
    """Flights with the weather at their airport in their scheduled hour; empty where none was measured."""
    return flights.join(weather.drop("obs_date"), ["origin", "time_hour"], "left").select(
        *flights.columns, "temp_f", "wind_mph", "gust_mph", "precip_in", "visibility_mi"
    )
