"""What a host tells the store: statuses when they change, numbers now and then, history and dead letters at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from kindling_dagster.streaming.model import (
    DeadLetter,
    HistoryEntry,
    Lease,
    RecoveryState,
    StreamHealth,
    StreamingQueryInfo,
    StreamingQueryState,
    StreamStatus,
)
from kindling_dagster.streaming.store import StoreUnavailable, StreamStore

_HISTORY_WAITING: Final = 2_000


@dataclass(frozen=True)
class Sight:
    """One stream as the host sees it at a moment.

    Args:
        info: What its query manager knows.
        state: Where it is, also counting what recovery remembers.
        health: What the watchdog says, and why.
        health_reason: Why.
        generation: The generation of ``Desired`` that its last start answered.
        next_start_at: When it is started again.
    """

    info: StreamingQueryInfo
    state: StreamingQueryState
    health: StreamHealth = StreamHealth.UNKNOWN
    health_reason: str = ""
    generation: int = 0
    next_start_at: float | None = None


class Reporter:
    """Keeps what is to be told until the store has it. ``note`` and ``read`` may be called from any thread.

    Args:
        store: The project's store.
        before: Statuses of hosts before this one: restarts and rows are counted on from there.
        run_id: The Dagster run that holds the host.
        interval: Seconds between two reports of numbers alone.
        clock: Gives Unix seconds.
    """

    def __init__(
        self,
        store: StreamStore,
        before: Mapping[str, StreamStatus],
        run_id: str,
        interval: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        self._told = dict(before)
        self._restarts = {stream_id: status.restarts for stream_id, status in before.items()}
        self._rows = {stream_id: status.rows_committed for stream_id, status in before.items()}
        self._started = {stream_id for stream_id, status in before.items() if status.started_at is not None}
        self._mine: set[str] = set()
        self._history: deque[HistoryEntry] = deque(maxlen=_HISTORY_WAITING)
        self._dead: dict[str, DeadLetter] = {}
        self._recovery: dict[str, RecoveryState] = {}

    def note(self, stream_id: str, event: str, detail: str = "", **data: Any) -> None:
        """Something happened to a stream."""
        entry = HistoryEntry(stream_id, event, self._clock(), detail, self._run_id, data)
        with self._lock:
            self._history.append(entry)

    def read(self, stream_id: str, rows: int) -> None:
        """A stream has read and committed so many rows more."""
        with self._lock:
            self._rows[stream_id] = self._rows.get(stream_id, 0) + rows

    def starting(self, stream_id: str) -> bool:
        """A stream has been started, or tried to; gives whether it ever was before."""
        with self._lock:
            again = stream_id in self._started
            if again:
                self._restarts[stream_id] = self._restarts.get(stream_id, 0) + 1
            self._started.add(stream_id)
            return again

    def dead(self, letter: DeadLetter) -> None:
        """A stream became a dead letter."""
        with self._lock:
            self._dead[letter.stream_id] = letter

    def revived(self, stream_id: str) -> None:
        """A stream is no dead letter any more; what is still to be told of that is void."""
        with self._lock:
            self._dead.pop(stream_id, None)
            self._recovery.pop(stream_id, None)

    def report(
        self,
        lease: Lease,
        sights: Iterable[Sight],
        recovery: Mapping[str, RecoveryState],
        seen: Mapping[str, int],
        *,
        all_numbers: bool = False,
    ) -> bool:
        """Tell the store what changed; False when it did not answer: it is told the next time.

        Args:
            lease: The right to write.
            sights: All streams.
            recovery: Recovery states that changed.
            seen: By stream, the generation of ``Desired`` that all this is about.
            all_numbers: Also numbers that are not due yet.

        Raises:
            LeaseLost: The right to write is over.
        """
        with self._lock:
            self._recovery.update(recovery)
            statuses = [
                status
                for sight in sights
                if (status := self._due(sight, lease.token, all_numbers=all_numbers)) is not None
            ]
            history, dead, states = tuple(self._history), dict(self._dead), dict(self._recovery)
        if not (statuses or history or dead or states):
            return True
        try:
            self._store.report(lease, statuses, states, history, tuple(dead.values()), seen)
        except StoreUnavailable:
            return False
        with self._lock:
            self._told.update({status.stream_id: status for status in statuses})
            self._mine.update(status.stream_id for status in statuses)
            told = {id(entry) for entry in history}
            left = (entry for entry in self._history if id(entry) not in told)
            self._history = deque(left, maxlen=_HISTORY_WAITING)
            _drop(self._dead, dead)
            _drop(self._recovery, states)
        return True

    def _due(self, sight: Sight, token: int, *, all_numbers: bool) -> StreamStatus | None:
        """The stream's status, if it must be told now."""
        info, now = sight.info, self._clock()
        status = StreamStatus(
            stream_id=info.query_id,
            state=sight.state,
            health=sight.health,
            health_reason=sight.health_reason,
            generation=sight.generation,
            spark_query_id=info.spark_query_id,
            spark_run_id=info.spark_run_id,
            started_at=info.start_time,
            restarts=self._restarts.get(info.query_id, 0),
            metrics=info.metrics,
            rows_committed=self._rows.get(info.query_id, 0),
            last_error=info.last_error,
            next_start_at=sight.next_start_at,
            host_run_id=self._run_id,
            updated_at=now,
            token=token,
        )
        before = self._told.get(info.query_id)
        if before is None or info.query_id not in self._mine or _stable_part(before) != _stable_part(status):
            return status
        passed = now - before.updated_at
        due = all_numbers or passed >= self._interval or passed < 0
        return status if due and _numbers(before) != _numbers(status) else None


def _stable_part(status: StreamStatus) -> StreamStatus:
    """What is told at once when it changes. The reason of a health has numbers in it, which alone are not news."""
    nothing = StreamStatus("", StreamingQueryState.STOPPED)
    return replace(
        status,
        metrics=nothing.metrics,
        rows_committed=0,
        health_reason="",
        updated_at=0.0,
    )


def _numbers(status: StreamStatus) -> tuple[object, ...]:
    return status.metrics, status.rows_committed, status.health_reason


def _drop(waiting: dict[str, Any], told: Mapping[str, Any]) -> None:
    for key, value in told.items():
        if waiting.get(key) is value:
            del waiting[key]
