"""Backfill of lineage on real Delta tables: bounded, resumable, unseen by those who follow the table."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, Definitions
from deltalake import DeltaTable
from lineage_tables import START, app_manifest, write

from kindling_dagster import KindlingProject
from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.audit import Staleness, audit_table
from kindling_dagster.lineage.backfill import BackfillStep, backfill_lineage
from kindling_dagster.lineage.context import combined_lineage, lineage_type
from kindling_dagster.lineage.sql import (
    find_records_by_version,
    stale_version_report,
    version_adoption_report,
)
from kindling_dagster.lineage_checks import build_lineage_checks
from kindling_dagster.spark import build_session

pytestmark = [pytest.mark.spark, pytest.mark.slow]

DAY = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    session = build_session({"spark.master": "local[2]"})
    yield session
    session.stop()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, spark: Any) -> Path:
    """Thirty rows in three files, made as Kindling makes its tables."""
    path = tmp_path_factory.mktemp("source") / "orders"
    frame = spark.range(30).repartition(3)
    frame.write.format("delta").option("delta.enableChangeDataFeed", "true").save(str(path))
    return path


@pytest.fixture
def table(source: Path, tmp_path: Path) -> str:
    path = tmp_path / "silver" / "orders"
    shutil.copytree(source, path)
    return str(path)


def versions(table: str) -> dict[str, int]:
    found: Counter[str] = Counter()
    for count in audit_table(table, "silver").counts:
        found[count.version] += count.rows
    return dict(found)


def test_a_dry_run_counts_and_changes_nothing(table: str, spark: Any) -> None:
    found = backfill_lineage(spark, table, "silver", "0.9", dry_run=True)
    assert (found.column, found.adds_column, found.rows, found.files) == ("_silver_lineage", True, 30, 3)
    assert DeltaTable(table).version() == 0


def stopped(table: str, spark: Any) -> None:
    """Break off after the first of three files."""

    class Stop(Exception):
        pass

    def stop(step: BackfillStep) -> None:
        raise Stop

    with pytest.raises(Stop):
        backfill_lineage(spark, table, "silver", "0.9", chunk_bytes=1, timestamp=DAY, on_step=stop)


def test_broken_off_and_taken_up_again_it_fills_each_row_once(table: str, spark: Any) -> None:
    stopped(table, spark)
    assert 0 < versions(table)["0.9"] < 30
    write(Path(table), [("silver.clean", "1.0", 0)])
    rest = backfill_lineage(spark, table, "silver", "0.9", pipe="silver.clean", chunk_bytes=1, timestamp=DAY)
    assert [step.left for step in rest.steps] == [1, 0]
    assert versions(table) == {"0.9": 30, "1.0": 1}
    assert sorted(row["id"] for row in DeltaTable(table).to_pyarrow_table().to_pylist()) == sorted(
        [*range(30), 0]
    )
    before = DeltaTable(table).version()
    assert backfill_lineage(spark, table, "silver", "0.8").rows == 0
    assert DeltaTable(table).version() == before


def killed(table: str, spark: Any) -> None:
    """Backfill in a process of its own, which dies with its JVM while it works on the second file."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("run_backfill.py")),
        table,
        "0.9",
        DAY.isoformat(),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        assert child.stdout is not None
        try:
            said = next((line for line in child.stdout if line.startswith("filled")), "")
        finally:
            os.killpg(child.pid, signal.SIGKILL)
    assert said.strip() == "filled 1"
    assert child.returncode == -signal.SIGKILL


def content(table: str) -> list[dict[str, Any]]:
    return sorted(DeltaTable(table).to_pyarrow_table().to_pylist(), key=lambda row: int(row["id"]))


@pytest.mark.parametrize("break_off", [stopped, pytest.param(killed, marks=pytest.mark.faults)])
def test_taken_up_again_it_equals_one_run_and_who_follows_sees_no_change(
    table: str, spark: Any, tmp_path: Path, break_off: Callable[[str, Any], None]
) -> None:
    once = str(tmp_path / "once")
    shutil.copytree(table, once)
    backfill_lineage(spark, once, "silver", "0.9", timestamp=DAY)
    spark.sql(f"ALTER TABLE delta.`{table}` ADD COLUMNS (_silver_lineage {lineage_type().simpleString()})")
    rows = spark.readStream.format("delta").load(table).select("id")
    writer = rows.writeStream.format("delta").option("checkpointLocation", str(tmp_path / "checkpoint"))
    query = writer.start(str(tmp_path / "followed"))
    try:
        query.processAllAvailable()
        break_off(table, spark)
        assert versions(table) == {"0.9": 10, "": 20}
        rest = backfill_lineage(spark, table, "silver", "0.9", chunk_bytes=1, timestamp=DAY)
        assert content(table) == content(once)
        write(Path(table), [("silver.clean", "1.0", 0)])
        query.processAllAvailable()
    finally:
        query.stop()
    assert [(step.files, step.rows, step.left) for step in rest.steps] == [(1, 10, 1), (1, 10, 0)]
    followed = DeltaTable(str(tmp_path / "followed")).to_pyarrow_table()["id"].to_pylist()
    assert sorted(followed) == sorted([*range(30), 0])
    feed = (
        spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 1).load(table)
    )
    assert [row["_change_type"] for row in feed.collect()] == ["insert"]


