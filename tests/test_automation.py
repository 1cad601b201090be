"""Automation: conditions by tag and layer, freshness policies, schedules, and that conditions really ask for runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from dagster import (
    AssetKey,
    AssetMaterialization,
    AutomationCondition,
    DagsterInstance,
    Definitions,
    FreshnessPolicy,
    evaluate_automation_conditions,
)
from manifests import entity, manifest, pipe

from kindling_dagster import (
    DagsterKindlingTranslator,
    KindlingProject,
    TranslatorSettings,
    build_kindling_definitions,
    build_kindling_schedule,
)
from kindling_dagster.errors import DeclarationError, SelectionError
from kindling_dagster.manifest import EntitySpec, Manifest

SALES = AssetKey(["gold", "sales"])


class _Project(KindlingProject):
    def __init__(self, made: Manifest) -> None:
        super().__init__(manifest="none")
        self._manifest = made


def app(*entities: EntitySpec) -> Manifest:
    return manifest(
        pipe("clean", "raw.sales", "silver.sales"),
        pipe("join", "silver.sales ref.shops", "gold.sales"),
        pipe("live", "raw.clicks", "gold.clicks", tags={"processing_mode": "streaming"}),
        entities=entities,
    )


def definitions(*entities: EntitySpec, **automation: str) -> Any:
    translator = DagsterKindlingTranslator(TranslatorSettings(automation=automation))
    return build_kindling_definitions(_Project(app(*entities)), translator=translator)


def condition(defs: Any, key: str) -> Any:
    return defs.resolve_asset_graph().get(AssetKey(key.split("/"))).automation_condition


def test_a_layer_says_it_and_an_entity_says_otherwise() -> None:
    defs = definitions(
        entity("gold.sales", tags={"dagster/automation": "on_cron 0 6 * * *"}),
        gold="eager",
        silver="on_missing",
    )
    assert condition(defs, "gold/sales") == AutomationCondition.on_cron("0 6 * * *")
    assert condition(defs, "silver/sales") == AutomationCondition.on_missing()
    for left_alone in ("gold/clicks", "ref/shops"):
        assert condition(defs, left_alone) is None
    assert condition(definitions(entity("gold.sales", tags={"dagster/automation": "none"}), gold="eager"), "gold/sales") is None  # fmt: skip
    assert condition(definitions(), "gold/sales") is None


@pytest.mark.parametrize("said", ["soon", "on_cron", "on_cron 99 * * * *", "eager 1", "none of it"])
def test_what_is_no_condition_is_refused(said: str) -> None:
    with pytest.raises(DeclarationError, match="Use one of eager, on_cron <cron>"):
        definitions(gold=said)
    with pytest.raises(DeclarationError, match=r"dagster/automation of entity gold.sales"):
        definitions(entity("gold.sales", tags={"dagster/automation": said}))


@pytest.mark.parametrize(
    ("said", "asks_on"),
    [("eager", {"silver/sales", "ref/shops"}), ("on_dimension_change", {"ref/shops"})],
)
def test_which_updates_ask_for_a_run(said: str, asks_on: set[str]) -> None:
    defs = definitions(gold=said)
    for updated in ("silver/sales", "ref/shops"):
        with DagsterInstance.ephemeral() as instance:
            for key in ("silver/sales", "ref/shops", "gold/sales"):
                instance.report_runless_asset_event(AssetMaterialization(AssetKey(key.split("/"))))
            before = evaluate_automation_conditions(defs=defs, instance=instance)
            assert before.total_requested == 0
            instance.report_runless_asset_event(AssetMaterialization(AssetKey(updated.split("/"))))
            after = evaluate_automation_conditions(defs=defs, instance=instance, cursor=before.cursor)
            assert (after.get_num_requested(SALES) == 1) == (updated in asks_on), updated
            last = evaluate_automation_conditions(defs=defs, instance=instance, cursor=after.cursor)
            assert last.total_requested == 0


def test_a_pipe_without_dimensions_has_no_condition_on_them() -> None:
    assert condition(definitions(silver="on_dimension_change"), "silver/sales") is None


def test_freshness_policies_come_from_the_tag_of_what_is_written() -> None:
    tags = {"dagster/max_age": "26h"}
    defs = definitions(
        entity("gold.sales", tags=tags), entity("gold.clicks", tags=tags), entity("ref.shops", tags=tags)
    )
    graph = defs.resolve_asset_graph()
    for key, expected in (("sales", True), ("clicks", True)):
        policy = graph.get(AssetKey(["gold", key])).freshness_policy
        assert (policy == FreshnessPolicy.time_window(fail_window=timedelta(hours=26))) is expected
    assert graph.get(AssetKey(["ref", "shops"])).freshness_policy is None  # its check looks at the table
    with pytest.raises(DeclarationError, match=r"dagster/max_age of entity gold.sales is less than a minute"):
        definitions(entity("gold.sales", tags={"dagster/max_age": "0.5m"}))


def test_a_schedule_over_a_selection() -> None:
    project = _Project(app())
    made = build_kindling_schedule(
        project, cron_schedule="0 3 * * *", select="gold.*", name="nightly",
        execution_timezone="Europe/Berlin", tags={"team": "bi"},
    )  # fmt: skip
    assert (made.name, made.cron_schedule, made.execution_timezone) == (
        "nightly",
        "0 3 * * *",
        "Europe/Berlin",
    )
    defs = Definitions.merge(build_kindling_definitions(project), Definitions(schedules=[made]))
    job = defs.resolve_job_def("nightly_job")
    assert job.asset_layer.selected_asset_keys == {SALES}


@pytest.mark.parametrize(
    ("entities", "select", "error"),
    [
        ((), "platinum.*", SelectionError),
        ((entity("gold.sales", merge_columns=("id",), tags={"dagster/partitions": "daily", "dagster/partitions.start": "2024-01-01",
          "dagster/partition_column": "day"}),), "gold.*", DeclarationError),
    ],
)  # fmt: skip
def test_what_no_schedule_can_run(entities: Any, select: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        build_kindling_schedule(_Project(app(*entities)), cron_schedule="@daily", select=select)
