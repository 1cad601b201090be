"""Dimensions as Dagster events: one observation for each change, and one for each change of a problem."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dagster import AssetKey, AssetObservation, MetadataValue, TableColumn, TableRecord, TableSchema

from kindling_dagster.signals.bridge_outputs import SIGNALS_METADATA
from kindling_dagster.signals.plain import plain
from kindling_dagster.streaming.dependencies import RestartDecision
from kindling_dagster.streaming.dimensions.model import DimensionLook
from kindling_dagster.streaming.restart_news import DIMENSION_CHANGED, changed_arguments

_NO_STREAM: Final = "No stream depends on it any more."
_TABLE: Final = TableSchema(
    [
        TableColumn("stream"),
        TableColumn("restart", "bool"),
        TableColumn("reason"),
        TableColumn("policy"),
        TableColumn("read_as"),
    ]
)


def change_event(
    key: AssetKey,
    found: DimensionLook,
    decisions: Sequence[RestartDecision],
    hosted: bool,
    down: Mapping[str, str] | None = None,
) -> AssetObservation:
    """What changed at a dimension, and what that means for each stream that depends on it.

    Args:
        key: The dimension's asset.
        found: The look that saw the change.
        decisions: What was decided for each stream.
        hosted: Whether a stream host lives.
        down: Streams that are left alone whatever changes, and why.
    """
    outcome = _outcome(decisions, hosted, down or {})
    operation = f" by {', '.join(found.operations)}" if found.operations else ""
    return AssetObservation(
        key,
        description=f"Changed{operation}: {found.reason}. {outcome}",
        metadata={
            **_facts(found),
            "kindling/signal": DIMENSION_CHANGED,
            "kindling/outcome": outcome,
            "kindling/restarts": _decided(decisions),
            SIGNALS_METADATA: MetadataValue.json([_signal(found)]),
        },
    )


def _outcome(decisions: Sequence[RestartDecision], hosted: bool, down: Mapping[str, str]) -> str:
    if not decisions:
        return _NO_STREAM
    called = [decision.stream_id for decision in decisions if decision.restart]
    restarting = [stream_id for stream_id in called if stream_id not in down]
    words = []
    if restarting:
        words.append(f"To restart: {', '.join(restarting)}.")
        if not hosted:
            words.append("No stream host lives: the next one starts them anew.")
    words += [f"{stream_id} is left alone: {down[stream_id]}." for stream_id in called if stream_id in down]
    return " ".join(words) or "Reported only: no stream restarts."


def first_event(key: AssetKey, found: DimensionLook, stream_ids: Sequence[str]) -> AssetObservation:
    """That a dimension is watched from now on."""
    streams = ", ".join(stream_ids)
    return AssetObservation(
        key,
        description=f"Watched from now on ({found.method}) for {streams}.",
        metadata={**_facts(found), "kindling/streams": streams},
    )


def problem_event(key: AssetKey, found: DimensionLook) -> AssetObservation:
    """That a dimension cannot be looked at, why, and what to do."""
    assert found.problem is not None
    return AssetObservation(
        key,
        description=f"Cannot be looked at: {found.problem.message} {found.problem.suggestion}".strip(),
        metadata={
            **_facts(found),
            "kindling/problem": found.problem.kind,
            "kindling/reason": found.problem.message,
            "kindling/suggestion": found.problem.suggestion or "-",
            "kindling/outcome": "No stream restarts for it until it can be looked at again.",
        },
    )


def healed_event(key: AssetKey, found: DimensionLook) -> AssetObservation:
    """That a dimension can be looked at again, and has not changed meanwhile."""
    return AssetObservation(
        key,
        description="Can be looked at again; nothing changed meanwhile.",
        metadata=_facts(found),
    )


def problem_mark(found: DimensionLook) -> str:
    """The same for the same problem, however its numbers (ports, times, ids of requests) differ; empty for none."""
    if found.problem is None:
        return ""
    return f"{found.problem.kind}: {re.sub(r'[0-9a-f-]*[0-9][0-9a-f-]*', '#', found.problem.message)}"


def _facts(found: DimensionLook) -> dict[str, Any]:
    keys = found.keys
    values: dict[str, Any] = {
        "kindling/dimension": found.entity_id,
        "kindling/change_detection": found.method,
        "kindling/change": found.change,
        "kindling/reason": found.reason,
        "kindling/version": found.version,
        "kindling/rows": found.rows,
        "kindling/commits": found.commits,
        "kindling/operations": ", ".join(found.operations),
        "kindling/changed_at": None
        if found.changed_at is None
        else MetadataValue.timestamp(found.changed_at),
        "kindling/new_count": found.new_count,
        "kindling/closed_count": found.closed_count,
        "kindling/changed_count": found.changed_count,
        "kindling/keys": None if keys is None else MetadataValue.json(_keys(found)),
        "kindling/columns": None if found.schema is None else str(found.schema),
    }
    return {name: value for name, value in values.items() if value not in (None, "")}


def _keys(found: DimensionLook) -> dict[str, Any]:
    assert found.keys is not None
    parts = {"new": found.keys.new, "closed": found.keys.closed, "changed": found.keys.changed}
    return {name: plain([list(key) for key in keys]) for name, keys in parts.items() if keys}


def _decided(decisions: Sequence[RestartDecision]) -> Any:
    rows = [
        TableRecord(
            {
                "stream": decision.stream_id,
                "restart": decision.restart,
                "reason": decision.reason,
                "policy": decision.policy,
                "read_as": decision.read_kind,
            }
        )
        for decision in decisions
    ]
    return MetadataValue.table(rows, _TABLE)


def _signal(found: DimensionLook) -> dict[str, Any]:
    """The signal as ``read_signals`` reads it: by hand, since payloads import Kindling, which a tick must not."""
    return {"signal": DIMENSION_CHANGED, "timestamp": time.time(), "fields": changed_arguments(found)}
