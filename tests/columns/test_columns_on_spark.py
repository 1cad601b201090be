"""Column lineage as Dagster is told of it, of plans that a real session has analysed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from dagster import AssetMaterialization, DagsterInstance, materialize
from deltalake import write_deltalake

from kindling_dagster import KindlingProject, KindlingResource, kindling_assets
from kindling_dagster.columns.tracing import CONSTANT
from kindling_dagster.spark import build_session

pytestmark = pytest.mark.spark

SALES = pa.table({"id": [1, 2, 3], "shop": [1, 1, 2], "amount": [10, 20, 30]})
SHOPS = pa.table({"id": [1, 2], "name": ["left", "right"], "open": [True, True]})


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, AssetMaterialization]]:
    """The materializations of one run of all pipes."""
    app = tmp_path_factory.mktemp("columns") / "app"
    shutil.copytree(Path(__file__).parent / "app", app)
    for name, held in (("sales", SALES), ("shops", SHOPS)):
        (app / "data" / "lake" / "raw").mkdir(parents=True, exist_ok=True)
        write_deltalake(str(app / "data" / "lake" / "raw" / name), held)

    @kindling_assets(project=KindlingProject(app))
    def traced(context, kindling: KindlingResource):  # type: ignore[no-untyped-def]
        yield from kindling.run(context).stream()

    session = build_session({"spark.master": "local[2]"})
    try:
        with DagsterInstance.ephemeral() as instance:
            result = materialize([traced], resources={"kindling": KindlingResource()}, instance=instance)
            yield {
                "/".join(event.asset_key.path): event.materialization
                for event in result.get_asset_materialization_events()
            }
    finally:
        session.stop()


@pytest.mark.parametrize(
    ("asset", "columns"),
    [
        (
            "gold/joined",
            {
                "sale": {"raw/sales.id"},
                "shop": {"raw/sales.shop", "raw/shops.id"},
                "label": {"raw/shops.name", "raw/sales.amount"},
            },
        ),
        ("memory/totals", {"shop": {"raw/sales.shop"}, "amount": {"raw/sales.amount"}}),
        ("memory/pairs", {"first": {"raw/sales.id"}, "more": {"raw/sales.amount"}}),
        ("memory/titled", {"title": {"ref/open_shops.title"}, "amount": {"raw/sales.amount"}}),
        ("memory/unknown", {"id": {"raw/sales.id"}}),
    ],
)
def test_each_column_has_what_it_is_made_of(
    told: dict[str, AssetMaterialization], asset: str, columns: dict[str, set[str]]
) -> None:
    lineage = told[asset].metadata["dagster/column_lineage"].value
    found = {
        column: [f"{'/'.join(dep.asset_key.path)}.{dep.column_name}" for dep in deps]
        for column, deps in lineage.deps_by_column.items()  # type: ignore[union-attr]
    }
    # In no order, and none twice.
    assert {column: set(deps) for column, deps in found.items()} == columns
    assert all(len(deps) == len(set(deps)) for deps in found.values())


@pytest.mark.parametrize(
    ("asset", "gaps"),
    [
        ("gold/joined", None),
        ("memory/totals", {"sales": CONSTANT}),
        ("memory/pairs", None),
        ("memory/titled", None),
        (
            "memory/unknown",
            {"number": "it is read from a Range that is no input of the pipe", "currency": CONSTANT},
        ),
    ],
)
def test_a_column_that_cannot_be_traced_is_absent_with_the_reason(
    told: dict[str, AssetMaterialization], asset: str, gaps: dict[str, str] | None
) -> None:
    stated = told[asset].metadata.get("kindling/column_lineage_gaps")
    assert (None if stated is None else stated.value) == gaps


def test_the_columns_say_it_too(told: dict[str, AssetMaterialization]) -> None:
    schema = told["gold/joined"].metadata["dagster/column_schema"].value
    described = {column.name: column.description for column in schema.columns}  # type: ignore[union-attr]
    assert described["sale"] == "from raw/sales: id"
