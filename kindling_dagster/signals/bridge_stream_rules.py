"""Rules for streams: life, health, recovery, restarts, and changes of dimensions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from dagster import AssetCheckEvaluation, AssetCheckSeverity, AssetKey, AssetObservation

from kindling_dagster.signals.bridge_outputs import ROWS_METADATA, BridgeContext, Output
from kindling_dagster.signals.bridge_rules import log, told
from kindling_dagster.signals.carrying import safe_metadata

if TYPE_CHECKING:
    from kindling_dagster.signals.payloads import Payload

HEALTH_CHECK: Final = "stream_health"
SCHEMA_CHECK: Final = "schema_drift"


def stream(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """An observation on the stream's asset; a line in the log for a stream the app does not declare."""
    keys = _assets_of(payload, context)
    if not keys:
        yield from log()(payload, context)
    for key in keys:
        yield _observation(key, payload)


def _assets_of(payload: Payload, context: BridgeContext) -> list[AssetKey]:
    said = told(payload)
    if "query_ids" in said:  # a cascade is about several streams
        found = [context.stream_asset(query_id) for query_id in said["query_ids"]]
    else:
        found = [context.stream_asset(said.get("query_id"), said.get("query_name"), said.get("name"))]
    return list(dict.fromkeys(key for key in found if key is not None))


def _observation(key: AssetKey, payload: Payload) -> AssetObservation:
    return AssetObservation(key, description=_sentence(payload), metadata=_metadata(payload))


def _sentence(payload: Payload) -> str:
    """The signal's name in words, and its reason or error."""
    said = told(payload)
    words = payload.signal.rpartition(".")[2].replace("_", " ")
    why = said.get("reason") or getattr(payload, "error_text", "") or said.get("exception")
    return f"{words}: {why}" if why else words


def _metadata(payload: Payload) -> dict[str, Any]:
    values = {f"kindling/{name}": value for name, value in told(payload).items() if name != "traceback"}
    return safe_metadata({"kindling/signal": payload.signal, **values})


def progress(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """An observation whose rows add up over the micro-batches it stands for."""
    rows = told(payload).get("num_input_rows")
    for output in stream(payload, context):
        if isinstance(output, AssetObservation) and isinstance(rows, int):
            metadata: dict[str, Any] = {**output.metadata, ROWS_METADATA: rows}
            output = AssetObservation(output.asset_key, description=output.description, metadata=metadata)
        yield output


def query_started(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """As ``stream``; what Spark calls the query is remembered, because its own events say no more."""
    said = told(payload)
    if said.get("query_id") and said.get("spark_query_id"):
        context.spark_queries[said["spark_query_id"]] = said["query_id"]
    yield from stream(payload, context)


def health(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """An observation, and the outcome of the health check."""
    passed = payload.signal.endswith("query_healthy")
    dead = payload.signal.endswith(("query_exception", "query_stalled"))
    yield from stream(payload, context)
    severity = AssetCheckSeverity.ERROR if dead else AssetCheckSeverity.WARN
    yield from _checks(HEALTH_CHECK, payload, context, passed, severity)


def given_up(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """An observation, and a failed health check: nobody starts the stream again.

    That it runs again is no outcome of the check: another stream of the asset may be down, and the
    supervisor, which sees all of them, evaluates the check within seconds.
    """
    yield from stream(payload, context)
    yield from _checks(HEALTH_CHECK, payload, context, False, AssetCheckSeverity.ERROR)


def _checks(
    name: str, payload: Payload, context: BridgeContext, passed: bool, severity: AssetCheckSeverity
) -> Iterable[Output]:
    for key in _assets_of(payload, context):
        yield AssetCheckEvaluation(
            asset_key=key,
            check_name=name,
            passed=passed,
            severity=severity,
            description=_sentence(payload),
            metadata=_metadata(payload),
        )


def dimension_changed(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """An observation on the dimension, and whether its schema is still the one its readers started with."""
    said = told(payload)
    key = context.asset_of(said.get("entity_id"))
    if key is None:
        yield from log()(payload, context)
        return
    yield _observation(key, payload)
    drifted = said.get("change") == "schema"
    yield AssetCheckEvaluation(
        asset_key=key,
        check_name=SCHEMA_CHECK,
        passed=not drifted,
        severity=AssetCheckSeverity.WARN,
        description="The schema changed." if drifted else "Only data changed.",
        metadata=_metadata(payload),
    )
