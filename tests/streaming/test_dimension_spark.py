"""Tables that Spark writes: features of Delta that delta-rs does not write, and fingerprints made in a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dagster import PythonObjectDagsterType, build_input_context
from manifests import entity, manifest
from pyspark.sql import DataFrame

from kindling_dagster import KindlingIOManager, KindlingProject
from kindling_dagster.spark import build_session
from kindling_dagster.streaming.dimensions.in_session import fingerprint_in_session
from kindling_dagster.streaming.dimensions.look import compare, look
from kindling_dagster.streaming.dimensions.model import Dimension
from kindling_dagster.windows import Window

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

METHODS: dict[str, dict[str, Any]] = {
    "version": {},
    "row_count": {},
    "hash": {},
    "watermark": {"columns": ("updated",)},
    "watermark of id": {"method": "watermark", "columns": ("id",)},
    "schema": {},
    "scd2": {"keys": ("id",)},
}
# What plain tables have is among what these have, and the two features do not meet in the log.
PROPERTIES = "'delta.columnMapping.mode' = 'name', 'delta.enableDeletionVectors' = 'true'"


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    session = build_session(
        {
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": "1",
            "spark.databricks.delta.snapshotPartitions": "1",
            "spark.databricks.delta.retentionDurationCheck.enabled": "false",
            "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
        }
    )
    yield session
    session.stop()


@pytest.fixture(scope="module")
def sql(spark: Any) -> Callable[..., Any]:
    return spark.sql


def looks(path: Path) -> dict[str, Dimension]:
    made = {}
    for name, changes in METHODS.items():
        values = {"method": name, **changes}
        made[name] = Dimension("ref.planes", location=str(path), **values)  # type: ignore[arg-type]
    return made


ALL = dict.fromkeys(METHODS, "data")
NONE: dict[str, str] = {}

# statement, which methods see a change; {t} is the table
HISTORY: list[tuple[str, dict[str, str]]] = [
    (
        "INSERT INTO {t} VALUES (3, 'Cessna', timestamp'2024-01-01 00:00:00.001900', true, null, null)",
        {**ALL, "schema": ""},
    ),
    ("INSERT INTO {t} SELECT * FROM {t} WHERE id > 99", NONE),
    ("OPTIMIZE {t}", NONE),
    ("DELETE FROM {t} WHERE id = 3", {**ALL, "schema": ""}),
    ("DELETE FROM {t} WHERE id = 99", NONE),
    (
        "UPDATE {t} SET updated = timestamp'2024-01-01 00:00:00.001950' WHERE id = 2",
        {"version": "data", "hash": "data", "watermark": "data", "scd2": "data"},
    ),
    (
        "MERGE INTO {t} USING (SELECT 1 AS id, false AS now) s ON {t}.id = s.id "
        "WHEN MATCHED THEN UPDATE SET __is_current = s.now",
        {"version": "data", "hash": "data", "scd2": "data"},
    ),
    ("REORG TABLE {t} APPLY (PURGE)", NONE),
    ("VACUUM {t} RETAIN 0 HOURS", NONE),
    ("ALTER TABLE {t} SET TBLPROPERTIES ('a' = 'b')", NONE),
    ("ALTER TABLE {t} ADD COLUMNS (extra int)", dict.fromkeys(METHODS, "schema")),
    (
        "INSERT OVERWRITE {t} VALUES (5, 'Piper', timestamp'2024-01-01 00:00:00.001', true, null, null, 1)",
        {"version": "data", "hash": "data", "watermark": "data", "scd2": "data", "row_count": "data"}
        | {"watermark of id": "data"},
    ),
]


def test_what_spark_writes(sql: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "planes"
    table = f"delta.`{path}`"
    sql(
        f"CREATE TABLE {table} (id bigint, maker string, updated timestamp, __is_current boolean, "
        f"__effective_from timestamp, __effective_to timestamp) USING delta TBLPROPERTIES ({PROPERTIES})"
    )
    sql(
        f"INSERT INTO {table} VALUES (1, 'Boeing', timestamp'2024-01-01 00:00:00.001100', true, null, null), "
        "(2, 'Airbus', timestamp'2024-01-01 00:00:00.001200', true, null, null)"
    )
    seen = {name: look(dimension) for name, dimension in looks(path).items()}
    assert {name: found.problem for name, found in seen.items()} == dict.fromkeys(METHODS)
    assert seen["row_count"].rows == 2
    for statement, expected in HISTORY:
        sql(statement.format(t=table))
        for name, dimension in looks(path).items():
            found = look(dimension, seen[name].fingerprint)
            assert found.problem is None, (statement, name)
            assert (found.change or "") == expected.get(name, ""), (statement, name, found.reason)
            seen[name] = found
        assert seen["row_count"].rows == sql(f"SELECT count(*) FROM {table}").collect()[0][0]
    assert seen["version"].operations


def test_entities_are_read_alike_with_spark_and_without(sql: Callable[..., Any], tmp_path: Path) -> None:
    table = f"delta.`{tmp_path / 'lake/ref/planes'}`"
    sql(f"CREATE TABLE {table} (id bigint, `the maker` string) USING delta TBLPROPERTIES ({PROPERTIES})")
    sql(f'INSERT INTO {table} SELECT /*+ COALESCE(1) */ id, concat("it\'s ", id) FROM range(4)')
    sql(f"DELETE FROM {table} WHERE id = 1")  # by a deletion vector
    manifest(entities=(entity("ref.planes"),)).write(tmp_path / "manifest.json")
    project = KindlingProject(manifest=tmp_path / "manifest.json", working_dir=tmp_path)
    said = {"columns": ["the maker"], "filters": [[("the maker", "=", "it's 2")], [("id", "in", [1, 3])]]}

    def load(kind: type) -> Any:
        context = build_input_context(
            "planes", asset_key=["ref", "planes"], definition_metadata=said,
            dagster_type=PythonObjectDagsterType(kind),
        )  # fmt: skip
        return KindlingIOManager(project).load_input(context)

    frame = load(DataFrame)
    assert frame.columns == ["the maker"]
    assert sorted(row[0] for row in frame.collect()) == ["it's 2", "it's 3"]
    assert sorted(load(pd.DataFrame)["the maker"]) == ["it's 2", "it's 3"]


def test_a_window_takes_the_same_rows_by_columns_of_all_kinds(spark: Any) -> None:
    moments = ("2024-03-30 22:59:59Z", "2024-03-30 23:00:00Z", "2024-03-31 21:59:59Z", "2024-03-31 22:00:00Z")
    rows = ", ".join(f"(timestamp'{moment}')" for moment in moments)
    frame = spark.sql(f"SELECT at FROM VALUES {rows} AS t(at)").selectExpr(
        "at",
        "cast(from_utc_timestamp(to_utc_timestamp(at, current_timezone()), 'Europe/Berlin') AS timestamp_ntz) clock",
    )
    frame = frame.selectExpr("*", "cast(clock AS date) day", "cast(cast(clock AS date) AS string) text")
    day = Window(start="2024-03-31T00:00:00+01:00", end="2024-04-01T00:00:00+02:00", timezone="Europe/Berlin")
    types = {each.name: each.dataType.typeName() for each in frame.schema}
    for column, kind in types.items():
        found = frame
        for condition in day.conditions(column, kind):
            found = found.where(condition.to_sql().sql(dialect="spark"))
        assert found.count() == 2, (column, kind)


def test_a_table_that_is_replaced(sql: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "planes"
    sql(f"CREATE TABLE delta.`{path}` USING delta AS SELECT 1 AS id")
    watched = Dimension("ref.planes", location=str(path))
    seen = look(watched)
    sql(f"CREATE OR REPLACE TABLE delta.`{path}` USING delta AS SELECT 'x' AS name")
    found = look(watched, seen.fingerprint)
    assert found.change in ("schema", "replaced")
    assert look(watched, found.fingerprint).change is None


def test_fingerprints_in_a_session(spark: Any) -> None:
    rows = [(1, "a", {"k": 1}, None), (2, None, {"k": 2}, 1.5), (2, None, {"k": 2}, 1.5)]
    frame = spark.createDataFrame(rows, "id int, name string, tags map<string,int>, rate double")
    watched = Dimension("ref.session", "memory", method="hash")
    before = fingerprint_in_session(watched, frame)
    first = compare(watched, None, before)
    assert (first.first, first.change, first.rows) == (True, None, 3)
    again = fingerprint_in_session(watched, frame.orderBy(frame.id.desc()).repartition(2))
    assert compare(watched, before, again).change is None
    once = fingerprint_in_session(watched, frame.limit(2))
    assert compare(watched, before, once).change == "data"
    more = fingerprint_in_session(watched, frame.selectExpr("*", "1 AS extra"))
    found = compare(watched, before, more)
    assert (found.change, found.reason) == ("schema", "added extra: integer!")
    names = replace(watched, columns=("name",))
    by_name = fingerprint_in_session(names, frame)
    other_ids = fingerprint_in_session(names, frame.selectExpr("id + 1 AS id", "name", "tags", "rate"))
    assert compare(names, by_name, other_ids).change is None
    assert compare(names, before, by_name).first
    assert compare(watched, before, "nonsense").problem is not None
