"""The demo in Dagster: the Kindling app in demo/ as assets and streams, and the feed that drops its files."""

import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

from dagster import (
    AssetExecutionContext,
    AssetSelection,
    AssetSpec,
    AutomationCondition,
    AutomationConditionSensorDefinition,
    Config,
    DailyPartitionsDefinition,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    Definitions,
    FreshnessPolicy,
    MaterializeResult,
    OpExecutionContext,
    PartitionsDefinition,
    RunRequest,
    ScheduleDefinition,
    define_asset_job,
    in_process_executor,
    job,
    multi_asset,
    op,
    sensor,
)
from deltalake import DeltaTable
from kindling_dagster_demo import feed as landing_feed
from pydantic import Field

from kindling_dagster import (
    AssetData,
    DagsterKindlingTranslator,
    DimensionPolicy,
    KindlingProject,
    KindlingResource,
    RestartConfig,
    build_kindling_asset_specs,
    build_kindling_stream_definitions,
    build_table_checks,
    kindling_assets,
)

DEMO = Path(__file__).parent / "demo"
LIVE = os.environ.get("KINDLING_DEMO_LIVE") == "1"
"""Set by `uv run demo --live`: the streams start, and a day lands every other minute, with nothing to click."""

project = KindlingProject(DEMO, environment="local")


class Flights(DagsterKindlingTranslator):
    """What the app leaves open, since it knows nothing of Dagster: what is old, and what a day is."""

    def get_freshness_policy(self, data: AssetData) -> FreshnessPolicy | None:
        """Reference data and answers are of today or yesterday."""
        if data.entity.layer not in ("reference", "gold"):
            return super().get_freshness_policy(data)
        return FreshnessPolicy.time_window(fail_window=timedelta(hours=36))

    def get_partitions_def(self, data: AssetData) -> PartitionsDefinition | None:
        """The days of the year of the flights."""
        if data.entity.id != "gold.daily_operations":
            return super().get_partitions_def(data)
        return DailyPartitionsDefinition("2013-01-01", end_date="2014-01-01")

    def get_partition_columns(self, data: AssetData) -> Mapping[str, str]:
        """By input, the column that has a row's day."""
        if data.entity.id != "gold.daily_operations":
            return super().get_partition_columns(data)
        return {"silver.flights": "flight_date", "silver.weather_hourly": "obs_date"}


@kindling_assets(project=project, exclude=["gold.live_board", "gold.daily_operations"], translator=Flights())
def flights(context: AssetExecutionContext, kindling: KindlingResource):
    """All pipes that are asked for, in one step and one Spark session."""
    yield from kindling.run(context=context).stream()


@kindling_assets(project=project, select="gold.daily_operations", translator=Flights())
def daily_operations(context: AssetExecutionContext, kindling: KindlingResource):
    """Each airport's days, of which a run computes those that are asked for."""
    yield from kindling.run(context=context).stream()


class OnNewRows(Flights):
    """Recompute an asset when a stream that it reads has committed rows."""

    def get_asset_spec(self, data: AssetData) -> AssetSpec:
        """The asset with its condition."""
        condition = AutomationCondition.any_deps_match(
            # Heartbeats of a stream change its data's version only when they stand for rows.
            AutomationCondition.data_version_changed()
        )
        running = AutomationCondition.in_progress()
        return super().get_asset_spec(data).replace_attributes(automation_condition=condition & ~running)


@kindling_assets(project=project, select="gold.live_board", translator=OnNewRows())
def live_board(context: AssetExecutionContext, kindling: KindlingResource):
    """The batch asset behind the streams."""
    yield from kindling.run(context=context).stream()


# The app's pipes read landing/*, and nobody in the app writes it: the feed does, under the same keys.
_landing = {spec.key.path[-1]: spec for spec in build_kindling_asset_specs(project=project, external=True)}


def _fed(*names: str) -> list[AssetSpec]:
    return [_landing[name] for name in names]


class FeedConfig(Config):
    """What one run of the feed drops."""

    days: int = Field(default=1, ge=1, le=365, description="How many days of flights and weather to drop.")


@multi_asset(name="feed", specs=_fed("flights", "weather"))
def feed(context: AssetExecutionContext, config: FeedConfig) -> Iterator[MaterializeResult]:
    """Drop the next days of flights and weather into the landing folder; January comes first, as a whole."""
    landed = landing_feed.ensure_landed(DEMO) or landing_feed.land_next(DEMO, config.days)
    if landed.days:
        context.log.info(f"Dropped {landed.days} days, {landed.first} to {landed.last}.")
    else:
        context.log.info("2013 is over: all its days have landed.")
    span = {
        "days": landed.days,
        "first_day": str(landed.first or ""),
        "last_day": str(landed.last or ""),
        "days_to_come": landed.remaining_days,
    }
    for spec, rows in zip(_fed("flights", "weather"), (landed.flights, landed.weather), strict=True):
        yield MaterializeResult(asset_key=spec.key, metadata={**span, "rows_dropped": rows})


