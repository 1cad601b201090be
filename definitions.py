"""The demo in Dagster: the Kindling app in demo/ as assets, and the feed that drops its files."""

from collections.abc import Iterator
from pathlib import Path

from dagster import (
    AssetExecutionContext,
    AssetSelection,
    AssetSpec,
    Config,
    Definitions,
    MaterializeResult,
    ScheduleDefinition,
    define_asset_job,
    in_process_executor,
    multi_asset,
)
from kindling_dagster_demo import feed as landing_feed
from pydantic import Field

from kindling_dagster import (
    KindlingProject,
    KindlingResource,
    build_kindling_asset_specs,
    kindling_assets,
)

DEMO = Path(__file__).parent / "demo"

project = KindlingProject(DEMO, environment="local")


@kindling_assets(project=project)
def flights(context: AssetExecutionContext, kindling: KindlingResource):
    """All pipes that are asked for, in one step and one Spark session."""
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


main = define_asset_job(
    "main", AssetSelection.all(), description="The next day lands, and everything is computed."
)
feed_next_day = define_asset_job(
    "feed_next_day", AssetSelection.assets(feed), description="The next day lands; nothing is computed."
)

defs = Definitions(
    assets=[feed, reference_feed, flights],
    jobs=[main, feed_next_day],
    # Off at first: it would start Spark every morning on whatever machine the demo is tried on.
    schedules=[ScheduleDefinition(name="every_morning", job=main, cron_schedule="0 6 * * *")],
    resources={"kindling": KindlingResource()},
    executor=in_process_executor,
)
