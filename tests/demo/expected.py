"""The demo's gold tables computed with pandas from the landed CSVs; shares no code with the app."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

_LATE_MIN = 15


def read_daily(landing: Path, name: str) -> pd.DataFrame:
    """All landed days of flights or weather, with the folder's date."""
    frames = []
    for file in sorted((landing / name).glob("date=*/*.csv")):
        frame = pd.read_csv(file, keep_default_na=False, na_values=["NA"])
        frame["date"] = file.parent.name.removeprefix("date=")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def read_whole(landing: Path, name: str) -> pd.DataFrame:
    """One reference file."""
    return pd.read_csv(landing / f"{name}.csv", keep_default_na=False, na_values=["NA"])


def gold(landing: Path) -> dict[str, pd.DataFrame]:
    """Every stored gold table by its id."""
    flights = read_daily(landing, "flights")
    flights["cancelled"] = flights["dep_time"].isna()
    flights["arrived"] = flights["arr_delay"].notna()
    flights["diverted"] = ~flights["cancelled"] & ~flights["arrived"]
    flights["late"] = flights["arr_delay"] >= _LATE_MIN
    weather = read_daily(landing, "weather")
    airlines = read_whole(landing, "airlines").set_index("carrier")["name"]
    airports = read_whole(landing, "airports").set_index("faa")["name"]
    flights["airline"] = flights["carrier"].map(airlines)
    flights["dest_name"] = flights["dest"].map(airports.str.replace(r"\\+'", "'", regex=True))
    punctuality = _carrier_punctuality(flights)
    by_month = _delay_by_carrier_month(flights)
    return {
        "gold.delay_by_carrier_month": by_month,
        "gold.worst_routes": _worst_routes(flights),
        "gold.weather_delay": _weather_delay(flights, weather),
        "gold.carrier_punctuality": punctuality,
        "gold.plane_age_delay": _plane_age_delay(flights, read_whole(landing, "planes")),
        "gold.daily_operations": _daily_operations(flights, weather),
        "gold.carrier_scorecard": _carrier_scorecard(punctuality, by_month),
    }


def _delay_by_carrier_month(flights: pd.DataFrame) -> pd.DataFrame:
    result = (
        flights.groupby(["carrier", "airline", "month"])
        .agg(
            flights=("flight", "size"),
            cancelled=("cancelled", "sum"),
            arrived=("arrived", "sum"),
            late=("late", "sum"),
            arr_delay_total_min=("arr_delay", lambda delays: delays.sum(min_count=1)),
            mean_dep_delay_min=("dep_delay", "mean"),
            mean_arr_delay_min=("arr_delay", "mean"),
        )
        .reset_index()
    )
    result["late_share"] = result["late"] / result["arrived"].replace(0, np.nan)
    return result


def _worst_routes(flights: pd.DataFrame) -> pd.DataFrame:
    routes = (
        flights.groupby(["origin", "dest"])
        .agg(
            dest_name=("dest_name", "first"),
            flights=("flight", "size"),
            cancelled=("cancelled", "sum"),
            arrived=("arrived", "sum"),
            late=("late", "sum"),
            mean_arr_delay_min=("arr_delay", "mean"),
            distance_mi=("distance", "max"),
        )
        .reset_index()
    )
    routes = routes[routes["arrived"] >= 30].sort_values(
        ["mean_arr_delay_min", "origin", "dest"], ascending=[False, True, True]
    )
    routes["late_share"] = routes["late"] / routes["arrived"]
    routes.insert(0, "rank", range(1, len(routes) + 1))
    return routes.head(25)


