"""What the streams compute. Every function works on batches and on streams alike."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812

from flights.transforms.facts import clean_flights


def enrich(flights: DataFrame, airlines: DataFrame, airports: DataFrame, planes: DataFrame) -> DataFrame:
    """Cleaned flights with the names of carrier, destination and the plane's maker; unknown ones stay empty."""
    dests = airports.select(F.col("airport").alias("dest"), F.col("airport_name").alias("dest_name"))
    named = (
        clean_flights(flights)
        .join(F.broadcast(airlines), "carrier", "left")
        .join(F.broadcast(dests), "dest", "left")
        .join(F.broadcast(planes.select("tailnum", "manufacturer")), "tailnum", "left")
    )
    return named.select(
        "flight_date",
        "time_hour",
        "carrier",
        "flight",
        "origin",
        "dest",
        "tailnum",
        "dep_delay_min",
        "arr_delay_min",
        "cancelled",
        "late",
        "airline",
        "dest_name",
        "manufacturer",
    )


def delays_by_day(flights: DataFrame) -> DataFrame:
    """One row per day and carrier. Sums only: as a stream it gives each changed row anew, whole."""
    return flights.groupBy("flight_date", "carrier").agg(
        F.max("airline").alias("airline"),
        F.count("*").alias("flights"),
        F.sum(F.col("cancelled").cast("long")).alias("cancelled"),
        F.count("arr_delay_min").alias("arrived"),
        F.sum(F.coalesce(F.col("late"), F.lit(False)).cast("long")).alias("late"),
        F.sum(F.coalesce(F.col("arr_delay_min"), F.lit(0)).cast("long")).alias("arr_delay_total_min"),
    )


def board(delays: DataFrame) -> DataFrame:
    """Carriers by their share of late arrivals, the most punctual first."""
    carriers = delays.groupBy("carrier", "airline").agg(
        F.sum("flights").alias("flights"),
        F.max("flight_date").alias("last_day"),
        (F.sum("late") / F.sum("arrived")).alias("late_share"),
        (F.sum("arr_delay_total_min") / F.sum("arrived")).alias("mean_arr_delay_min"),
    )
    # One carrier has a handful of rows: a window over all of them is small.
    order = Window.orderBy(F.col("late_share"), F.col("carrier"))
    return carriers.select(
        F.row_number().over(order).alias("rank"),
        "carrier",
        "airline",
        "flights",
        "last_day",
        "late_share",
        "mean_arr_delay_min",
    )
