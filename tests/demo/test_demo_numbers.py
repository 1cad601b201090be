"""The demo app's gold tables equal pandas on the same files, and running it again changes nothing."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from kindling_dagster_demo import feed

sys.path.insert(0, str(Path(__file__).parent))
import expected
from comparing import (
    PARTITIONED,
    TABLES,
    assert_equals_pandas,
    copy_demo,
    rows_of,
    running_demo,
    with_lineage,
)

pytestmark = [pytest.mark.spark, pytest.mark.slow]

# KINDLING_DEMO_DAYS=365 checks the whole year.
DAYS = int(os.environ.get("KINDLING_DEMO_DAYS", feed.FIRST_DAYS))
ROWS_OF_THE_YEAR = {"flights": 336_776, "weather": 26_115}


@dataclass(frozen=True)
class DemoRun:
    app: Path
    assets: tuple[list[str], list[str]]
    first: dict[str, int]
    second: dict[str, int]
    day: dict[str, int]
    days: list[str]

    def table(self, entity_id: str, version: int | None = None) -> pd.DataFrame:
        return rows_of(self.app, entity_id, version)


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    root = tmp_path_factory.mktemp("demo")
    app = copy_demo(root)
    if feed.FIRST_DAYS != DAYS:
        feed.ensure_landed(app, DAYS)
    with running_demo(root) as running:
        report = running.report(1500)
    first, second = report["first"], report["second"]
    assets = (first["assets"], second["assets"])
    return DemoRun(
        root / "demo",
        assets,
        first["versions"],
        second["versions"],
        report["day"]["versions"],
        report["days"],
    )


@pytest.fixture(scope="module")
def wanted(demo_run: DemoRun) -> dict[str, pd.DataFrame]:
    return expected.gold(demo_run.app / "data" / "landing")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("entity_id", TABLES)
def test_gold_equals_pandas(demo_run: DemoRun, wanted: dict[str, pd.DataFrame], entity_id: str) -> None:
    assert_equals_pandas(demo_run.table(entity_id), wanted[entity_id], TABLES[entity_id])


def test_a_run_of_one_day_holds_that_day_alone(demo_run: DemoRun, wanted: dict[str, pd.DataFrame]) -> None:
    whole = wanted[PARTITIONED]
    fifth = sorted(whole["flight_date"].unique())[4]
    got = demo_run.table(PARTITIONED, demo_run.day[PARTITIONED])
    assert_equals_pandas(got, whole[whole["flight_date"] == fifth], TABLES[PARTITIONED])


def test_a_run_of_all_landed_days_makes_each_of_them_a_partition(
    demo_run: DemoRun, wanted: dict[str, pd.DataFrame]
) -> None:
    # That it holds all of them, and the day that was there before once, is in the comparison of all tables.
    assert demo_run.days == sorted(map(str, wanted[PARTITIONED]["flight_date"].unique()))
    assert len(demo_run.days) == DAYS


def test_every_gold_table_is_compared(wanted: dict[str, pd.DataFrame], demo_run: DemoRun) -> None:
    stored = {entity_id for entity_id in demo_run.first if entity_id.startswith("gold.")}
    assert stored == set(TABLES) == set(wanted)


def test_every_asset_is_materialized(demo_run: DemoRun) -> None:
    first, second = demo_run.assets
    assert {key.replace("/", ".") for key in first if key.startswith("gold/")} == {
        *TABLES,
        "gold.route_stats",
    } - {PARTITIONED}
    landed = {"landing/airlines", "landing/airports", "landing/flights", "landing/planes", "landing/weather"}
    assert landed < set(first)
    assert set(first) - landed == set(second)


def test_every_landed_row_arrives_once(demo_run: DemoRun) -> None:
    landing = demo_run.app / "data" / "landing"
    for name, entity_ids in {
        "flights": ("bronze.flights", "silver.flights", "silver.flights_enriched", "silver.flights_weather"),
        "weather": ("bronze.weather", "silver.weather_hourly"),
    }.items():
        landed = len(expected.read_daily(landing, name))
        if DAYS >= 365:
            assert landed == ROWS_OF_THE_YEAR[name]
        assert {entity_id: len(demo_run.table(entity_id)) for entity_id in entity_ids} == dict.fromkeys(
            entity_ids, landed
        )


def test_reference_tables_are_whole(demo_run: DemoRun) -> None:
    planes = demo_run.table("ref.planes")
    assert len(planes) == planes["tailnum"].nunique() == 3322
    assert planes["__is_current"].all()
    airports = demo_run.table("ref.airports").set_index("airport")["airport_name"]
    assert len(airports) == 1458
    assert airports["MVY"] == "Martha's Vineyard"
    assert len(demo_run.table("ref.airlines")) == 16


def test_rows_say_which_pipe_of_which_version_wrote_them(demo_run: DemoRun) -> None:
    for entity_id in demo_run.first:
        layer = entity_id.split(".")[0]
        frame = with_lineage(demo_run.app, entity_id)
        if layer == "ref":
            assert not [name for name in frame.columns if name.endswith("_lineage")]
            continue
        found = {(stamp["pipe"], stamp["package"]) for stamp in frame[f"_{layer}_lineage"]}
        assert found == {(entity_id, "flights")}
        assert len({stamp["version"] for stamp in frame[f"_{layer}_lineage"]}) == 1


def test_departures_are_instants(demo_run: DemoRun) -> None:
    flight = demo_run.table("silver.flights").query("carrier == 'UA' and flight == 1545")
    first = flight.sort_values("time_hour").iloc[0]
    assert first["scheduled_departure"] == pd.Timestamp("2013-01-01T10:15Z")
    assert first["departure"] == pd.Timestamp("2013-01-01T10:17Z")


def test_running_again_changes_no_row(demo_run: DemoRun) -> None:
    assert demo_run.first.keys() == demo_run.second.keys()
    for entity_id, version in demo_run.first.items():
        before, after = demo_run.table(entity_id, version), demo_run.table(entity_id)
        columns = list(before.columns)
        pd.testing.assert_frame_equal(
            before.sort_values(columns, ignore_index=True),
            after[columns].sort_values(columns, ignore_index=True),
            rtol=1e-9,
            atol=1e-9,
        )
