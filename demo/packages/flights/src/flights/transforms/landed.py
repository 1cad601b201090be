"""From landed text to typed rows: casts and names, nothing else."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812

_FLIGHT_NUMBERS = (
    "hour", "minute", "sched_dep_time", "dep_time", "dep_delay", "sched_arr_time", "arr_time",
    "arr_delay", "air_time", "distance",
)  # fmt: skip


def _number(name: str, kind: str = "int") -> Column:
    return F.col(name).cast(kind).alias(name)


def type_flights(landed: DataFrame) -> DataFrame:
    """One typed row per landed flight; ``time_hour`` is the scheduled hour as an instant."""
    return landed.select(
        F.col("date").cast("date").alias("flight_date"),
        F.col("time_hour").cast("timestamp").alias("time_hour"),
        "carrier",
        _number("flight"),
        "origin",
        "dest",
        "tailnum",
        *[_number(name) for name in _FLIGHT_NUMBERS],
    )


def type_weather(landed: DataFrame) -> DataFrame:
    """One typed row per landed hour and airport."""
    return landed.select(
        F.col("date").cast("date").alias("obs_date"),
        "origin",
        F.col("time_hour").cast("timestamp").alias("time_hour"),
        *[_number(name, "double") for name in ("temp", "dewp", "humid")],
        _number("wind_dir"),
        *[_number(name, "double") for name in ("wind_speed", "wind_gust", "precip", "pressure", "visib")],
    )


def type_airlines(landed: DataFrame) -> DataFrame:
    """Carrier code and name."""
    return landed.select("carrier", F.col("name").alias("airline"))


def type_airports(landed: DataFrame) -> DataFrame:
    """Airports with readable names: the source writes ``Martha\\\\'s`` for ``Martha's``."""
    return landed.select(
        F.col("faa").alias("airport"),
        F.regexp_replace("name", r"\\+'", "'").alias("airport_name"),
        F.col("lat").cast("double").alias("latitude"),
        F.col("lon").cast("double").alias("longitude"),
        F.col("alt").cast("int").alias("altitude_ft"),
        F.col("tz").cast("int").alias("utc_offset_h"),
        F.col("tzone").alias("time_zone"),
    )


def type_planes(landed: DataFrame) -> DataFrame:
    """The aircraft register; ``built`` is the year of manufacture, empty where unknown."""
    return landed.select(
        "tailnum",
        F.col("year").cast("int").alias("built"),
        F.col("type").alias("plane_type"),
        "manufacturer",
        "model",
        F.col("engines").cast("int").alias("engines"),
        F.col("seats").cast("int").alias("seats"),
        "engine",
    )
