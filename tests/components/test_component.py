"""KindlingProjectComponent: what YAML says becomes definitions, and what is state is not recorded twice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from app_forms import manifest_cache, small_app
from dagster import AssetKey, AssetSpec, DagsterInstance, Definitions, MaterializeResult, materialize
from dagster.components import DefsStateConfigArgs
from dagster.components.resolved.core_models import OpSpec
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox
from dagster.components.testing.test_cases import TestTranslation as TranslationCases
from manifests import entity, manifest, pipe

from kindling_dagster import KindlingProject, KindlingProjectComponent, KindlingResource, WarmEngine
from kindling_dagster.assets import PROJECT_TAG
from kindling_dagster.errors import KindlingDagsterError, ProjectError
from kindling_dagster.streaming.restarts import RestartConfig
from kindling_dagster.translator import AssetData

__all__ = ["manifest_cache"]

SHOP = manifest(
    pipe("seed", "", "bronze.seed"),
    pipe("clean", "bronze.orders", "silver.orders"),
    pipe("daily", "silver.orders", "gold.daily"),
    pipe("follow", "bronze.orders", "silver.live", tags={"processing_mode": "streaming"}),
    entities=(entity("gold.daily", tags={"cadence": "daily"}),),
)
PARTITIONED = manifest(
    pipe("clean", "bronze.orders", "silver.orders"),
    entities=(entity("silver.orders", merge_columns=("id",), tags={"dagster/partition_column": "day"}),),
)
PAGE = Path(__file__).parents[2] / "docs" / "component.md"
SEED = AssetKey(["bronze", "seed"])


class Recordings:
    """Answers in place of the recording process, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self.answer = SHOP
        self.asked: dict[str, Any] = {}

    def __call__(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        self.count += 1
        self.asked = request
        return {"manifest": self.answer.to_json()}


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> Recordings:
    made = Recordings()
    monkeypatch.setattr("kindling_dagster.project.run_recorder", made)
    return made


@pytest.fixture
def in_dev(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `dg` and `dagster dev`."""
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")


@pytest.fixture
def app(tmp_path: Path, recordings: Recordings) -> Path:
    return small_app(tmp_path, {"pipes/a.py": "A = 1\n"}, name="shop")


@contextmanager
def loaded(
    app: Path, cls: type[KindlingProjectComponent] = KindlingProjectComponent, **attributes: Any
) -> Iterator[tuple[Any, Definitions, DefsFolderSandbox, Path]]:
    with create_defs_folder_sandbox() as sandbox:
        place = sandbox.scaffold_component(
            KindlingProjectComponent, defs_path="shop", scaffold_params={"project_path": str(app)}
        )
        stated = {"type": "kindling_dagster.KindlingProjectComponent"}
        if attributes:
            stated["attributes"] = {"project": str(app), **attributes}  # type: ignore[assignment]
            (place / "defs.yaml").write_text(yaml.safe_dump(stated))
        with sandbox.load_component_and_build_defs(place) as (component, defs):
            yield component, defs, sandbox, place


def keys(defs: Definitions) -> set[str]:
    specs = defs.resolve_all_asset_specs()
    return {spec.key.to_user_string() for spec in specs if spec.metadata.get("kindling/pipes")}


def project_of(defs: Definitions) -> dict[str, Any]:
    step = defs.resolve_assets_def(SEED)
    stated: dict[str, Any] = json.loads(step.op.tags[PROJECT_TAG])
    return stated


def test_an_app_in_one_line(app: Path) -> None:
    with loaded(app) as (component, defs, _, _):
        assert keys(defs) == {"bronze/seed", "silver/orders", "gold/daily", "silver/live"}
        names = {job.name for job in defs.resolve_all_job_defs()}
        assert {"shop_app_all", "shop_app_analyze"} <= names
        assert {sensor.name for sensor in defs.sensors or ()}
        assert defs.executor is not None
        assert component.environment == "local"


def test_what_is_scaffolded_counts_from_the_dagster_project(app: Path) -> None:
    with loaded(app) as (component, _, sandbox, place):
        text = (place / "defs.yaml").read_text()
        assert "{{ project_root }}/" in text
        assert str(app.parent) not in text
        assert Path(component.project).resolve() == app.resolve()
        with pytest.raises(ProjectError, match="no Kindling app"):
            sandbox.scaffold_component(
                KindlingProjectComponent, scaffold_params={"project_path": str(app / "src" / "nothing")}
            )


def test_a_second_app_gets_a_resource_of_its_own(app: Path, tmp_path: Path) -> None:
    other = small_app(tmp_path, {"pipes/a.py": "A = 1\n"}, name="other")
    with create_defs_folder_sandbox() as sandbox:
        stated = [
            yaml.safe_load(
                (
                    sandbox.scaffold_component(
                        KindlingProjectComponent,
                        defs_path=name,
                        scaffold_params={"project_path": str(where)},
                    )
                    / "defs.yaml"
                ).read_text()
            )["attributes"]
            for name, where in (("shop", app), ("my other-1", other))
        ]
    assert [attributes.get("resource_key") for attributes in stated] == [None, "my_other_1"]


class TestTranslation(TranslationCases):
    """Dagster's own cases of what `translation` may say."""

    def test_translation(
        self, app: Path, recordings: Recordings, attributes: Any, assertion: Any, key_modifier: Any
    ) -> None:
        if "partitions_def" in attributes:  # not everything can have partitions
            recordings.answer = PARTITIONED
        # Stated dependencies add to the declared ones, and the case wants to see its own alone.
        plain = SEED if "deps" in attributes else AssetKey(["silver", "orders"])
        key = key_modifier(plain) if key_modifier else plain
        with loaded(app, translation=attributes, streams=False) as (_, defs, _, _):
            assert assertion(defs.resolve_assets_def(key).get_asset_spec(key))


def test_translation_knows_entity_pipes_and_manifest(app: Path) -> None:
    said = {
        "key": "{{ manifest.app.name }}/{{ entity.id }}",
        "group_name": "of_{{ entity.layer }}",
        "description": "By {{ pipes | map(attribute='id') | join(', ') }}",
        "deps": ["elsewhere"],
    }
    with loaded(app, translation=said) as (_, defs, _, _):
        spec = defs.resolve_assets_def(AssetKey(["shop", "gold.daily"])).get_asset_spec(
            AssetKey(["shop", "gold.daily"])
        )
        assert (spec.group_name, spec.description) == ("of_gold", "By daily")
        # Its own dependencies follow the changed keys; those of YAML come on top.
        assert {dep.asset_key.to_user_string() for dep in spec.deps} == {"shop/silver.orders", "elsewhere"}


def test_everything_that_can_be_said(
    app: Path, monkeypatch: pytest.MonkeyPatch, recordings: Recordings
) -> None:
    monkeypatch.setenv("PLANTED", "s3cr3t")
    said = {
        "environment": "{{ env('STAGE', 'prod') }}",
        "config_dir": "../settings",
        "packages": ["more"],
        "settings": {"kindling.execution.max_workers": 8, "text": "0.10"},
        "select": ["gold.*", "bronze.seed"],
        "exclude": "seed",
        "translation_settings": {"code_references": False, "owner_tag": "team"},
        "streams_resource": {"store_url": "{{ env.PLANTED }}", "options": {"trigger": "5 seconds"}},
        "supervisor": {"on_code_change": "ignore", "max_backoff": "{{ 5 * 10 }}"},
        "dimensions": {"restart": "never", "restarts": {"delay": 3}},
        "lineage": {"enabled": True, "by_layer": {"gold": False}, "version": "0.10"},
        "op": {"name": "my_step", "tags": {"team": "lake"}, "pool": "spark", "description": "Mine."},
        "resource": {
            "spark": {"spark.driver.memory": "4g", "spark.hadoop.key": "{{ env.PLANTED }}"},
            "engine": {"type": "warm", "idle_minutes": 30},
            "parallel": True,
            "retries": "{{ 1 + 1 }}",
            "storage_options": {"secret": "{{ env.PLANTED }}", "account": "0012"},
        },
        "resource_key": "lake",
        "executor": "default",
    }
    with loaded(app, **said) as (component, defs, _, place):
        assert recordings.asked["environment"] == "prod"
        assert recordings.asked["config_dir"] == str((place / "../settings").resolve())
        assert recordings.asked["packages"] == ["more"]
        assert recordings.asked["settings"] == {
            "kindling.execution.max_workers": 8,
            "text": "0.10",
            "kindling.lineage.enabled": True,
            "kindling.lineage.version": "0.10",
            "kindling.lineage.layer.gold": False,
        }
        assert (component.supervisor.on_code_change, component.supervisor.max_backoff) == ("ignore", 50.0)
        assert (component.dimensions.restart, component.dimensions.restarts) == (
            "never",
            RestartConfig(delay=3.0),
        )
        assert not component.translation_settings.code_references
        assert keys(defs) == {"gold/daily", "silver/live"}
        step = defs.resolve_assets_def(AssetKey(["gold", "daily"]))
        assert (step.op.name, step.op.tags["team"], step.op.pool) == ("my_step", "lake", "spark")
        assert step.op.description == "Mine."
        assert defs.executor is None
        assert set(defs.resources or ()) >= {"lake", "lake_streams"}
        resource = component.resource
        assert isinstance(resource.engine, WarmEngine)
        assert (resource.parallel, resource.retries, resource.engine.idle_minutes) == (True, 2, 30.0)
        assert resource.storage_options["account"] == "0012"
        shown = str({key: each.config_schema.default_value for key, each in resources(defs).items()})
        assert "s3cr3t" not in shown
        assert shown.count("{'env': 'PLANTED'}") >= 2


def resources(defs: Definitions) -> dict[str, Any]:
    return dict(defs.get_repository_def().get_top_level_resources())


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"enviroment": "prod"}, ["enviroment"]),
        ({"resource": {"paralel": True}}, ["paralel"]),
        ({"resource": {"engine": "teleport"}}, ["no engine 'teleport'", "in_process", "warm"]),
        ({"resource": {"engine": {"type": "warm", "idle_minutes": -1}}}, ["idle_minutes"]),
        ({"supervisor": {"on_code_change": "maybe"}}, ["on_code_change", "restart"]),
        ({"dimensions": {"restarts": {"delay": "soon"}}}, ["delay", "number"]),
        ({"select": "gold.nothing"}, ["gold.nothing", "Close to it: gold.daily"]),
        ({"form": "notebook"}, ["form", "scaffold"]),
        ({"project": "elsewhere"}, ["no Kindling app at", "elsewhere"]),
    ],
)
def test_what_cannot_be_is_refused_by_name(app: Path, attributes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(Exception) as refused, loaded(app, **attributes):
        pass
    for word in words:
        assert word in _whole(refused.value)


def _whole(error: BaseException | None) -> str:
    return "" if error is None else f"{error}\n{_whole(error.__cause__ or error.__context__)}"


def test_lineage_audit_adds_its_check_and_schedule(app: Path) -> None:
    with loaded(app, lineage_audit=True) as (_, defs, _, _):
        assert not [schedule.name for schedule in defs.schedules or ()]
    with_lineage = manifest(pipe("seed", "", "bronze.seed"), settings={"kindling.lineage.enabled": True})
    component = KindlingProjectComponent(project=str(app), lineage_audit=True)
    state = app.parent / "state.json"
    with_lineage.write(state)
    defs = component.build_defs_from_state(None, state)  # type: ignore[arg-type]
    assert [schedule.name for schedule in defs.schedules or ()] == ["shop_app_lineage_audit_schedule"]
    checks = defs.resolve_asset_graph().asset_check_keys
    assert "lineage_freshness" in {check.name for check in checks}


def test_a_reload_records_only_what_changed(app: Path, recordings: Recordings, in_dev: None) -> None:
    with loaded(app) as (_, defs, sandbox, place):
        assert recordings.count == 1
        state = Path(project_of(defs)["manifest"])
        assert state.is_file()
        assert sandbox.project_root in state.parents
        with sandbox.load_component_and_build_defs(place) as (_, again):
            assert recordings.count == 1
            assert keys(again) == keys(defs)
        (app / "src" / "shop" / "pipes" / "a.py").write_text("A = 2\n")
        recordings.answer = manifest(pipe("seed", "", "bronze.seed"))
        with sandbox.load_component_and_build_defs(place) as (_, changed):
            assert recordings.count == 2
            assert keys(changed) == {"bronze/seed"}


async def _refresh(component: KindlingProjectComponent, root: Path) -> None:
    await component.refresh_state(root)


def test_production_reads_the_state_and_never_the_app(app: Path, recordings: Recordings) -> None:
    import asyncio

    with loaded(app, environment="local") as (component, _, sandbox, place):
        with sandbox.build_component_tree():
            asyncio.run(_refresh(component, sandbox.project_root))
            asked = recordings.count
            asyncio.run(_refresh(component, sandbox.project_root))
        assert recordings.count == asked + 1, "who asks for a refresh gets one"
        (app / "src" / "shop" / "pipes" / "a.py").write_text("A = 3\n")
        with sandbox.load_component_and_build_defs(place) as (_, defs):
            assert keys(defs) == {"bronze/seed", "silver/orders", "gold/daily", "silver/live"}
        assert recordings.count == asked + 1


def test_state_that_dagster_keeps_elsewhere_outlives_the_load(app: Path, recordings: Recordings) -> None:
    component = KindlingProjectComponent(
        project=str(app), defs_state=DefsStateConfigArgs.versioned_state_storage()
    )
    # Dagster downloads the state into a temporary directory and removes it after the load.
    state = app.parent / "downloaded"
    SHOP.write(state)
    defs = component.build_defs_from_state(None, state)  # type: ignore[arg-type]
    state.unlink()
    kept = KindlingProject.from_json(json.dumps(project_of(defs)))
    assert kept.manifest_path is not None
    assert (kept.manifest, recordings.count) == (SHOP, 0)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "KindlingProjectComponent[shop_app:local]"),
        ({"environment": "prod"}, "KindlingProjectComponent[shop_app:prod]"),
        ({"project": "/x/shop_app/app.py"}, "KindlingProjectComponent[shop_app:local]"),
        ({"defs_state": {"key": "mine", "management_type": "LOCAL_FILESYSTEM"}}, "mine"),
    ],
)
def test_state_has_one_name_on_every_machine(changes: dict[str, Any], key: str) -> None:
    component = KindlingProjectComponent(**{"project": "/anywhere/shop_app", **changes})
    assert component.defs_state_config.key == key


