"""Entities read without a JVM: columns, filters, versions, deletion vectors, history, Parquet; every kind of frame."""

from __future__ import annotations

import sys
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifests import entity
from table_checks.delta_tables import delete_rows, write

from kindling_dagster.errors import RunError
from kindling_dagster.frames import kind_of, make_frame
from kindling_dagster.manifest import Location
from kindling_dagster.reading import Condition, EntityReader, ReadRequest, heed_current

AT = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
ROWS: list[dict[str, Any]] = [
    {"id": 1, "name": "it's", "at": AT, "day": date(2024, 1, 1), "price": Decimal("1.50"), "Is Late": True},
    {"id": 2, "name": "pen", "at": AT.replace(hour=13), "day": date(2024, 1, 2), "price": None, "Is Late": False},
    {"id": 3, "name": None, "at": None, "day": date(2024, 1, 3), "price": Decimal("2.25"), "Is Late": None},
]  # fmt: skip
SCHEMA = pa.schema(
    [
        ("id", pa.int64()), ("name", pa.string()), ("at", pa.timestamp("us", "UTC")), ("day", pa.date32()),
        ("price", pa.decimal128(9, 2)), ("Is Late", pa.bool_()),
    ]
)  # fmt: skip
ORDERS = entity("silver.orders", location=Location("path", "orders"))
FILES = entity("bronze.files", provider="parquet", location=Location("path", "files"))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    write(folder / "orders", ROWS, SCHEMA)
    pq.write_to_dataset(pa.Table.from_pylist(ROWS, SCHEMA), folder / "files", partition_cols=["id"])
    (folder / "files" / "_SUCCESS").touch()
    return folder


def ids(lake: Path, **said: Any) -> set[int]:
    """The ids of the rows that both providers give; they must agree."""
    request = ReadRequest.of({"columns": ["id"], **said}, "a test")
    delta, files = (
        set(EntityReader(item, lake).read(request).read_all()["id"].to_pylist()) for item in (ORDERS, FILES)
    )
    assert delta == files
    return delta


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], {1, 2, 3}),
        ([("id", "=", 1)], {1}),
        ([("id", "!=", 1)], {2, 3}),
        ([("id", ">", 1), ("id", "<", 3)], {2}),
        ([("id", ">=", 2)], {2, 3}),
        ([("id", "<=", 2)], {1, 2}),
        ([[("id", "=", 1)], [("name", "==", "pen")]], {1, 2}),
        ([("name", "=", "it's")], {1}),
        ([("name", "!=", "pen")], {1}),
        ([("name", "in", ["pen", "it's"])], {1, 2}),
        ([("name", "not in", ["pen"])], {1}),
        ([("id", "in", [])], set()),
        ([("name", "is null")], {3}),
        ([("name", "is not null")], {1, 2}),
        ([("at", ">=", datetime(2024, 1, 1, 13, tzinfo=timezone.utc))], {2}),
        ([("day", "<", date(2024, 1, 3))], {1, 2}),
        ([("price", ">", Decimal("2"))], {3}),
        ([("Is Late", "=", False)], {2}),
    ],
)
def test_filters_mean_the_same_in_delta_and_parquet(lake: Path, filters: Any, expected: set[int]) -> None:
    assert ids(lake, filters=filters) == expected


@given(value=st.text(min_size=1))
def test_no_text_ends_its_literal(value: str) -> None:
    from sqlglot import parse_one

    for dialect in ("postgres", "spark"):
        made = ReadRequest().also([Condition("name", "=", value)]).where(dialect)
        assert parse_one(made, dialect=dialect).expression.this == value


def test_columns_come_in_the_order_asked_for_with_declared_types(lake: Path) -> None:
    for item in (ORDERS, FILES):
        found = EntityReader(item, lake).read(ReadRequest(("day", "name"))).read_all()
        assert found.schema.equals(pa.schema([SCHEMA.field("day"), SCHEMA.field("name")]))
    assert EntityReader(ORDERS, lake).read(ReadRequest()).read_all().schema.equals(SCHEMA)


def test_rows_under_a_deletion_vector_are_gone_and_old_versions_can_be_read(tmp_path: Path) -> None:
    write(tmp_path / "orders", ROWS, SCHEMA)
    delete_rows(tmp_path / "orders", [1])
    reader = EntityReader(ORDERS, tmp_path)
    assert reader.read(ReadRequest(("id",))).read_all()["id"].to_pylist() == [1, 3]
    write(tmp_path / "orders", ROWS[:1], SCHEMA, mode="append")
    assert reader.read(ReadRequest(("id",))).read_all().num_rows == 3
    assert reader.read(ReadRequest(("id",), version=0)).read_all().num_rows == 2


def test_current_rows_of_history(tmp_path: Path) -> None:
    history = entity(
        "silver.items", location=Location("path", "items"), scd2=True, tags={"scd.current_col": "now"}
    )
    schema = pa.schema([("id", pa.int64()), ("now", pa.bool_())])
    write(
        tmp_path / "items", [{"id": 1, "now": False}, {"id": 1, "now": True}, {"id": 2, "now": True}], schema
    )
    reader = EntityReader(history, tmp_path)
    assert reader.read(ReadRequest(("id",))).read_all().num_rows == 3
    request = ReadRequest.of({"columns": ["id"], "filters": [("id", "=", 1)], "current": True}, "a test")
    assert reader.read(request).read_all().num_rows == 1
    assert heed_current(history, request).where("spark") == "`id` = 1 AND `now` = TRUE"


