"""ErrorCollector: what failed during a run, gathered from signals, as data and as one table."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from kindling.signaling import SignalProvider

from kindling_dagster.signals.payloads import (
    PAYLOAD_BY_SIGNAL,
    FailurePayload,
    Payload,
    SparkQueryPayload,
    decode,
)
from kindling_dagster.signals.plain import plain
from kindling_dagster.signals.receivers import signals_of

_SUBJECTS: Final = ("pipe_id", "failed_pipe", "query_id", "output_entity_id", "entity_id", "reader_id")
_OTHER_SUBJECTS: Final = ("source_entity_id", "filename", "path", "stage", "job_name", "app_name", "run_id")
_CELL: Final = 160
"""Characters of a message that a table's cell shows; the data have all of it."""


@dataclass(frozen=True)
class CollectedError:
    """One error, however many signals told of it.

    Args:
        subject: The pipe, else the stream, entity or whatever else the signal names; empty for a whole run.
        error_type: The exception's class name; empty when no signal gave it.
        message: The error's text, secrets masked.
        suggestion: What to do about it; empty when no signal said.
        where: Innermost ``file:line`` of the app; empty when no signal said.
        signals: How often each signal told of it.
        first_at: Unix seconds of the first one.
        last_at: Unix seconds of the last one.
    """

    subject: str
    error_type: str
    message: str
    suggestion: str
    where: str
    signals: Mapping[str, int]
    first_at: float
    last_at: float

    @property
    def count(self) -> int:
        """How often the most frequent signal told of it: how often it happened."""
        return max(self.signals.values())


class ErrorCollector:
    """Gathers errors from every ``*_failed``, exception and exhausted signal.

    One error passes through several signals (the merge fails, so the persist, so the pipe, so the run);
    those with the same subject and text are one. Use it around a run, or feed it payloads by ``record``:

        with ErrorCollector().connected(provider) as errors: ...

    Args:
        capacity: How many different errors are kept; more are counted in ``not_kept``.
    """

    def __init__(self, capacity: int = 200) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._errors: dict[tuple[str, str], CollectedError] = {}
        self._by_signal: Counter[str] = Counter()
        self._not_kept = 0
        self._disconnects: list[Callable[[], None]] = []

    def connected(self, provider: SignalProvider) -> ErrorCollector:
        """Subscribe to a provider's signals, also to unknown ones it already has that end in ``_failed``."""
        names = {name for name, payload in PAYLOAD_BY_SIGNAL.items() if _tells_of_errors(payload)}
        names |= {name for name in signals_of(provider) if name.endswith("_failed")}
        for name in sorted(names):
            signal = provider.create_signal(name)
            receiver = partial(self._receive, name)
            signal.connect(receiver, weak=False)
            self._disconnects.append(partial(signal.disconnect, receiver))
        return self

    def close(self) -> None:
        """Unsubscribe; what was gathered stays. Can be called twice."""
        disconnects, self._disconnects = self._disconnects, []
        for disconnect in disconnects:
            disconnect()

    def __enter__(self) -> ErrorCollector:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _receive(self, signal: str, sender: object, /, **kwargs: Any) -> None:  # noqa: ARG002
        self.record(decode(signal, kwargs))

    def record(self, payload: Payload) -> None:
        """Take the error a payload tells of; one that tells of none changes nothing."""
        told = _error_of(payload)
        if told is None:
            return
        with self._lock:
            self._by_signal[payload.signal] += 1
            key = (told.subject, told.message)
            known = self._errors.get(key)
            if known is not None:
                self._errors[key] = _merged(known, told)
            elif len(self._errors) < self._capacity:
                self._errors[key] = told
            else:
                self._not_kept += 1

    @property
    def errors(self) -> tuple[CollectedError, ...]:
        """The errors, in the order they were first told of."""
        with self._lock:
            return tuple(self._errors.values())

    @property
    def by_signal(self) -> Mapping[str, int]:
        """How many errors each signal told of, also those not kept."""
        with self._lock:
            return dict(sorted(self._by_signal.items()))

    @property
    def not_kept(self) -> int:
        """How many tellings of further errors found no room."""
        with self._lock:
            return self._not_kept

    def rows(self) -> list[tuple[str, ...]]:
        """The table's rows: subject, error, message, times, what to do, signals."""
        return [
            (
                error.subject or "run",
                error.error_type,
                _cell(error.message),
                str(error.count),
                _cell(" ".join(part for part in (error.where, error.suggestion) if part)),
                ", ".join(error.signals),
            )
            for error in self.errors
        ]

    def to_text(self) -> str:
        """All errors as one aligned table for a log; empty when there are none."""
        rows = [_HEADINGS, *self.rows()]
        if len(rows) == 1:
            return ""
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([*lines, *self._rest()])

    def _rest(self) -> list[str]:
        return [f"{self.not_kept} more were not kept."] if self.not_kept else []


_HEADINGS: Final = ("pipe or entity", "error", "message", "times", "what to do", "signals")


def _tells_of_errors(payload: type[Payload]) -> bool:
    return issubclass(payload, FailurePayload | SparkQueryPayload)


def _error_of(payload: Payload) -> CollectedError | None:
    if isinstance(payload, FailurePayload):
        message, error_type = payload.error_text, payload.error_type
        suggestion, where = payload.suggestion, payload.where
    elif isinstance(payload, SparkQueryPayload):
        # A query that ended without an exception was stopped: no error.
        message, error_type = payload.exception or "", payload.error_class
        suggestion = where = None
        if not message:
            return None
    elif payload.signal.endswith("_failed"):
        message, error_type = str(payload.extra.get("error", "")), payload.extra.get("error_type")
        suggestion, where = payload.extra.get("suggestion"), payload.extra.get("where")
    else:
        return None
    return CollectedError(
        subject=_subject(payload),
        error_type=str(error_type or ""),
        message=str(plain(message)),
        suggestion=str(plain(suggestion or "")),
        where=str(where or ""),
        signals={payload.signal: 1},
        first_at=payload.timestamp or 0.0,
        last_at=payload.timestamp or 0.0,
    )


def _subject(payload: Payload) -> str:
    known = {**payload.extra, **vars(payload)}
    return next((str(known[name]) for name in (*_SUBJECTS, *_OTHER_SUBJECTS) if known.get(name)), "")


def _merged(known: CollectedError, told: CollectedError) -> CollectedError:
    return replace(
        known,
        error_type=known.error_type or told.error_type,
        suggestion=known.suggestion or told.suggestion,
        where=known.where or told.where,
        signals=dict(Counter(known.signals) + Counter(told.signals)),
        last_at=max(known.last_at, told.last_at),
    )


def _cell(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _CELL else f"{line[: _CELL - 1]}…"
