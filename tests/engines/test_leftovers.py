"""What a run subscribes to or keeps in memory is gone after it; Kindling's signals and watermarks, no Spark."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

from kindling.signaling import BlinkerSignalProvider
from kindling.watermarking import WatermarkAspect

from kindling_dagster.engines.warm.leftovers import SessionState
from kindling_dagster.runtime import KindlingRuntime


class Runtime(KindlingRuntime):
    """An app's services without the app: Kindling's own signals and watermarks."""

    def __init__(self) -> None:
        self._provider = BlinkerSignalProvider()
        self._aspect = WatermarkAspect(None, SimpleNamespace(get_logger=logging.getLogger), self._provider)
        self._platform_has_watermarks = None
        self.memory: dict[str, dict[str, Any]] = {}

    def memory_entities(self) -> dict[str, dict[str, Any]]:
        return self.memory

    @property
    def signals(self) -> Any:
        return self._provider

    def _service(self, interface: Any) -> Any:  # type: ignore[override]
        assert interface is WatermarkAspect
        return self._aspect

    def subscribers(self) -> int:
        return sum(map(len, self.receivers().values()))


def state_of(runtime: Runtime) -> SessionState:
    receivers = {name: frozenset(found) for name, found in runtime.receivers().items()}
    none: Any = None
    nothing: frozenset[Any] = frozenset()
    memory = {kind: dict(frames) for kind, frames in runtime.memory.items()}
    return SessionState(none, runtime, "", "", {}, nothing, nothing, nothing, nothing, receivers, memory)


def test_watermarks_are_connected_for_each_run_that_wants_them() -> None:
    """Kindling connects them once, and does not know of who was disconnected by others."""
    runtime = Runtime()
    before = state_of(runtime)
    connected = []
    for wanted in (True, True, False, True):
        runtime.set_watermarks(wanted)
        connected.append(runtime.subscribers())
        assert before.restore_receivers() == []
        assert runtime.subscribers() == 0
    assert connected[0] > 0
    assert connected == [connected[0], connected[0], 0, connected[0]]


def test_memory_entities_hold_what_they_held_before() -> None:
    """In the providers' own dictionaries; a run can fill them, merge into them, and bring a provider."""
    runtime = Runtime()
    held = {"seeded": "a frame", "other": "another"}
    runtime.memory = {"memory": dict(held)}
    before, of_the_app = state_of(runtime), runtime.memory["memory"]
    of_the_app.update(seeded="a frame of the run", recent="one more")
    runtime.memory["late"] = {"recent": "a third"}
    taken = ["memory entity seeded", "memory entity recent", "memory entity recent"]
    assert before.restore_memory() == taken
    assert (of_the_app, runtime.memory["late"]) == (held, {})
    assert before.restore_memory() == []


def test_watermarks_of_the_platform_stay() -> None:
    runtime = Runtime()
    runtime._aspect.register()
    before = state_of(runtime)
    for wanted in (False, True):
        runtime.set_watermarks(wanted)
        assert before.restore_receivers() == []
        assert runtime.subscribers() > 0


def test_a_run_s_own_subscriber_is_taken_away_and_an_older_one_stays() -> None:
    runtime = Runtime()
    heard: list[str] = []

    def app(_: Any, **__: Any) -> None:
        heard.append("app")

    def run(_: Any, **__: Any) -> None:
        heard.append("run")

    signal = runtime.signals.create_signal("persist.after_persist")
    signal.connect(app, weak=False)
    before = state_of(runtime)
    signal.connect(run, weak=False)
    assert before.restore_receivers() == ["subscriber of persist.after_persist"]
    signal.send(None)
    assert heard == ["app"]