def test_rows_that_stem_from_several_keep_the_oldest_and_all_versions(spark: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "orders")
    write(Path(path), [("p", "2.0", 5), ("p", "1.0", 1), None, ("p", "2.0", 6)])
    rows = spark.read.format("delta").load(path)
    [found] = rows.groupBy().agg(combined_lineage("silver").alias("of")).collect()
    assert (found["of"]["oldest"]["version"], found["of"]["versions"]) == ("1.0", ["1.0", "2.0"])


def test_queries_run_in_spark_as_written(table: str, spark: Any) -> None:
    hostile = "0.9'; DROP TABLE x; -- \\"
    backfill_lineage(spark, table, "silver", hostile, pipe="a'b", timestamp=DAY)
    assert spark.sql(find_records_by_version(table, hostile, "a'b")).count() == 30
    [row] = spark.sql(version_adoption_report(table)).collect()
    assert (row["version"], row["rows"], row["share"]) == (hostile, 30, 1.0)
    [stale] = spark.sql(stale_version_report(table, "1.0", datetime(2026, 1, 2))).collect()
    assert (stale["rows"], stale["version"]) == (30, hostile)
    assert spark.sql(stale_version_report(table, "1.0", datetime(2025, 12, 31))).collect() == []


def test_rows_behind_deletion_vectors_are_counted_in_a_session(spark: Any, tmp_path: Path) -> None:
    table = str(tmp_path / "orders")
    write(Path(table), [("silver.clean", "0.9", 0)] * 3, [("silver.clean", "1.0", 5)] * 2, [None])
    spark.sql(f"ALTER TABLE delta.`{table}` SET TBLPROPERTIES (delta.enableDeletionVectors = true)")
    spark.sql(f"DELETE FROM delta.`{table}` WHERE id = 1")
    with pytest.raises(LineageError, match="cannot be told without Spark"):
        audit_table(table, "silver")
    for before, stale in ((None, (2, 1)), (START + timedelta(days=1), (2, 1)), (START, (0, 0))):
        judged = Staleness({"silver.clean": "1.0"}, before)
        found = audit_table(table, "silver", stale=judged, spark=spark)
        assert [(count.version, count.rows, count.files) for count in found.counts] == [
            ("0.9", 2, 1), ("", 1, 1), ("1.0", 1, 1)
        ]  # fmt: skip
        assert (found.stale_rows, found.stale_files, found.files) == (*stale, 3)
        assert found.counts[0].first_written == found.counts[0].last_written == START
    [nothing] = audit_table(table, "gold", spark=spark).counts
    assert (nothing.version, nothing.rows, nothing.files) == ("", 4, 3)
    app_manifest(tmp_path).write(tmp_path / "manifest.json")
    [checks] = build_lineage_checks(KindlingProject(manifest=tmp_path / "manifest.json"))
    job = Definitions(asset_checks=[checks]).resolve_implicit_global_asset_job_def()
    with DagsterInstance.ephemeral() as instance:
        evaluations = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    told = {evaluation.asset_key.path[-1]: evaluation.description for evaluation in evaluations}
    # No commit tells the pipe's version; its newest row does.
    assert told["orders"] == "2 of 4 rows are of versions that are too old."


def test_another_column_of_that_name_is_refused(table: str, spark: Any) -> None:
    spark.sql(f"ALTER TABLE delta.`{table}` ADD COLUMNS (_silver_lineage STRING)")
    with pytest.raises(LineageError, match="of type string"):
        backfill_lineage(spark, table, "silver", "0.9")
    assert DeltaTable(table).version() == 1


@pytest.mark.parametrize(("path", "version"), [("nowhere", "0.9"), ("", " ")])
def test_no_table_and_no_version_are_refused(table: str, spark: Any, path: str, version: str) -> None:
    with pytest.raises(LineageError):
        backfill_lineage(spark, f"{table}/{path}" if path else table, "silver", version)
