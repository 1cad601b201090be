"""Streaming queries without Spark: handles that do as they are told, a clock, and a record of signals."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from typing import Any

from kindling.signaling import BlinkerSignalProvider

from kindling_dagster.signals.settings import SignalSettings

WAIT = 10.0
"""Seconds a test waits for something that comes at once unless it is broken."""

IN_ORDER = SignalSettings(asynchronous=False)
"""Signals are delivered at once: of different names, asynchronous ones come in any order."""

_numbers = itertools.count(1)


class FakeClock:
    """Unix seconds that stand still until they are moved."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeQuery:
    """A StreamingQuery as far as it is used here.

    ``hang`` names the members whose calls wait for ``release``; ``called`` is set when one hangs.
    """

    def __init__(self, query_id: str = "spark-id", hang: tuple[str, ...] = ()) -> None:
        self.id = query_id
        self.runId = f"run-{next(_numbers)}"
        self.hang = set(hang)
        self.release = threading.Event()
        self.called = threading.Event()
        self.active = True
        self.stops = 0
        self.error: BaseException | None = None
        self.stop_error: BaseException | None = None
        self.broken: BaseException | None = None
        self.state: dict[str, Any] = {
            "isDataAvailable": False,
            "isTriggerActive": False,
            "message": "Waiting for data to arrive",
        }
        self.progress: dict[str, Any] | None = None

    def _call(self, name: str) -> None:
        if name in self.hang:
            self.called.set()
            assert self.release.wait(WAIT)
        if self.broken is not None:
            raise self.broken

    @property
    def isActive(self) -> bool:
        self._call("isActive")
        return self.active

    @property
    def status(self) -> Mapping[str, Any]:
        self._call("status")
        return dict(self.state)

    @property
    def lastProgress(self) -> Mapping[str, Any] | None:
        self._call("lastProgress")
        return self.progress

    def exception(self) -> BaseException | None:
        self._call("exception")
        return self.error

    def stop(self) -> None:
        self.stops += 1
        self._call("stop")
        if self.stop_error is not None:
            raise self.stop_error
        self.active = False

    def die(self, error: BaseException | None = None) -> None:
        """End by itself."""
        self.active, self.error = False, error


def progress(batch_id: int, rows: int = 10, **more: Any) -> dict[str, Any]:
    """A progress report as Spark writes it."""
    made: dict[str, Any] = {
        "batchId": batch_id,
        "numInputRows": rows,
        "inputRowsPerSecond": 10.0,
        "processedRowsPerSecond": 20.0,
        "batchDuration": 500,
        "sources": [],
        "stateOperators": [],
    }
    return made | more


class HeardSignals:
    """All signals of some names, in order, and a way to wait for one."""

    def __init__(self, *names: str) -> None:
        self.provider = BlinkerSignalProvider()
        self.all: list[tuple[str, dict[str, Any]]] = []
        self._changed = threading.Condition()
        for name in names:
            self.provider.create_signal(name).connect(self._receiver(name), weak=False)

    def _receiver(self, name: str) -> Any:
        def receive(sender: Any, **payload: Any) -> None:
            with self._changed:
                self.all.append((name.rpartition(".")[2], payload))
                self._changed.notify_all()

        return receive

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.all]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [payload for heard, payload in self.all if heard == name]

    def wait_for(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.of(name)) >= count, WAIT), self.names
        return self.of(name)
