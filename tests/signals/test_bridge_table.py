from __future__ import annotations

from typing import Any

import pytest
from bridge_steps import NAMES
from dagster import AssetCheckEvaluation, AssetObservation

from kindling_dagster.errors import DeclarationError
from kindling_dagster.signals import bridge_rules, bridge_stream_rules
from kindling_dagster.signals.bridge_outputs import AssetFacts, Commit, Output, PipeNote, StepError, StepLog
from kindling_dagster.signals.bridge_table import DEFAULT_RULES, SignalBridge
from kindling_dagster.signals.catalog import DagsterEvent, SignalSpec, get_all_signals
from kindling_dagster.signals.payloads import decode

EXAMPLES: dict[str, Any] = {
    "entity_id": "silver.orders", "output_entity_id": "silver.orders", "source_entity_id": "bronze.orders",
    "dest_entity_id": "silver.orders", "pipe_id": "clean", "reader_id": "clean", "query_id": "follow",
    "query_name": "follow", "name": "silver_live", "query_ids": ["follow"], "pipe_ids": ["clean", "fix"],
    "companion_entity_id": "ref.items.current",
}  # fmt: skip
BY_TYPE: dict[str, Any] = {
    "int": 1, "float": 1.5, "bool": True, "Sequence[str]": ["a"], "Mapping[str, Any]": {"a": 1},
}  # fmt: skip

KINDS: tuple[tuple[type[Any], DagsterEvent], ...] = (
    (AssetObservation, DagsterEvent.OBSERVATION),
    (AssetCheckEvaluation, DagsterEvent.CHECK),
    (Commit, DagsterEvent.MATERIALIZATION),
    (StepError, DagsterEvent.FAILURE),
    (StepLog, DagsterEvent.STEP_LOG),
    (PipeNote, DagsterEvent.STEP_LOG),
)


def example(spec: SignalSpec) -> Any:
    """A payload with every field the signal has, about things the app declares."""
    values = {each.name: EXAMPLES.get(each.name, BY_TYPE.get(each.type, "text")) for each in spec.fields}
    return decode(spec.name, values)


def kind_of(output: Output) -> DagsterEvent | None:
    if isinstance(output, AssetFacts):
        return DagsterEvent.MATERIALIZATION_METADATA if output.needs_commit else DagsterEvent.ASSET_METADATA
    return next((kind for cls, kind in KINDS if isinstance(output, cls)), None)


@pytest.mark.parametrize("spec", get_all_signals().values(), ids=lambda spec: spec.name)
def test_every_signal_becomes_what_the_catalog_says(spec: SignalSpec) -> None:
    rule = SignalBridge().rule_for(spec.name)
    assert rule is not None
    kinds = {kind_of(output) for output in rule(example(spec), NAMES)} - {None}
    assert kinds == set(spec.dagster_events)


@pytest.mark.parametrize("spec", get_all_signals().values(), ids=lambda spec: spec.name)
def test_no_rule_stumbles_over_a_payload_with_nothing_in_it(spec: SignalSpec) -> None:
    rule = SignalBridge().rule_for(spec.name)
    assert rule is not None
    assert all(isinstance(output, Output) for output in rule(decode(spec.name, {}), NAMES))


def test_every_line_of_the_table_is_used() -> None:
    names = [*get_all_signals(), "orders.loaded", "orders.load_failed"]
    used = {id(SignalBridge().rule_for(name)) for name in names}
    assert [pattern for pattern, rule in DEFAULT_RULES.items() if id(rule) not in used] == []
    exact = [pattern for pattern in DEFAULT_RULES if "*" not in pattern]
    assert set(exact) <= set(get_all_signals())


def mine(payload: Any, context: Any) -> list[Any]:
    return []


def other(payload: Any, context: Any) -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("rules", "signal", "expected"),
    [
        ({}, "persist.after_persist", bridge_rules.committed),
        ({}, "entity.merge_failed", bridge_rules.failure),
        ({}, "entity.after_merge", bridge_rules.entity_access),
        ({}, "orders.load_failed", bridge_rules.failure),
        ({}, "streaming.query_healthy", bridge_stream_rules.health),
        ({"persist.after_persist": mine}, "persist.after_persist", mine),
        ({"persist.*": mine}, "persist.after_persist", mine),
        ({"persist.*": mine}, "entity.after_merge", bridge_rules.entity_access),
        ({"*": mine, "persist.*": other}, "persist.after_persist", other),
        ({"persist.*": mine, "persist.after_persist": other}, "persist.after_persist", other),
        ({"persist.after_*": mine, "persist.*": other}, "persist.after_persist", mine),
        ({"streaming.*": None}, "streaming.query_healthy", None),
        ({"streaming.*": None, "streaming.query_healthy": mine}, "streaming.query_healthy", mine),
    ],
)
def test_which_rule_counts(rules: dict[str, Any], signal: str, expected: Any) -> None:
    bridge = SignalBridge(rules)
    assert bridge.rule_for(signal) is expected
    assert bridge.rule_for(signal) is expected  # also when it is remembered


def test_signals_named_exactly_are_listened_for() -> None:
    assert SignalBridge({"orders.loaded": mine, "orders.*": mine, "persist.after_persist": None}).signals == (
        "orders.loaded",
        "persist.after_persist",
    )


def test_a_rule_is_a_function_or_none() -> None:
    with pytest.raises(DeclarationError, match=r"rule for orders\.loaded is a str"):
        SignalBridge({"orders.loaded": "log"})  # type: ignore[dict-item]