@pytest.mark.parametrize(
    ("item", "said", "told"),
    [
        (ORDERS, {"columns": ["ids"]}, "has no column ids. Its columns are id, name"),
        (ORDERS, {"filters": [("nam", "=", 1)]}, "has no column nam"),
        (ORDERS, {"current": True}, "keeps no history"),
        (FILES, {"version": 1}, "has no versions"),
        (entity("silver.none"), {}, "no table of silver.none yet. Materialize"),
        (entity("silver.none", provider="parquet"), {}, "no table of silver.none yet. Materialize"),
        (entity("a.csv", provider="csv"), {}, "is of the provider csv, which only Spark reads. Take it as a pyspark"),
        (entity("a.t", location=Location("table", "db.t")), {}, "is the table db.t of Spark's catalog"),
        (entity("a.m", provider="memory", location=Location("memory")), {}, "kept in the memory"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_why(lake: Path, item: Any, said: dict[str, Any], told: str) -> None:
    with pytest.raises(RunError) as error:
        EntityReader(item, lake).read(ReadRequest.of(said, "a test"))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"columns": "id"}, "columns of orders is 'id'. Give a list of names."),
        ({"columns": [1]}, "Give a list of names."),
        ({"version": "1"}, "Give the number of a Delta version."),
        ({"version": True}, "Give the number of a Delta version."),
        ({"filters": "id = 1"}, "Give a list of (column, operator, value)"),
        ({"filters": [("id",)]}, "Give a list of (column, operator, value)"),
        ({"filters": [("id", "=", 1, 2)]}, "Give a list of (column, operator, value)"),
        ({"filters": [(["id"], "=", 1)]}, "Give a list of (column, operator, value)"),
        ({"filters": [("id", "like", "a%")]}, "has the operator 'like'. Use one of ="),
        ({"filters": [("id", "=", None)]}, "compares with None"),
        ({"filters": [("id", "in", "abc")]}, "compares with None"),
        ({"filters": [("id", "in", [1, None])]}, "compares with None"),
        ({"filters": [("id", "=", [1])]}, "compares with [1]"),
    ],
)
def test_requests_of_another_form_are_refused(said: dict[str, Any], told: str) -> None:
    with pytest.raises(RunError) as error:
        ReadRequest.of(said, "orders")
    assert told in str(error.value)


def test_frames(lake: Path) -> None:
    reader, request = EntityReader(ORDERS, lake), ReadRequest.of({"filters": [("id", "<", 3)]}, "a test")
    assert list(make_frame("pandas.DataFrame", reader, request)["name"]) == ["it's", "pen"]
    assert make_frame("pyarrow.Table", reader, request).num_rows == 2
    assert make_frame("pyarrow.RecordBatchReader", reader, request).read_all().num_rows == 2


def test_polars(lake: Path) -> None:
    pl = pytest.importorskip("polars")
    reader, request = EntityReader(ORDERS, lake), ReadRequest.of({"filters": [("id", "<", 3)]}, "a test")
    assert kind_of(pl.LazyFrame) == "polars.LazyFrame"
    assert make_frame("polars.DataFrame", reader, request)["id"].to_list() == [1, 2]
    lazy = make_frame("polars.LazyFrame", reader, request)
    assert isinstance(lazy, pl.LazyFrame)
    assert lazy.collect_schema().names() == SCHEMA.names
    assert lazy.filter(pl.col("id") > 1).select("name").collect().rows() == [("pen",)]
    assert lazy.head(1).collect().height == 1
    assert lazy.collect().height == 2


def test_a_lazy_polars_frame_reads_only_the_columns_it_uses(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("polars")
    asked: list[tuple[str, ...]] = []
    read = EntityReader.read
    monkeypatch.setattr(
        EntityReader, "read", lambda self, request: asked.append(request.columns) or read(self, request)
    )
    make_frame("polars.LazyFrame", EntityReader(ORDERS, lake), ReadRequest()).select("name").collect()
    assert asked == [("name",)]


def test_duckdb(lake: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    relation = make_frame("duckdb.DuckDBPyRelation", EntityReader(ORDERS, lake), ReadRequest(("id", "name")))
    assert kind_of(duckdb.DuckDBPyRelation) == "duckdb.DuckDBPyRelation"
    assert relation.filter("id > 1").aggregate("sum(id)").fetchall() == [(5,)]


def test_a_library_that_is_missing_is_named(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(RunError, match=r"duckdb is not installed\. Install it: pip install duckdb"):
        make_frame("duckdb.DuckDBPyRelation", EntityReader(ORDERS, lake), ReadRequest())


def test_kinds_of_annotations() -> None:
    from pyspark.sql import DataFrame

    assert kind_of(pd.DataFrame) == "pandas.DataFrame"
    assert kind_of(pa.Table) == "pyarrow.Table"
    assert kind_of(pa.RecordBatchReader) == "pyarrow.RecordBatchReader"
    assert kind_of(DataFrame) == "pyspark.DataFrame"
    assert [kind_of(other) for other in (Any, dict, pd.Series, None, list[int])] == [""] * 5