@multi_asset(name="reference_feed", specs=_fed("airlines", "airports", "planes"))
def reference_feed() -> Iterator[MaterializeResult]:
    """Drop airlines, airports and planes, each the whole of it."""
    for name, rows in landing_feed.land_reference(DEMO).items():
        yield MaterializeResult(asset_key=_landing[name].key, metadata={"dagster/row_count": rows})


live = AssetSelection.assets("silver/flights_live", "gold/live_delays")
main = define_asset_job(
    "main",
    AssetSelection.all() - live - AssetSelection.assets(live_board, daily_operations),
    description="The next day lands, and everything but the streams and what is partitioned is computed.",
)
feed_next_day = define_asset_job(
    "feed_next_day", AssetSelection.assets(feed), description="The next day lands; nothing is computed."
)
next_day_to_bronze = define_asset_job(
    "next_day_to_bronze",
    AssetSelection.assets(feed, "bronze/flights"),
    description="The next day lands and reaches bronze, which the streams follow.",
)
go_live = define_asset_job(
    "go_live",
    AssetSelection.assets(feed, reference_feed, "bronze/flights", "ref/airlines", "ref/airports") | live,
    description="What the streams read is computed, and they start. They stop with flights_app_stop_streams.",
)


@sensor(
    job=go_live,
    minimum_interval_seconds=30,
    default_status=DefaultSensorStatus.RUNNING if LIVE else DefaultSensorStatus.STOPPED,
)
def go_live_at_start():
    """Once in the life of an instance; after that the streams are wanted, and the supervisor does the rest."""
    return RunRequest(run_key="go_live")


class RenameConfig(Config):
    """Which airline, and to what."""

    carrier: str = Field(default="UA", description="The airline's code.")
    name: str = Field(default="Air Dagster", description="Its new name.")


@op
def rename(context: OpExecutionContext, config: RenameConfig) -> None:
    """By delta-rs alone, as a program would that knows of neither Kindling nor Dagster."""
    table = DeltaTable(str(DEMO / "data" / "lake" / "ref" / "airlines"))
    name, carrier = (text.replace("'", "''") for text in (config.name, config.carrier))
    done = table.update(updates={"airline": f"'{name}'"}, predicate=f"carrier = '{carrier}'")
    context.log.info(f"Renamed {done['num_updated_rows']} airline; version {table.version()} of the table.")


@job(executor_def=in_process_executor)
def rename_an_airline():
    """A dimension of the streams changes behind their back: see ref/airlines half a minute later."""
    rename()


class PlaneConfig(Config):
    """Which plane, and who built it."""

    tailnum: str = Field(default="N328AA", description="The plane's tail number.")
    manufacturer: str = Field(default="Dagster Aircraft", description="Who built it.")


@op
def change_plane(context: OpExecutionContext, config: PlaneConfig) -> None:
    """In the register, a plain file, as whoever keeps it would."""
    before = landing_feed.change_plane(DEMO, config.tailnum, config.manufacturer)
    context.log.info(f"{config.tailnum}: {before} → {config.manufacturer}.")


@job(executor_def=in_process_executor)
def change_a_planes_manufacturer():
    """A dimension that is a plain file changes: see landing/planes, and the stream that restarts for it."""
    change_plane()


automation = AutomationConditionSensorDefinition(
    "automation",
    target=AssetSelection.assets(live_board),
    default_status=DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)

# Dagster takes no second Definitions in a module, so the batch ones have no name.
defs = Definitions.merge(
    Definitions(
        assets=[feed, reference_feed, flights, daily_operations, live_board],
        asset_checks=build_table_checks(project),
        jobs=[
            main,
            feed_next_day,
            next_day_to_bronze,
            go_live,
            rename_an_airline,
            change_a_planes_manufacturer,
        ],
        schedules=[
            # Off at first: it would start Spark every morning on whatever machine the demo is tried on.
            ScheduleDefinition(name="every_morning", job=main, cron_schedule="0 6 * * *"),
            ScheduleDefinition(
                name="a_day_every_other_minute",
                job=next_day_to_bronze,
                cron_schedule="*/2 * * * *",
                default_status=DefaultScheduleStatus.RUNNING if LIVE else DefaultScheduleStatus.STOPPED,
            ),
        ],
        sensors=[go_live_at_start, automation],
        resources={"kindling": KindlingResource()},
        executor=in_process_executor,
    ),
    build_kindling_stream_definitions(
        project,
        dimensions=DimensionPolicy(
            # The feed drops the same register again and again: only other contents are a change.
            detection={"landing.planes": "hash"},
            restarts=RestartConfig(delay=10),
        ),
    ),
)