def _weather_delay(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    both = flights.merge(
        weather[["origin", "time_hour", "visib", "precip"]], on=["origin", "time_hour"], how="left"
    )
    bands = pd.cut(
        both["visib"],
        [0, 1, 3, 10, 11],
        right=False,
        labels=["under 1 mi", "1 to 3 mi", "3 to 10 mi", "10 mi"],
    )
    both["visibility"] = bands.astype(object).fillna("not measured")
    both["precipitation"] = np.where(
        both["precip"].isna(), "not measured", np.where(both["precip"] > 0, "wet", "dry")
    )
    result = (
        both.groupby(["visibility", "precipitation"])
        .agg(
            flights=("flight", "size"),
            cancelled=("cancelled", "sum"),
            arrived=("arrived", "sum"),
            late=("late", "sum"),
            mean_dep_delay_min=("dep_delay", "mean"),
        )
        .reset_index()
    )
    result["cancelled_share"] = result["cancelled"] / result["flights"]
    result["late_share"] = result["late"] / result["arrived"].replace(0, np.nan)
    return result.drop(columns=["arrived", "late"])


def _carrier_punctuality(flights: pd.DataFrame) -> pd.DataFrame:
    result = (
        flights.assign(on_time=flights["arr_delay"] < _LATE_MIN)
        .groupby(["carrier", "airline"])
        .agg(
            flights=("flight", "size"),
            cancelled=("cancelled", "sum"),
            diverted=("diverted", "sum"),
            on_time=("on_time", "sum"),
        )
        .reset_index()
    )
    result["on_time_share"] = result["on_time"] / result["flights"]
    result["cancelled_share"] = result["cancelled"] / result["flights"]
    result = result.sort_values(["on_time_share", "carrier"], ascending=[False, True])
    result.insert(0, "rank", range(1, len(result) + 1))
    return result


def _plane_age_delay(flights: pd.DataFrame, planes: pd.DataFrame) -> pd.DataFrame:
    flown = flights.merge(
        planes[["tailnum", "year"]].rename(columns={"year": "built"}), on="tailnum", how="inner"
    )
    age = flown["year"] - flown["built"]
    flown = flown[age >= 0].assign(age_from=(age[age >= 0] // 5 * 5).astype(int))
    result = (
        flown.groupby("age_from")
        .agg(
            planes=("tailnum", "nunique"),
            flights=("flight", "size"),
            cancelled=("cancelled", "sum"),
            mean_dep_delay_min=("dep_delay", "mean"),
            mean_arr_delay_min=("arr_delay", "mean"),
        )
        .reset_index()
    )
    result["age_to"] = result["age_from"] + 4
    return result


def _daily_operations(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    operations = flights.groupby(["date", "origin"]).agg(
        flights=("flight", "size"),
        cancelled=("cancelled", "sum"),
        mean_dep_delay_min=("dep_delay", "mean"),
        worst_dep_delay_min=("dep_delay", "max"),
    )
    skies = weather.groupby(["date", "origin"]).agg(
        precip_in=("precip", "sum"),
        lowest_visibility_mi=("visib", "min"),
        strongest_wind_mph=("wind_speed", "max"),
    )
    result = operations.join(skies, how="left").reset_index()
    result["flight_date"] = pd.to_datetime(result.pop("date")).dt.date
    return result


def _carrier_scorecard(punctuality: pd.DataFrame, by_month: pd.DataFrame) -> pd.DataFrame:
    lines = []
    for carrier, months in by_month.dropna(subset="mean_arr_delay_min").groupby("carrier"):
        ordered = months.sort_values(["mean_arr_delay_min", "month"])
        best, worst = ordered.iloc[0], ordered.iloc[-1]
        lines.append(
            {
                "carrier": carrier,
                "months": len(months),
                "best_month": best["month"],
                "best_month_arr_delay_min": best["mean_arr_delay_min"],
                "worst_month": worst["month"],
                "worst_month_arr_delay_min": worst["mean_arr_delay_min"],
            }
        )
    kept = ["rank", "carrier", "airline", "flights", "on_time_share", "cancelled_share"]
    return punctuality[kept].merge(pd.DataFrame(lines), on="carrier", how="left")
