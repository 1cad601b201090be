"""From entities to dimensions: method, place, secrets, options."""

from __future__ import annotations

from typing import Any

import pytest
from manifests import entity, manifest, pipe

from kindling_dagster.errors import DeclarationError, SelectionError
from kindling_dagster.manifest import Location
from kindling_dagster.streaming.dimensions.look import look
from kindling_dagster.streaming.dimensions.model import CurrentRows
from kindling_dagster.streaming.dimensions.registry import dimension_of, dimensions_of

METHODS: list[tuple[dict[str, Any], str | None, str]] = [
    ({}, None, "version"),
    ({"scd2": True}, None, "scd2"),
    ({"provider": "parquet"}, None, "files"),
    ({"provider": "csv"}, None, "files"),
    ({"provider": "memory"}, None, "hash"),
    ({"provider": "eventhub"}, None, "hash"),
    ({"tags": {"dagster/change_detection": "Row_Count"}}, None, "row_count"),
    ({"tags": {"dagster/change_detection": "row_count"}}, "hash", "hash"),
]


@pytest.mark.parametrize(("changes", "asked", "expected"), METHODS)
def test_method(changes: dict[str, Any], asked: str | None, expected: str) -> None:
    assert dimension_of(entity("ref.planes", **changes), asked).method == expected


def test_no_such_method() -> None:
    with pytest.raises(SelectionError, match=r"no change detection 'magic', asked for entity 'ref\.planes'"):
        dimension_of(entity("ref.planes"), "magic")


def test_columns_keys_and_bookkeeping() -> None:
    tags = {"dagster/change_columns": "maker, model", "scd.current_col": "now", "provider.delimiter": ";"}
    made = dimension_of(entity("ref.planes", scd2=True, merge_columns=("tail",), tags=tags))
    assert (made.columns, made.keys, made.options) == (("maker", "model"), ("tail",), {"delimiter": ";"})
    assert made.current_rows == CurrentRows(current="now")
    assert dimension_of(entity("ref.planes", tags=tags), columns=("x",)).columns == ("x",)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("lake/planes", "/work/lake/planes"),
        ("/abs/planes", "/abs/planes"),
        ("s3://b/planes", "s3://b/planes"),
    ],
)
def test_relative_locations(value: str, expected: str) -> None:
    made = dimension_of(entity("ref.planes", location=Location("path", value)), working_directory="/work")
    assert made.location == expected


@pytest.mark.parametrize("kind", ["table", "memory", "none"])
def test_no_path_needs_spark(kind: str) -> None:
    found = look(dimension_of(entity("ref.planes", location=Location(kind, "main.planes"))))
    assert found.problem is not None
    assert found.problem.kind == "needs_spark"


def test_a_secret_location_is_asked_for_when_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    made = dimension_of(
        entity("ref.planes", location=Location("secret", "planes-path")), working_directory="/work"
    )
    found = look(made)
    assert found.problem is not None
    assert (found.problem.kind, "@secret:planes-path" in found.problem.message) == ("configuration", True)
    monkeypatch.setenv("KINDLING_SECRET_PLANES_PATH", "hidden/place")
    assert callable(made.location)
    assert made.location() == "/work/hidden/place"
    found = look(made)
    assert found.problem is not None
    assert (found.problem.kind, "hidden" in found.problem.message) == ("missing", False)


def test_several() -> None:
    app = manifest(pipe("p", "bronze.a ref.planes", "silver.b"))
    assert list(dimensions_of(app, ("ref.planes", "bronze.a"))) == ["ref.planes", "bronze.a"]
    with pytest.raises(DeclarationError, match=r"No such entity: ref\.gone"):
        dimensions_of(app, ("ref.gone",))
