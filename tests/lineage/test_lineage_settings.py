from __future__ import annotations

from typing import Any

import pytest

from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.settings import LineageSettings, PipeLineage, lineage_pipes
from kindling_dagster.manifest import AppRef, EntitySpec, Location, Manifest, PipeSpec


def entity(entity_id: str, layer: str = "", provider: str = "delta", **more: Any) -> EntitySpec:
    return EntitySpec(
        id=entity_id, name=entity_id, provider=provider, location=Location("none"), layer=layer, **more
    )


def pipe(pipe_id: str, inputs: str, output: str, **tags: str) -> PipeSpec:
    return PipeSpec(
        pipe_id,
        pipe_id,
        tuple(inputs.split()),
        output,
        tags={k.replace("__", "/"): v for k, v in tags.items()},
    )


def manifest(*pipes: PipeSpec, entities: tuple[EntitySpec, ...], **settings: Any) -> Manifest:
    return Manifest(
        AppRef("app", "local", "scaffold", "recorder"),
        entities,
        pipes,
        settings={f"kindling.lineage.{k.replace('__', '.')}": v for k, v in settings.items()},
    )


ORDERS = entity("silver.orders", "silver")
BRONZE = entity("bronze.orders", "bronze")


@pytest.mark.parametrize(
    ("settings", "pipe_tags", "entity_tags", "takes_part"),
    [
        ({}, {}, {}, False),
        ({"enabled": True}, {}, {}, True),
        ({"enabled": "true"}, {}, {}, True),
        ({"enabled": True, "layer__silver": False}, {}, {}, False),
        ({"layer__silver": "yes"}, {}, {}, True),
        ({"layer__gold": True}, {}, {}, False),
        ({"enabled": True}, {}, {"dagster/lineage": "false"}, False),
        ({}, {}, {"dagster/lineage": "true"}, True),
        ({}, {"dagster__lineage": "true"}, {"dagster/lineage": "false"}, True),
        ({"enabled": True}, {"dagster__lineage": "false"}, {"dagster/lineage": "true"}, False),
        ({"enabled": True, "layers": "one,two"}, {}, {}, False),
    ],
)
def test_the_most_specific_decides(
    settings: dict[str, Any], pipe_tags: dict[str, str], entity_tags: dict[str, str], takes_part: bool
) -> None:
    silver = entity("silver.orders", "silver", tags=entity_tags)
    app = manifest(
        pipe("silver.clean", "bronze.orders", "silver.orders", **pipe_tags),
        entities=(silver, BRONZE),
        **settings,
    )
    assert ("silver.clean" in lineage_pipes(app)) is takes_part


@pytest.mark.parametrize(
    ("pipe_id", "entity_layer", "layer"),
    [("silver.clean", "gold", "silver"), ("clean", "gold", "gold"), ("mart.clean", "gold", "gold")],
)
def test_the_layer_is_the_pipes_else_the_entitys(pipe_id: str, entity_layer: str, layer: str) -> None:
    app = manifest(pipe(pipe_id, "a", "b"), entities=(entity("b", entity_layer),), enabled=True)
    assert lineage_pipes(app)[pipe_id].column == f"_{layer}_lineage"


def test_a_layer_with_capitals_has_its_say() -> None:
    app = manifest(
        pipe("Raw.load", "a", "b"),
        entities=(entity("b", ""),),
        enabled=True,
        layers=["Raw"],
        layer__raw=False,
    )
    assert lineage_pipes(app) == {}


@pytest.mark.parametrize(
    ("inputs", "tags", "carries"),
    [
        ("a", {}, True),
        ("a b", {}, False),
        ("a b", {"dagster__lineage_carry": "true"}, True),
        ("a", {"dagster__lineage_carry": "false"}, False),
    ],
)
def test_a_function_with_one_input_sees_the_columns(inputs: str, tags: dict[str, str], carries: bool) -> None:
    app = manifest(pipe("silver.clean", inputs, "silver.orders", **tags), entities=(ORDERS,), enabled=True)
    assert lineage_pipes(app) == {
        "silver.clean": PipeLineage("silver.clean", "silver.orders", "silver", carries)
    }


@pytest.mark.parametrize(
    "target",
    [
        entity("silver.orders", "silver", "parquet"),
        entity("silver.orders", "silver", kind="sql"),
        entity("orders", ""),
    ],
)
def test_what_cannot_hold_columns_is_left_out_or_refused(target: EntitySpec) -> None:
    silent = manifest(pipe("p", "a", target.id), entities=(target,), enabled=True)
    assert lineage_pipes(silent) == {}
    asked = manifest(pipe("p", "a", target.id, dagster__lineage="true"), entities=(target,))
    with pytest.raises(LineageError, match="p is tagged"):
        lineage_pipes(asked)


@pytest.mark.parametrize(
    "settings",
    [
        {"kindling.lineage.enabled": "perhaps"},
        {"kindling.lineage.layers": 7},
        {"kindling.lineage.layers": [" "]},
    ],
)
def test_a_setting_that_cannot_be_read_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(LineageError, match=next(iter(settings))):
        LineageSettings.from_settings(settings)
