"""Kindling's signals, handed on as events while an execution goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from kindling_dagster.engines.base import RunEvent, SignalSeen
from kindling_dagster.signals.catalog import declared_signals
from kindling_dagster.signals.payloads import PAYLOAD_BY_SIGNAL, decode
from kindling_dagster.signals.receivers import signals_of

SKIPPED = "datapipes.pipe_skipped"


@dataclass
class Seen:
    """What was heard of one pipe while it ran."""

    skipped: bool = False


class SignalListener:
    """Subscribes to every signal there is and emits each as a ``SignalSeen`` with a JSON payload.

    Args:
        emit: Takes the events; called in whatever thread emitted the signal.
        leave_out: Signals that are not listened to, since others tell of them.
    """

    def __init__(self, emit: Callable[[RunEvent], None], leave_out: Iterable[str] = ()) -> None:
        self._emit = emit
        self._leave_out = frozenset(leave_out)
        self._thread = threading.local()
        self._disconnects: list[Callable[[], None]] = []

    def connect(self, signals: Any, more: Iterable[str] = ()) -> None:
        """Listen to the signals of a Kindling SignalProvider.

        That is those the package knows, those that emitters of the app declare in EMITS, those the
        provider has already, and ``more``.
        """
        names = (*PAYLOAD_BY_SIGNAL, *declared_signals(), *signals_of(signals), *more)
        for name in dict.fromkeys(names):
            if name in self._leave_out:
                continue
            signal = signals.create_signal(name)
            receiver = self._receiver(name)
            signal.connect(receiver, weak=False)
            self._disconnects.append(partial(signal.disconnect, receiver))

    def close(self) -> None:
        """Stop listening. Can be called twice."""
        disconnects, self._disconnects = self._disconnects, []
        for disconnect in disconnects:
            disconnect()

    @contextmanager
    def watch(self) -> Iterator[Seen]:
        """Around one pipe's call, in its thread: what Kindling says of it."""
        seen = self._thread.seen = Seen()
        try:
            yield seen
        finally:
            self._thread.seen = None

    def _receiver(self, name: str) -> Callable[..., None]:
        def receive(sender: Any, /, **payload: Any) -> None:  # noqa: ARG001
            # Kindling runs a pipe in the thread that asked for it, so the thread tells whose signal it is.
            seen = getattr(self._thread, "seen", None)
            if seen is not None and name == SKIPPED:
                seen.skipped = True
            self._emit(SignalSeen(name, decode(name, payload).to_data()))

        return receive
