"""Outcomes of checks as Dagster's events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    MetadataValue,
    TableRecord,
)

from kindling_dagster.dag.results import PipeResult
from kindling_dagster.signals.carrying import safe_metadata
from kindling_dagster.signals.plain import scrub_text
from kindling_dagster.table_checks.outcome import CheckOutcome


def check_result(key: AssetKey, outcome: CheckOutcome) -> AssetCheckResult:
    """The result that a check's own step gives."""
    return AssetCheckResult(
        asset_key=key,
        check_name=outcome.name,
        passed=outcome.passed,
        severity=_severity(outcome),
        description=scrub_text(outcome.text),
        metadata=_metadata(outcome),
    )


def step_evaluations(key: AssetKey, result: PipeResult) -> Iterator[AssetCheckEvaluation]:
    """The checks that were made inside the step that wrote the asset."""
    for data in result.metadata.get("checks", ()):
        outcome = CheckOutcome.from_data(data)
        yield AssetCheckEvaluation(
            asset_key=key,
            check_name=outcome.name,
            passed=outcome.passed,
            severity=_severity(outcome),
            description=scrub_text(outcome.text),
            metadata=_metadata(outcome),
            blocking=outcome.blocking,
        )


def result_of(evaluation: AssetCheckEvaluation) -> AssetCheckResult:
    """An evaluation, as what a check's own step gives."""
    return AssetCheckResult(
        asset_key=evaluation.asset_key,
        check_name=evaluation.check_name,
        passed=evaluation.passed,
        severity=evaluation.severity,
        description=evaluation.description,
        metadata=evaluation.metadata,
    )


def evaluations_of(instance: DagsterInstance, run_id: str) -> dict[AssetCheckKey, AssetCheckEvaluation]:
    """What a run has found so far, the last of each check."""
    found: dict[AssetCheckKey, AssetCheckEvaluation] = {}
    records = instance.get_records_for_run(run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION).records
    for record in records:
        event = record.event_log_entry.dagster_event
        if event is not None and isinstance(event.event_specific_data, AssetCheckEvaluation):
            evaluation = event.event_specific_data
            found[AssetCheckKey(evaluation.asset_key, evaluation.check_name)] = evaluation
    return found


def held_back(instance: DagsterInstance, run_id: str) -> set[AssetKey]:
    """Assets of which a blocking check failed in a run: nothing is to be built upon what they hold."""
    return {
        key.asset_key
        for key, evaluation in evaluations_of(instance, run_id).items()
        if evaluation.blocking and not evaluation.passed and evaluation.severity is AssetCheckSeverity.ERROR
    }


def _severity(outcome: CheckOutcome) -> AssetCheckSeverity:
    return AssetCheckSeverity.ERROR if outcome.severe else AssetCheckSeverity.WARN


def _metadata(outcome: CheckOutcome) -> dict[str, Any]:
    return safe_metadata({name: _value(value) for name, value in outcome.metadata.items()})


def _value(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        names = list(dict.fromkeys(name for item in value for name in item))
        return MetadataValue.table([TableRecord({name: item.get(name) for name in names}) for item in value])
    return value
