"""Partitions: what tags declare, what is refused at load, what a run of some of them tells Kindling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, timezone
from typing import Any

import pytest
from dagster import (
    AssetKey,
    BackfillPolicy,
    DagsterInstance,
    DailyPartitionsDefinition,
    Definitions,
    DynamicPartitionsDefinition,
    MaterializeResult,
    MultiPartitionsDefinition,
    PartitionsDefinition,
    StaticPartitionsDefinition,
)
from manifests import entity, manifest, pipe

from kindling_dagster import (
    AssetData,
    DagsterKindlingTranslator,
    KindlingProject,
    build_kindling_definitions,
    kindling_assets,
)
from kindling_dagster.errors import DeclarationError, RunError
from kindling_dagster.manifest import Manifest
from kindling_dagster.options import OptionLayer, resolve_options
from kindling_dagster.partitions import StepPartitions, declared_partitions, window_of
from kindling_dagster.windows import WINDOW_TAG, Window

DAILY = {
    "dagster/partitions": "daily",
    "dagster/partitions.start": "2024-01-01",
    "dagster/partitions.end": "2024-01-11",
    "dagster/partition_column": "day",
}


def app(tags: Mapping[str, str] = DAILY, source: str = "delta", **changes: Any) -> Manifest:
    """raw.sales → silver.sales (partitioned) → gold.sales, and gold.raw beside it."""
    values: dict[str, Any] = {"merge_columns": ("id",), **changes}
    return manifest(
        pipe("clean", "raw.sales ref.shops", "silver.sales"),
        pipe("sum", "silver.sales", "gold.sales"),
        pipe("beside", "raw.sales", "gold.raw"),
        entities=(entity("silver.sales", tags=dict(tags), **values), entity("raw.sales", provider=source)),
    )


class Given(DagsterKindlingTranslator):
    """Gives these partitions and columns to silver.sales."""

    def __init__(
        self, partitions: PartitionsDefinition[str] | None, columns: dict[str, str] | None = None
    ) -> None:
        super().__init__()
        self.partitions, self.columns = partitions, columns

    def get_partitions_def(self, data: AssetData) -> PartitionsDefinition[str] | None:
        return self.partitions if data.entity.id == "silver.sales" else None

    def get_partition_columns(self, data: AssetData) -> Mapping[str, str]:
        return super().get_partition_columns(data) if self.columns is None else self.columns


class _Project(KindlingProject):
    def __init__(self, made: Manifest) -> None:
        super().__init__(manifest="none")
        self._manifest = made


def run(
    made: Manifest,
    *names: str,
    instance: DagsterInstance,
    translator: DagsterKindlingTranslator | None = None,
    **arguments: Any,
) -> dict[str, dict[str, str]]:
    """The entity_tags of a run of these assets, without running them."""
    told: list[dict[str, dict[str, str]]] = []

    @kindling_assets(project=_Project(made), translator=translator)
    def step(context):  # type: ignore[no-untyped-def]
        selected = [spec for spec in context.assets_def.specs if spec.key in context.selected_asset_keys]
        chosen = {".".join(spec.key.path): spec for spec in selected}
        told.append(StepPartitions(context, made).entity_tags(chosen))
        for spec in chosen.values():
            yield MaterializeResult(asset_key=spec.key)

    job = Definitions(assets=[step]).resolve_implicit_global_asset_job_def()
    keys = [AssetKey(name.split(".")) for name in names]
    assert job.execute_in_process(asset_selection=keys, instance=instance, **arguments).success
    return told[0]


def window(tags: Mapping[str, Mapping[str, str]], id_: str = "silver.sales") -> Window:
    return Window.from_json(tags[id_][WINDOW_TAG])


@pytest.fixture(scope="module")
def instance() -> Any:
    with DagsterInstance.ephemeral() as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("hourly", ("2024-01-01-00:00", "2024-01-01-01:00")),
        ("daily", ("2024-01-01", "2024-01-02")),
        ("weekly", ("2024-01-07", "2024-01-14")),
        ("monthly", ("2024-01-01", "2024-02-01")),
    ],
)
def test_partitions_by_time_from_tags(kind: str, expected: tuple[str, str]) -> None:
    start = "2024-01-01-00:00" if kind == "hourly" else "2024-01-01"
    made = declared_partitions(
        entity("a.b", tags={"dagster/partitions": kind, "dagster/partitions.start": start})
    )
    assert made is not None
    assert tuple(made.get_partition_keys()[:2]) == expected


def test_static_partitions_from_tags_and_none() -> None:
    made = declared_partitions(
        entity("a.b", tags={"dagster/partitions": "static", "dagster/partitions.keys": "b, a"})
    )
    assert isinstance(made, StaticPartitionsDefinition)
    assert made.get_partition_keys() == ["b", "a"]
    assert declared_partitions(entity("a.b")) is None


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        ({"dagster/partitions": "yearly"}, "Use one of hourly, daily, weekly, monthly, static."),
        ({"dagster/partitions": "daily"}, "Set its tag dagster/partitions.start"),
        ({"dagster/partitions": "static"}, "Name them in its tag dagster/partitions.keys"),
        ({"dagster/partitions": "daily", "dagster/partitions.start": "soon"}, "cannot be made"),
        ({**DAILY, "dagster/partitions.timezone": "Mars"}, "cannot be made"),
    ],
)
def test_tags_that_do_not_go_together_are_refused(tags: dict[str, str], told: str) -> None:
    with pytest.raises(DeclarationError) as error:
        declared_partitions(entity("a.b", tags=tags))
    assert told in str(error.value)


DERIVED = {**DAILY, "dataset.kind": "derived"}


@pytest.mark.parametrize(
    ("made", "translator", "told"),
    [
        (app(), Given(MultiPartitionsDefinition({"a": DailyPartitionsDefinition("2024-01-01"), "b":
            StaticPartitionsDefinition(["x"])})), "Use partitions by time, static or dynamic ones."),
        (app({}), Given(StaticPartitionsDefinition(["x"])), "Set the entity's tag dagster/partition_column"),
        (app(), Given(StaticPartitionsDefinition(["x"]), {"raw.other": "day"}), "do not read raw.other"),
        (app(merge_columns=()), None, "would append its rows again. Declare merge_columns"),
        (app(scd2=True), None, "keeps history (SCD2)"),
        (app(DERIVED, kind="derived"), None, "Have derived.replace_keys name the column"),
        (app({**DERIVED, "derived.replace_keys": "shop"}, kind="derived"), None, "Have derived.replace_keys"),
        (app(provider="parquet"), None, "a run would replace all of it (parquet)"),
        (manifest(pipe("p", "a.a", "b.b", tags={"processing_mode": "streaming"}),
            entities=(entity("b.b", tags=DAILY, merge_columns=("id",)),)), None, "no batch pipe writes it"),
        (manifest(entities=(entity("b.b", tags=DAILY),)), None, "no batch pipe writes it"),
    ],
)  # fmt: skip
def test_partitions_that_would_not_hold_are_refused_at_load(
    made: Manifest, translator: DagsterKindlingTranslator | None, told: str
) -> None:
    with pytest.raises(DeclarationError) as error:
        build_kindling_definitions(_Project(made), translator=translator)
    assert "cannot have partitions" in str(error.value)
    assert told in str(error.value)


def test_the_assets_have_them_and_one_run_fills_them_all() -> None:
    derived = app({**DERIVED, "derived.replace_keys": "shop, day"}, kind="derived", merge_columns=())
    for made in (app(), derived):
        defs = build_kindling_definitions(_Project(made))
        graph = defs.resolve_asset_graph()
        node = graph.get(AssetKey(["silver", "sales"]))
        assert isinstance(node.partitions_def, DailyPartitionsDefinition)
        assert node.backfill_policy == BackfillPolicy.single_run()
        assert graph.get(AssetKey(["gold", "sales"])).partitions_def is None
        assert node.metadata["kindling/partition_column"] == "day"
        assert defs.resolve_job_def("shop_all").partitions_def == node.partitions_def


def test_what_is_replaced_by_one_column_is_partitioned_by_that() -> None:
    tags = {"dataset.kind": "derived", "derived.replace_keys": "day"}
    given = Given(DailyPartitionsDefinition("2024-01-01"), {"raw.sales": "sold_on"})
    defs = build_kindling_definitions(_Project(app(tags, kind="derived", merge_columns=())), translator=given)
    node = defs.resolve_asset_graph().get(AssetKey(["silver", "sales"]))
    assert node.metadata["kindling/partition_column"] == "day"


def test_a_run_of_one_partition_and_of_a_range(instance: DagsterInstance) -> None:
    one = window(run(app(), "silver.sales", instance=instance, partition_key="2024-01-03"))
    assert (one.columns, one.keys) == ({"raw.sales": "day"}, ())
    assert (one.start, one.end) == ("2024-01-03T00:00:00+00:00", "2024-01-04T00:00:00+00:00")
    span = {
        "dagster/asset_partition_range_start": "2024-01-03",
        "dagster/asset_partition_range_end": "2024-01-05",
    }
    many = run(app(), "silver.sales", "gold.sales", instance=instance, tags=span)
    assert set(many) == {"silver.sales"}
    assert (window(many).start, window(many).end) == (
        "2024-01-03T00:00:00+00:00",
        "2024-01-06T00:00:00+00:00",
    )


def test_static_and_dynamic_partitions_and_columns_of_ones_own(instance: DagsterInstance) -> None:
    static = Given(StaticPartitionsDefinition(["a", "b", "c"]), {"raw.sales": "shop", "ref.shops": "id"})
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
    found = window(run(app({}), "silver.sales", instance=instance, translator=static, tags=tags))
    assert (found.keys, found.columns) == (("a", "b"), {"raw.sales": "shop", "ref.shops": "id"})
    instance.add_dynamic_partitions("shops", ["x", "y"])
    dynamic = Given(DynamicPartitionsDefinition(name="shops"), {"raw.sales": "shop"})
    found = window(run(app({}), "silver.sales", instance=instance, translator=dynamic, partition_key="y"))
    assert found.keys == ("y",)


def test_a_provider_that_takes_a_window_gets_it(instance: DagsterInstance) -> None:
    made = app({name: value for name, value in DAILY.items() if "column" not in name}, source="adx-api")
    found = run(made, "silver.sales", instance=instance, partition_key="2024-01-03")
    assert found["raw.sales"] == {
        "provider.start": "2024-01-03T00:00:00+00:00",
        "provider.end": "2024-01-04T00:00:00+00:00",
    }
    with pytest.raises(RunError, match="takes one window in a run, and clean, beside need different ones"):
        run(made, "silver.sales", "gold.raw", instance=instance, partition_key="2024-01-03")


def test_windowed_pipes_read_whole_and_share_nothing() -> None:
    tags = {"silver.sales": {WINDOW_TAG: Window({"raw.sales": "shop"}, ("a",)).to_json()}}
    run_layer = OptionLayer(mode="incremental", auto_cache=True)
    options = resolve_options(app(), ["clean", "sum"], run=run_layer, entity_tags=tags)
    assert (options.pipes["clean"].full_refresh, options.pipes["sum"].full_refresh) == (True, False)
    assert options.auto_cache is False


BERLIN = Window(start="2024-03-31T00:00:00+01:00", end="2024-04-01T00:00:00+02:00", timezone="Europe/Berlin")
UTC = timezone.utc


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        ("date", date(2024, 3, 31), date(2024, 4, 1)),
        ("string", "2024-03-31", "2024-04-01"),
        ("timestamp", datetime(2024, 3, 30, 23, tzinfo=UTC), datetime(2024, 3, 31, 22, tzinfo=UTC)),
        ("timestamp_ntz", datetime(2024, 3, 31), datetime(2024, 4, 1)),
    ],
)
def test_a_day_begins_where_its_time_zone_says(kind: str, first: Any, last: Any) -> None:
    conditions = BERLIN.conditions("at", kind)
    assert [(each.operator, each.value) for each in conditions] == [(">=", first), ("<", last)]


def test_a_day_begins_at_one_where_clocks_go_forward_at_midnight() -> None:
    days = DailyPartitionsDefinition("2024-09-01", timezone="America/Santiago")
    for key, following in ("2024-09-07", "2024-09-08"), ("2024-09-08", "2024-09-09"):
        conditions = window_of(days, [key]).conditions("at", "date")
        assert [each.value.isoformat() for each in conditions] == [key, following]


@pytest.mark.parametrize(
    ("made", "kind", "told"),
    [
        (Window(start="2024-01-01T05:00:00+00:00", end="2024-01-01T06:00:00+00:00"), "date", "no whole days"),
        (BERLIN, "double", "is of type double, which tells no window of time"),
        (Window(keys=("x",)), "integer", "'x' is no value of the column at, of type integer"),
        (Window(keys=("x",)), "date", "'x' is no value of the column at, of type date"),
    ],
)
def test_columns_that_cannot_tell_a_partition(made: Window, kind: str, told: str) -> None:
    with pytest.raises(RunError) as error:
        made.conditions("at", kind)
    assert told in str(error.value)


def test_a_window_survives_its_json_and_nonsense_does_not() -> None:
    assert Window.from_json(BERLIN.to_json()) == BERLIN
    assert Window(keys=("1",)).conditions("n", "long")[0].value == (1,)
    for text in ("x", "[]", json.dumps({"colums": {}})):
        with pytest.raises(RunError):
            Window.from_json(text)
