"""Throttle: events that come too fast are held, added up, and passed on as one. Nothing goes uncounted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from dagster import AssetCheckEvaluation, AssetMaterialization, AssetObservation

from kindling_dagster.signals.bridge_outputs import (
    COUNT_METADATA,
    OMITTED_METADATA,
    ROWS_METADATA,
    SIGNALS_METADATA,
    StepLog,
)

Event = AssetObservation | AssetCheckEvaluation | AssetMaterialization | StepLog

INTERVAL: Final = 30.0
"""Seconds between two events of one signal on one asset, once there were more than ``BURST``."""
BURST: Final = 20
"""So many go through at once: a run's own steps must show when they happen."""


@dataclass
class _Lane:
    """Events of one signal and one asset (or the log)."""

    out: int = 0
    last: float = 0.0
    outcome: bool | None = None
    held: Event | None = None
    count: int = 0
    rows: int | None = None


class Throttle:
    """Decides which events go out now.

    An event that is held is replaced by the next of its kind; the one that goes out says how many it stands for
    (``kindling/count``) and adds up their rows. A check that turns from passed to failed, or back, goes at once.

    Args:
        interval: Seconds between two events of one kind.
        burst: So many go out before that counts.
        clock: Gives the time in seconds.
    """

    def __init__(
        self, interval: float = INTERVAL, burst: int = BURST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = interval
        self._burst = burst
        self._clock = clock
        self._lanes: dict[tuple[str, Hashable], _Lane] = {}
        self._held: dict[tuple[str, Hashable], _Lane] = {}
        self.aggregated: Counter[str] = Counter()
        """How many events of each signal did not go out themselves but in one that stands for several."""

    def take(self, signal: str, event: Event, high_rate: bool = False) -> list[Event]:
        """The events that go out now, in order; none when this one is held.

        Args:
            signal: Whose event it is.
            event: What happened.
            high_rate: Only the first goes out at once, not the first ``burst``.
        """
        now = self._clock()
        key = (signal, _place(event))
        lane = self._lanes.setdefault(key, _Lane())
        outcome = event.passed if isinstance(event, AssetCheckEvaluation) else None
        turned = lane.out > 0 and outcome != lane.outcome
        lane.outcome = outcome
        gone = [self._release(key)] if turned and lane.held is not None else []
        _hold(lane, event)
        self._held[key] = lane
        burst = 1 if high_rate else self._burst
        if turned or lane.out < burst or now - lane.last >= self._interval:
            gone.append(self._release(key))
        return gone

    def due(self) -> list[Event]:
        """What has been held for the whole interval; call it now and then."""
        if not self._held:
            return []
        now = self._clock()
        ripe = [key for key, lane in self._held.items() if now - lane.last >= self._interval]
        return [self._release(key) for key in ripe]

    def rest(self) -> list[Event]:
        """All that is held; call it at the end."""
        return [self._release(key) for key in list(self._held)]

    def _release(self, key: tuple[str, Hashable]) -> Event:
        lane = self._held.pop(key)
        event, count, rows = lane.held, lane.count, lane.rows
        assert event is not None
        lane.held, lane.count, lane.rows = None, 0, None
        lane.out += 1
        lane.last = self._clock()
        if count == 1:
            return event
        self.aggregated[key[0]] += count - 1
        return _standing_for(event, count, rows)


def _place(event: Event) -> Hashable:
    match event:
        case StepLog(level=level):
            return level
        case AssetCheckEvaluation():
            return (event.asset_key, event.check_name)
        case _:
            return (type(event).__name__, event.asset_key, event.partition)


def _hold(lane: _Lane, event: Event) -> None:
    lane.held = event
    lane.count += 1
    rows = None if isinstance(event, StepLog) else _number(event.metadata.get(ROWS_METADATA))
    if rows is not None:
        lane.rows = (lane.rows or 0) + rows


def _number(value: Any) -> int | None:
    inner = getattr(value, "value", value)
    return inner if isinstance(inner, int) and not isinstance(inner, bool) else None


def _standing_for(event: Event, count: int, rows: int | None) -> Event:
    if isinstance(event, StepLog):
        return replace(event, message=f"{event.message} (and {count - 1:,} more like it)")
    metadata: dict[str, Any] = {**event.metadata, COUNT_METADATA: count}
    if rows is not None:
        metadata[ROWS_METADATA] = rows
    if SIGNALS_METADATA in metadata:
        metadata[OMITTED_METADATA] = count - 1
    return with_metadata(event, metadata)


def with_metadata(
    event: AssetObservation | AssetCheckEvaluation | AssetMaterialization,
    metadata: Mapping[str, Any],
    description: str | None = None,
) -> AssetObservation | AssetCheckEvaluation | AssetMaterialization:
    """The same event with other metadata, and another description where one is given."""
    text = event.description if description is None else description
    if isinstance(event, AssetCheckEvaluation):
        return AssetCheckEvaluation(
            asset_key=event.asset_key,
            check_name=event.check_name,
            passed=event.passed,
            metadata=metadata,
            target_materialization_data=event.target_materialization_data,
            severity=event.severity,
            description=text,
            blocking=event.blocking,
        )
    return type(event)(
        asset_key=event.asset_key,
        description=text,
        metadata=metadata,
        partition=event.partition,
        tags=event.tags,
    )
