"""Emitters of the tests' own, and a subscriber that hangs until it is opened."""

from __future__ import annotations

import threading
from typing import Any

from kindling.signaling import SignalProvider

from kindling_dagster.signals.dispatch import SignalStats
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.settings import SignalSettings

SIGNAL = "orders.after_load"
WAIT = 30.0


class Loader(AsyncSignalEmitter):
    EMITS = [SIGNAL, "orders.before_load", "orders.row_changed", "datapipes.after_pipe"]  # noqa: RUF012

    def __init__(self, provider: SignalProvider | None, **settings: Any) -> None:
        dispatcher = settings.pop("dispatcher", None)
        self._init_signal_emitter(provider, SignalSettings(**settings), dispatcher)


class AsyncLoader(Loader):
    ASYNC = True


def subscribe(provider: SignalProvider, name: str, receiver: Any) -> Any:
    provider.create_signal(name).connect(receiver, weak=False)
    return receiver


def stats_of(emitter: AsyncSignalEmitter, signal: str = SIGNAL) -> SignalStats:
    return next(row for row in emitter.signal_stats() if row.signal == signal)


class Gate:
    """A subscriber that hangs until opened, and says when it began."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.got: list[Any] = []

    def __call__(self, sender: Any, **kwargs: Any) -> None:
        self.entered.set()
        assert self.opened.wait(WAIT)
        self.got.append(kwargs.get("n"))
