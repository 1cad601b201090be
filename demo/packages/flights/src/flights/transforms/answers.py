"""The answers: delay by carrier and month, worst routes, weather against delay, and more."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812

WORST_ROUTES = 25
MIN_ARRIVALS = 30
"""Routes with fewer arrivals than this are left out of the ranking."""
AGE_BAND_YEARS = 5


def _count(condition: Column) -> Column:
    return F.count(F.when(condition, True))


def _share(part: Column, whole: Column) -> Column:
    """Part of whole; empty where the whole is zero."""
    return F.when(whole > 0, part / whole)


def _arrived() -> Column:
    return F.col("arr_delay_min").isNotNull()


def delay_by_carrier_month(enriched: DataFrame) -> DataFrame:
    """How late each carrier was in each month."""
    return (
        enriched.groupBy("carrier", "airline", F.month("flight_date").alias("month"))
        .agg(
            F.count("*").alias("flights"),
            _count(F.col("cancelled")).alias("cancelled"),
            _count(_arrived()).alias("arrived"),
            _count(F.col("late")).alias("late"),
            F.sum("arr_delay_min").alias("arr_delay_total_min"),
            F.avg("dep_delay_min").alias("mean_dep_delay_min"),
            F.avg("arr_delay_min").alias("mean_arr_delay_min"),
        )
        .withColumn("late_share", _share(F.col("late"), F.col("arrived")))
    )


def worst_routes(stats: DataFrame) -> DataFrame:
    """The routes with the highest mean arrival delay, worst first."""
    mean = F.col("arr_delay_total_min") / F.col("arrived")
    worst_first = Window.orderBy(F.desc("mean_arr_delay_min"), "origin", "dest")
    return (
        stats.where(F.col("arrived") >= MIN_ARRIVALS)
        .withColumn("mean_arr_delay_min", mean)
        .withColumn("late_share", _share(F.col("late"), F.col("arrived")))
        .withColumn("rank", F.row_number().over(worst_first))
        .where(F.col("rank") <= WORST_ROUTES)
        .select(
            "rank", "origin", "dest", "dest_name", "flights", "cancelled", "arrived", "late",
            "mean_arr_delay_min", "late_share", "distance_mi",
        )
    )  # fmt: skip


def weather_delay(flights_weather: DataFrame) -> DataFrame:
    """Delay and cancellations by how far one could see and whether it rained or snowed."""
    visibility = F.col("visibility_mi")
    band = (
        F.when(visibility.isNull(), "not measured")
        .when(visibility < 1, "under 1 mi")
        .when(visibility < 3, "1 to 3 mi")
        .when(visibility < 10, "3 to 10 mi")
        .otherwise("10 mi")
    )
    fall = F.when(F.col("precip_in").isNull(), "not measured").when(F.col("precip_in") > 0, "wet")
    return (
        flights_weather.groupBy(
            band.alias("visibility"), fall.otherwise("dry").alias("precipitation")
        )
        .agg(
            F.count("*").alias("flights"),
            _count(F.col("cancelled")).alias("cancelled"),
            F.avg("dep_delay_min").alias("mean_dep_delay_min"),
            _share(_count(F.col("late")), _count(_arrived())).alias("late_share"),
        )
        .withColumn("cancelled_share", _share(F.col("cancelled"), F.col("flights")))
        .select(
            "visibility", "precipitation", "flights", "cancelled", "cancelled_share",
            "mean_dep_delay_min", "late_share",
        )
    )  # fmt: skip


def carrier_punctuality(enriched: DataFrame) -> DataFrame:
    """Carriers by the share of their scheduled flights that arrived less than 15 minutes late."""
    most_punctual_first = Window.orderBy(F.desc("on_time_share"), "carrier")
    return (
        enriched.groupBy("carrier", "airline")
        .agg(
            F.count("*").alias("flights"),
            _count(F.col("cancelled")).alias("cancelled"),
            _count(F.col("diverted")).alias("diverted"),
            _count(~F.col("late")).alias("on_time"),
        )
        .withColumn("on_time_share", _share(F.col("on_time"), F.col("flights")))
        .withColumn("cancelled_share", _share(F.col("cancelled"), F.col("flights")))
        .withColumn("rank", F.row_number().over(most_punctual_first))
        .select(
            "rank", "carrier", "airline", "flights", "cancelled", "diverted", "on_time",
            "on_time_share", "cancelled_share",
        )
    )  # fmt: skip


def plane_age_delay(flights: DataFrame, planes: DataFrame) -> DataFrame:
    """Delay by the age of the plane, in bands of five years; planes of unknown age are left out."""
    age = F.year("flight_date") - F.col("built")
    age_from = (F.floor(age / AGE_BAND_YEARS) * AGE_BAND_YEARS).cast("int")
    return (
        flights.join(F.broadcast(planes.select("tailnum", "built")), "tailnum")
        .where(age >= 0)
        .groupBy(age_from.alias("age_from"))
        .agg(
            F.count_distinct("tailnum").alias("planes"),
            F.count("*").alias("flights"),
            _count(F.col("cancelled")).alias("cancelled"),
            F.avg("dep_delay_min").alias("mean_dep_delay_min"),
            F.avg("arr_delay_min").alias("mean_arr_delay_min"),
        )
        .select(
            "age_from",
            (F.col("age_from") + AGE_BAND_YEARS - 1).alias("age_to"),
            "planes", "flights", "cancelled", "mean_dep_delay_min", "mean_arr_delay_min",
        )
    )  # fmt: skip


def daily_operations(flights: DataFrame, weather: DataFrame) -> DataFrame:
    """Each airport's day: its flights and its weather side by side."""
    operations = flights.groupBy("flight_date", "origin").agg(
        F.count("*").alias("flights"),
        _count(F.col("cancelled")).alias("cancelled"),
        F.avg("dep_delay_min").alias("mean_dep_delay_min"),
        F.max("dep_delay_min").alias("worst_dep_delay_min"),
    )
    skies = weather.groupBy(F.col("obs_date").alias("flight_date"), "origin").agg(
        F.sum("precip_in").alias("precip_in"),
        F.min("visibility_mi").alias("lowest_visibility_mi"),
        F.max("wind_mph").alias("strongest_wind_mph"),
    )
    return operations.join(skies, ["flight_date", "origin"], "left")


def carrier_scorecard(punctuality: DataFrame, by_month: DataFrame) -> DataFrame:
    """One line a carrier: how punctual it is, and its best and worst month."""
    monthly = by_month.where(F.col("mean_arr_delay_min").isNotNull())
    delay_then_month = F.struct("mean_arr_delay_min", "month")
    months = monthly.groupBy("carrier").agg(
        F.count("*").alias("months"),
        F.min(delay_then_month).alias("best"),
        F.max(delay_then_month).alias("worst"),
    )
    return punctuality.join(months, "carrier", "left").select(
        "rank",
        "carrier",
        "airline",
        "flights",
        "on_time_share",
        "cancelled_share",
        "months",
        F.col("best.month").alias("best_month"),
        F.col("best.mean_arr_delay_min").alias("best_month_arr_delay_min"),
        F.col("worst.month").alias("worst_month"),
        F.col("worst.mean_arr_delay_min").alias("worst_month_arr_delay_min"),
    )
