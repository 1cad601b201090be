"""Checks of what runs have written, and of tables as only Spark writes them: two runs, everything they told."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    AssetKey,
    DagsterEventType,
    DagsterInstance,
)
from delta_tables import write

from kindling_dagster import KindlingProject, build_kindling_definitions
from kindling_dagster.spark import build_session

pytestmark = pytest.mark.spark

ROWS = pa.schema([("id", pa.int64()), ("item", pa.string())])
VERSIONS = pa.schema(
    [
        *ROWS,
        ("__effective_from", pa.timestamp("us", "UTC")),
        ("__effective_to", pa.timestamp("us", "UTC")),
        ("__is_current", pa.bool_()),
    ]
)
PASSED, FAILED, WARNED = "passed", "failed", "warned"
# A step that fails has no steps after it, that of the other checks included.
HELD_BACK = ("silver/twice", "silver/moved", "gold/of_twice", "gold/of_kept")


@dataclass(frozen=True)
class Told:
    """What a run that succeeds has left, and one of which blocking checks fail."""

    evaluations: dict[tuple[str, str], list[AssetCheckEvaluation]]
    materialized: set[str]
    failures: dict[str, str]

    def last(self, asset: str, check: str) -> AssetCheckEvaluation:
        return self.evaluations[asset, check][-1]

    def ended(self, asset: str, check: str) -> str:
        found = self.last(asset, check)
        if found.passed:
            return PASSED
        return FAILED if found.severity is AssetCheckSeverity.ERROR else WARNED

    def metadata(self, asset: str, check: str) -> dict[str, Any]:
        return {name: value.value for name, value in self.last(asset, check).metadata.items()}


def _key(asset: str) -> AssetKey:
    return AssetKey(asset.split("/"))


def _version(id_: int, item: str, start: int, end: int | None) -> dict[str, Any]:
    def day(number: int) -> datetime:
        return datetime(2026, 1, number, tzinfo=timezone.utc)

    return {
        "id": id_,
        "item": item,
        "__effective_from": day(start),
        "__effective_to": end and day(end),
        "__is_current": end is None,
    }


def _with_vectors(spark: Any, table: str, properties: str = "") -> None:
    """A table of which deletion vectors hide one row of two with the same key."""
    spark.sql(
        f"CREATE TABLE {table} (id BIGINT, item STRING) USING delta TBLPROPERTIES "
        f"('delta.enableDeletionVectors' = 'true', 'delta.enableChangeDataFeed' = 'true'{properties})"
    )
    spark.sql(f"INSERT INTO {table} SELECT /*+ COALESCE(1) */ * FROM VALUES (7, 'kept'), (7, 'hidden') AS t")
    spark.sql(f"DELETE FROM {table} WHERE item = 'hidden'")


def _seed(spark: Any, lake: Path) -> None:
    """The tables that are there before the run."""
    silver = lake / "silver"
    silver.mkdir(parents=True)
    (lake / "raw").mkdir()
    rows = [{"id": 1, "item": "pen"}, {"id": 2, "item": "ink"}, {"id": None, "item": "cap"}]
    write(lake / "raw" / "rows", rows, ROWS)
    feed = {"configuration": {"delta.enableChangeDataFeed": "true"}}
    write(silver / "twice", [{"id": 7, "item": "a"}, {"id": 7, "item": "b"}], ROWS, **feed)
    write(silver / "moved", [{"id": 7, "item": "a"}], ROWS, **feed)
    # Kindling closes the open version of 1, and begins one of 2.
    write(silver / "people", [_version(1, "cap", 1, 3), _version(1, "nib", 3, None)], VERSIONS, **feed)
    twice_current = [_version(7, "a", 1, None), _version(7, "b", 2, None)]
    write(silver / "broken_people", twice_current, VERSIONS, **feed)
    _with_vectors(spark, "held_known")
    # deltalake does not read tables whose columns may have had narrower types.
    _with_vectors(spark, f"delta.`{silver / 'widened'}`", ", 'delta.enableTypeWidening' = 'true'")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    app = tmp_path_factory.mktemp("checks") / "app"
    shutil.copytree(Path(__file__).parent / "app", app)
    spark = build_session({"spark.master": "local[2]", "spark.sql.warehouse.dir": str(app / "warehouse")})
    try:
        _seed(spark, app / "data" / "lake")
        job = build_kindling_definitions(KindlingProject(app)).resolve_job_def("held_all")
        others = job.asset_layer.executable_asset_keys - set(map(_key, HELD_BACK))
        with DagsterInstance.ephemeral() as instance:
            sound, broken = (
                job.execute_in_process(instance=instance, asset_selection=list(keys), raise_on_error=False)
                for keys in (sorted(others), map(_key, HELD_BACK))
            )
        assert sound.success
        evaluations: dict[tuple[str, str], list[AssetCheckEvaluation]] = {}
        for event in (*sound.all_events, *broken.all_events):
            if event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
                found: Any = event.event_specific_data
                at = "/".join(found.asset_key.path), found.check_name
                evaluations.setdefault(at, []).append(found)
        (failed,) = [e for e in broken.all_events if e.event_type == DagsterEventType.STEP_FAILURE]
        failure: Any = failed.event_specific_data
        materialized = [
            *sound.get_asset_materialization_events(),
            *broken.get_asset_materialization_events(),
        ]
        yield Told(
            evaluations,
            {"/".join(event.asset_key.path) for event in materialized},
            {
                each["pipe"]: each["status"]
                for each in failure.user_failure_data.metadata["kindling/failures"].value
            },
        )
    finally:
        spark.stop()


@pytest.mark.parametrize(
    ("asset", "check", "ended", "metadata"),
    [
        ("silver/kept", "merge_keys_not_null", PASSED, {}),
        ("silver/kept", "merge_keys_unique", PASSED, {"kindling/keys": 2}),
        ("silver/kept", "schema_drift", PASSED, {}),
        ("silver/nulls", "merge_keys_not_null", FAILED, {"kindling/nulls/id": 1}),
        ("silver/nulls", "merge_keys_unique", PASSED, {"kindling/keys": 2}),
        ("silver/twice", "merge_keys_unique", FAILED, {"kindling/keys": 3, "kindling/surplus_rows": 1}),
        ("silver/people", "merge_keys_not_null", PASSED, {}),
        ("silver/people", "scd2_history", PASSED, {"kindling/keys": 2}),
        ("silver/people", "schema_drift", PASSED, {}),
        (
            "silver/broken_people",
            "scd2_history",
            FAILED,
            {"kindling/keys": 3, "kindling/many_current": 1, "kindling/overlaps": 1, "kindling/backwards": 0},
        ),
        ("silver/broken_people", "schema_drift", PASSED, {}),
        # Deletion vectors hide a second row of a key.
        ("silver/known", "merge_keys_unique", PASSED, {"kindling/keys": 3}),
        ("silver/known", "merge_keys_not_null", PASSED, {}),
        ("silver/known", "schema_drift", PASSED, {}),
        ("silver/widened", "merge_keys_unique", PASSED, {"kindling/keys": 3}),
        ("silver/widened", "merge_keys_not_null", PASSED, {}),
    ],
)
def test_each_check_ends_as_the_table_is(
    told: Told, asset: str, check: str, ended: str, metadata: dict[str, Any]
) -> None:
    assert told.ended(asset, check) == ended, told.last(asset, check).description
    assert told.metadata(asset, check).items() >= metadata.items()


def test_what_depends_on_a_table_that_a_blocking_check_fails_does_not_run(told: Told) -> None:
    assert told.failures == {
        "silver_twice": "failed",
        "gold_of_twice": "upstream_failed",
        "silver_moved": "failed",
    }
    # The table is written all the same, and what depends on others is too.
    assert {"silver/twice", "silver/moved", "gold/of_kept"} <= told.materialized
    assert "gold/of_twice" not in told.materialized
    assert ("gold/of_twice", "merge_keys_unique") not in told.evaluations


def test_a_drift_comes_with_the_plan_of_kindlings_own_planner(told: Told) -> None:
    assert told.ended("silver/moved", "schema_drift") == FAILED
    found = told.metadata("silver/moved", "schema_drift")
    assert found["kindling/migration_plan"] == [
        "[destructive] partition_change: partition columns: [] -> ['item']"
    ]
    assert found["kindling/advice"] == "See `kindling migrate plan --env local`."


@pytest.mark.parametrize(
    ("asset", "check", "by"),
    [
        ("silver/kept", "merge_keys_not_null", "statistics of the table's files"),
        ("silver/kept", "merge_keys_unique", "a query (delta-rs)"),
        ("silver/twice", "merge_keys_unique", "a query (delta-rs)"),
        # Only Spark's catalog knows where it lies, but the commit has told.
        ("silver/known", "merge_keys_unique", "a query (delta-rs)"),
        ("silver/widened", "merge_keys_unique", "a query (Spark)"),
    ],
)
def test_spark_is_asked_only_where_nothing_else_reads_the_table(
    told: Told, asset: str, check: str, by: str
) -> None:
    assert told.metadata(asset, check)["kindling/answered_by"] == by


@pytest.mark.parametrize("asset", ["silver/kept", "silver/known"])
def test_a_checks_own_step_repeats_what_the_step_that_wrote_has_found(told: Told, asset: str) -> None:
    first, second = told.evaluations[asset, "merge_keys_unique"]
    assert (first.description, first.passed) == (second.description, second.passed)