def test_two_apps_of_a_project_have_a_state_each(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    keys = []
    for team in ("sales", "stock"):
        (tmp_path / team / "app").mkdir(parents=True)
        keys.append(KindlingProjectComponent(project=str(tmp_path / team / "app")).defs_state_config.key)
    assert keys == [
        "KindlingProjectComponent[sales/app:local]",
        "KindlingProjectComponent[stock/app:local]",
    ]


def test_what_is_said_over_the_settings_has_a_state_of_its_own() -> None:
    plain = KindlingProjectComponent(project="/anywhere/shop_app")
    told = KindlingProjectComponent(project="/anywhere/shop_app", lineage={"enabled": True})
    assert plain.defs_state_config.key != told.defs_state_config.key


class Greedy(KindlingProjectComponent):
    """A subclass as a user writes it."""

    def get_asset_spec(self, data: AssetData) -> AssetSpec:
        spec = super().get_asset_spec(data)
        return spec.replace_attributes(key=spec.key.with_prefix("greedy"))

    def execute(self, context: Any, kindling: KindlingResource) -> Iterator[MaterializeResult[Any]]:
        for key in sorted(context.selected_asset_keys):
            yield MaterializeResult(asset_key=key, metadata={"by": "hand"})


def test_a_subclass_decides_looks_and_execution(app: Path) -> None:
    component = Greedy(project=str(app), streams=False, op=OpSpec(name="greedy"))
    defs = component.build_defs_from_state(None, None)  # type: ignore[arg-type]
    step = defs.resolve_assets_def(SEED.with_prefix("greedy"))
    daily = step.get_asset_spec(AssetKey(["greedy", "gold", "daily"]))
    assert [dep.asset_key.path for dep in daily.deps] == [["greedy", "silver", "orders"]]
    with DagsterInstance.ephemeral() as instance:
        done = materialize([step], instance=instance, selection=[SEED.with_prefix("greedy")])
    assert [event.metadata["by"].value for event in done.asset_materializations_for_node("greedy")] == [
        "hand"
    ]


def test_the_schema_says_what_each_option_is_for() -> None:
    model = KindlingProjectComponent.get_model_cls()
    assert model is not None
    schema = model.model_json_schema()
    assert all("description" in said for name, said in schema["properties"].items() if name != "translation")
    for name in ("SupervisorPolicyAttributes", "RestartConfigAttributes", "KindlingResourceAttributes"):
        told = schema["$defs"][name]["properties"]
        assert all(
            "description" in said for option, said in told.items() if option not in ("spark", "engine")
        )


def test_an_error_of_ours_stays_one(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    component = KindlingProjectComponent(project=str(app), select="nothing.here")
    with pytest.raises(KindlingDagsterError, match="matches no asset"):
        component.build_defs_from_state(None, None)  # type: ignore[arg-type]


def test_the_page_names_every_attribute() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition("## Attributes")[2].partition("\n## ")[0]
    told = {name for row in table.splitlines() if row.startswith("| `") for name in _code(row.split("|")[1])}
    assert told == set(KindlingProjectComponent.model_fields)


def _code(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.mark.parametrize(
    "stated", re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
)
def test_the_pages_yaml_loads(app: Path, stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = yaml.safe_load(stated)["attributes"]
    with loaded(app, **{**attributes, "project": str(app)}) as (_, defs, _, _):
        assert len(keys(defs)) == 4
