"""Signals read back from Dagster's event log: by code outside the run that emitted them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from dagster import AssetKey, AssetRecordsFilter, DagsterInstance, EventLogRecord

from kindling_dagster.signals.bridge_outputs import SIGNALS_METADATA
from kindling_dagster.signals.errors import PayloadError, SignalError

if TYPE_CHECKING:
    from kindling_dagster.signals.payloads import Payload

logger = logging.getLogger("kindling_dagster.signals")

_PAGE: Final = 100


@dataclass(frozen=True)
class SignalRecord:
    """A signal that was emitted in a run.

    Args:
        payload: What it said.
        asset_key: The asset whose event carried it.
        run_id: The run that emitted it.
        storage_id: Of the event that carried it; the same for all signals of one event.
        timestamp: Unix seconds at which the event was stored; the signal's own time is the payload's.
    """

    payload: Payload
    asset_key: AssetKey
    run_id: str
    storage_id: int
    timestamp: float


@dataclass(frozen=True)
class SignalPage:
    """What ``read_signals`` found.

    Args:
        records: The signals, oldest first.
        cursor: Where to go on: the ``after_cursor`` of the next call. Moves on too when nothing was found.
        more: Whether there may be more already.
    """

    records: tuple[SignalRecord, ...]
    cursor: str
    more: bool


def read_signals(
    instance: DagsterInstance,
    asset_key: AssetKey,
    after_cursor: str | None = None,
    limit: int = 100,
    signals: Iterable[str] | None = None,
    max_events: int = 1_000,
) -> SignalPage:
    """The signals that an asset's materializations and observations carry, oldest first.

    All signals of one event are given together. Metadata of others that look like signals and are none
    are logged and left out: they must not hold up a sensor for ever.

    Args:
        instance: Where the events are: ``context.instance``, or ``DagsterInstance.get()``.
        asset_key: The asset.
        after_cursor: Only what came after this: the cursor of the page before. None for all there is.
        limit: Stop after this many events that have signals to give.
        signals: Names of those wanted, also patterns with ``*``; all when None.
        max_events: Look at no more events than this, so that a sensor's tick stays short.

    Raises:
        SignalError: The cursor is none of a page.
    """
    wanted = None if signals is None else tuple(signals)
    after = _position(after_cursor)
    found: list[SignalRecord] = []
    giving = looked = 0
    for event in islice(_events(instance, asset_key, after), max_events):
        after, looked = event.storage_id, looked + 1
        of_event = [
            SignalRecord(payload, asset_key, event.run_id, event.storage_id, event.timestamp)
            for payload in _payloads(event, wanted)
        ]
        found += of_event
        giving += bool(of_event)
        if giving >= limit:
            return SignalPage(tuple(found), str(after), more=True)
    return SignalPage(tuple(found), str(after), more=looked == max_events)


def _position(cursor: str | None) -> int:
    if cursor and not cursor.isdecimal():
        raise SignalError(
            f"{cursor!r} is no cursor of read_signals.", "Pass the cursor of the page before, or None."
        )
    return int(cursor or 0)


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


def _payloads(event: EventLogRecord, wanted: Sequence[str] | None) -> Iterator[Payload]:
    # Here, because payloads bring Kindling in, which loading definitions does without.
    from kindling_dagster.signals.payloads import from_data

    for data in _carried(event):
        try:
            payload = from_data(data)
        except PayloadError as error:
            logger.warning("Event %d of run %s: %s", event.storage_id, event.run_id, error)
            continue
        if wanted is None or any(fnmatchcase(payload.signal, pattern) for pattern in wanted):
            yield payload


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
