"""Assets and selections from a manifest: keys, dependencies, external assets, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, AssetSelection, AssetSpec, Definitions
from manifests import entity, manifest, pipe

from kindling_dagster.assets import PROJECT_TAG, build_kindling_asset_specs, kindling_assets
from kindling_dagster.errors import CycleError, DeclarationError, KindlingDagsterError, SelectionError
from kindling_dagster.manifest import Location, Manifest
from kindling_dagster.project import KindlingProject
from kindling_dagster.translator import AssetData, DagsterKindlingTranslator

SHOP = manifest(
    pipe("clean", "bronze.orders ref.items.current", "silver.orders", tags={"owner": "core"}),
    pipe("fix", "bronze.fixes silver.orders", "silver.orders"),
    pipe("daily", "silver.orders sales.view", "gold.daily", tags={"cadence": "daily"}),
    pipe("top", "gold.daily", "gold.top"),
    pipe("follow", "bronze.orders", "silver.live", tags={"processing_mode": "streaming"}),
    entities=(
        entity("ref.items", scd2=True),
        entity("ref.items.current", companion_of="ref.items", provider="current_view"),
        entity(
            "sales.view",
            kind="sql",
            sql="…",
            sql_inputs=("silver.orders", "ref.items"),
            location=Location("none"),
        ),
        entity("gold.daily", tags={"layer": "gold"}),
    ),
)


@pytest.fixture
def project(tmp_path: Path) -> Any:
    def make(app: Manifest) -> KindlingProject:
        app.write(tmp_path / "manifest.json")
        return KindlingProject(manifest=tmp_path / "manifest.json")

    return make


def deps(project: KindlingProject, **kwargs: Any) -> dict[str, set[str]]:
    specs = build_kindling_asset_specs(project=project, **kwargs)
    return {
        spec.key.to_user_string(): {dep.asset_key.to_user_string() for dep in spec.deps} for spec in specs
    }


def test_an_asset_for_each_entity_that_batch_pipes_write(project: Any) -> None:
    assert deps(project(SHOP)) == {
        "silver/orders": {"bronze/orders", "ref/items", "bronze/fixes"},
        "gold/daily": {"silver/orders", "ref/items"},
        "gold/top": {"gold/daily"},
    }


def test_external_assets_are_what_nobody_writes(project: Any) -> None:
    assert deps(project(SHOP), external=True) == {
        "bronze/orders": set(),
        "bronze/fixes": set(),
        "ref/items": set(),
        "sales/view": {"silver/orders", "ref/items"},
    }


@pytest.mark.parametrize(
    ("select", "exclude", "keys"),
    [
        ("gold.*", None, {"gold/daily", "gold/top"}),
        ("gold/*", None, {"gold/daily", "gold/top"}),
        (None, "gold.*", {"silver/orders"}),
        ("clean", None, {"silver/orders"}),
        (["clean", "top"], None, {"silver/orders", "gold/top"}),
        ("tag:layer=gold", None, {"gold/daily"}),
        ("tag:cadence", None, {"gold/daily"}),
        ("tag:owner=c*", None, {"silver/orders"}),
        ('key:"gold/top"', None, {"gold/top"}),
        ("group:gold", None, {"gold/daily", "gold/top"}),
        ('+key:"gold/top"', None, {"gold/daily", "gold/top", "silver/orders"}),
        ('key:"gold/*" and not key:"gold/top"', None, {"gold/daily"}),
        ("*", "tag:layer=gold", {"silver/orders", "gold/top"}),
    ],
)
def test_selection(project: Any, select: Any, exclude: Any, keys: set[str]) -> None:
    assert set(deps(project(SHOP), select=select, exclude=exclude)) == keys


@pytest.mark.parametrize(
    ("select", "exclude", "says"),
    [
        ("gold.dayly", None, "Close to it: gold.daily"),
        (["gold.*", "nothing"], None, "select='nothing' matches no asset"),
        (None, "bronze.orders", "exclude='bronze.orders' matches no asset"),
        ("gold.*", "gold.*", "leave no asset"),
        ("key:(((", None, "cannot be parsed"),
    ],
)
def test_a_selection_that_fits_nothing_is_refused(project: Any, select: Any, exclude: Any, says: str) -> None:
    with pytest.raises(SelectionError) as caught:
        build_kindling_asset_specs(project=project(SHOP), select=select, exclude=exclude)
    assert says in str(caught.value)


def test_a_translator_decides_keys_and_with_them_dependencies(project: Any) -> None:
    class Prefixed(DagsterKindlingTranslator):
        def get_asset_key(self, data: AssetData) -> AssetKey:
            return super().get_asset_key(data).with_prefix("lake")

    assert deps(project(SHOP), translator=Prefixed())["lake/gold/top"] == {"lake/gold/daily"}


def test_a_translator_that_contradicts_itself_is_refused(project: Any) -> None:
    class Odd(DagsterKindlingTranslator):
        def get_asset_spec(self, data: AssetData) -> Any:
            return super().get_asset_spec(data).replace_attributes(key=AssetKey("x"))

    with pytest.raises(DeclarationError, match="Override get_asset_key"):
        build_kindling_asset_specs(project=project(SHOP), translator=Odd())


def test_a_spec_that_a_translator_makes_itself_gets_its_dependencies(project: Any) -> None:
    class Own(DagsterKindlingTranslator):
        def get_asset_spec(self, data: AssetData) -> AssetSpec:
            return AssetSpec(self.get_asset_key(data), deps=["elsewhere"])

    assert deps(project(SHOP), translator=Own())["gold/top"] == {"gold/daily", "elsewhere"}


def test_the_step_is_one_subsettable_op_that_carries_its_project_as_json(project: Any) -> None:
    made = project(SHOP)

    @kindling_assets(project=made)
    def shop(context):  # type: ignore[no-untyped-def]
        """Unused."""

    assert shop.op.name == "shop"
    assert shop.can_subset
    assert KindlingProject.from_json(shop.op.tags[PROJECT_TAG]) == made
    assert all(spec.skippable for spec in shop.specs)
    job = Definitions(assets=[shop]).resolve_implicit_global_asset_job_def()
    assert AssetSelection.all().resolve([shop]) == set(shop.keys)
    assert job is not None


def test_a_cycle_is_refused_and_drawn(project: Any) -> None:
    app = manifest(pipe("a", "x.one y.two", "x.two"), pipe("b", "x.two", "y.two"))
    with pytest.raises(CycleError, match="a →"):
        build_kindling_asset_specs(project=project(app))


def test_an_app_without_batch_pipes_is_refused(project: Any) -> None:
    app = manifest(pipe("follow", "a.b", "c.d", tags={"processing_mode": "streaming"}))
    with pytest.raises(DeclarationError, match="declares no batch pipe"):
        kindling_assets(project=project(app))


def test_errors_come_from_one_tree() -> None:
    assert issubclass(SelectionError, KindlingDagsterError)
    assert issubclass(CycleError, DeclarationError)
