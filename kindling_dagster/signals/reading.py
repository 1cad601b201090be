"""Signals read back from Dagster's event log: by code outside the run that emitted them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from dagster import AssetKey, AssetRecordsFilter, DagsterInstance, EventLogRecord

from kindling_dagster.signals.bridge_outputs import SIGNALS_METADATA

if TYPE_CHECKING:
    from kindling_dagster.signals.payloads import Payload

_PAGE: Final = 100


@dataclass(frozen=True)
class SignalRecord:
    """A signal that was emitted in a run.

    Args:
        payload: What it said.
        cursor: Pass it as ``after_cursor`` to go on after it; fit for a sensor's cursor.
        asset_key: The asset whose event carried it.
        run_id: The run that emitted it.
        timestamp: Unix seconds at which the event was stored; the signal's own time is the payload's.
    """

    payload: Payload
    cursor: str
    asset_key: AssetKey
    run_id: str
    timestamp: float


def read_signals(
    instance: DagsterInstance,
    asset_key: AssetKey,
    after_cursor: str | None = None,
    limit: int = 100,
    signals: Iterable[str] | None = None,
) -> list[SignalRecord]:
    """The signals that an asset's materializations and observations carry, oldest first.

    All signals of one event are given together, so a cursor never points into the middle of one.

    Args:
        instance: Where the events are: ``context.instance``, or ``DagsterInstance.get()``.
        asset_key: The asset.
        after_cursor: Only what came after this record.
        limit: Stop after this many events that have signals to give.
        signals: Names of those wanted; all when None.

    Raises:
        PayloadError: An event carries something that is no payload.
    """
    # Here, because payloads bring Kindling in, which loading definitions does without.
    from kindling_dagster.signals.payloads import from_data

    wanted = None if signals is None else frozenset(signals)
    found: list[list[SignalRecord]] = []
    for record in _events(instance, asset_key, int(after_cursor or 0)):
        of_event = [
            SignalRecord(from_data(data), str(record.storage_id), asset_key, record.run_id, record.timestamp)
            for data in _carried(record)
            if wanted is None or (isinstance(data, dict) and data.get("signal") in wanted)
        ]
        if of_event:
            found.append(of_event)
        if len(found) >= limit:
            break
    return [record for of_event in found for record in of_event]


def _events(instance: DagsterInstance, asset_key: AssetKey, after: int) -> Iterator[EventLogRecord]:
    """Materializations and observations of an asset in the order they were stored."""
    while True:
        records = AssetRecordsFilter(asset_key=asset_key, after_storage_id=after)
        pages = [
            list(fetch(records, limit=_PAGE, ascending=True).records)
            for fetch in (instance.fetch_materializations, instance.fetch_observations)
        ]
        merged = sorted((record for page in pages for record in page), key=lambda record: record.storage_id)
        # Beyond the first _PAGE, one kind may have more that belong between those of the other.
        yield from islice(merged, _PAGE)
        if len(merged) < _PAGE:
            return
        after = merged[_PAGE - 1].storage_id


def _carried(record: EventLogRecord) -> list[Any]:
    entry = record.event_log_entry
    event = entry.asset_materialization or entry.asset_observation
    value = None if event is None else event.metadata.get(SIGNALS_METADATA)
    inner = None if value is None else value.value
    return inner if isinstance(inner, list) else []


def read_step_records(instance: DagsterInstance, run_id: str) -> list[dict[str, Any]]:
    """The records with which a run's Kindling steps ended, as ``StepRecord.to_data`` made them."""
    found = []
    for entry in instance.all_logs(run_id):
        if entry.dagster_event is None and entry.user_message.startswith(
            ("Step ended.\n", "Step stopped.\n")
        ):
            found.append(json.loads(entry.user_message.rpartition("\n")[2]))
    return found
