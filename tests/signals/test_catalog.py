from __future__ import annotations

import ast
import importlib.util
import json
import threading
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from kindling.signaling import BlinkerSignalProvider, SignalEmitter
from kindling.streaming_health_monitor import StreamingHealthMonitor
from kindling.streaming_listener import KindlingStreamingListener

from kindling_dagster.signals import catalog, reference
from kindling_dagster.signals.errors import SignalError
from kindling_dagster.signals.payloads import PAYLOAD_BY_SIGNAL, Payload, decode, payload_class, wire_fields
from kindling_dagster.signals.scan import EmitSite, scan_package
from kindling_dagster.signals.summaries import SUMMARIES

ROOT = Path(__file__).parents[2]
KINDLING_SITES = [site for site in scan_package("kindling").sites if site.call.startswith("emit")]

# What blinker or Kindling do with a keyword themselves.
NOT_SENT = {"doc"}


def test_every_signal_kindling_declares_is_in_the_catalog() -> None:
    declared = {signal for emitter in scan_package("kindling").emitters for signal in emitter.signals}
    assert len(declared) > 80, "the scan finds Kindling's EMITS lists"
    assert declared - set(catalog.get_all_signals()) == set()


def test_the_scan_finds_every_emits_list_there_is() -> None:
    """By text, so that a form of declaration the scan does not understand shows."""
    spec = importlib.util.find_spec("kindling")
    assert spec is not None
    text = "".join(
        file.read_text()
        for root in spec.submodule_search_locations or ()
        for file in Path(root).rglob("*.py")
    )
    lists = text.count("\n    EMITS = [") + text.count("\n    EMITS: List[str] = [")
    assert len(scan_package("kindling").emitters) == lists - 1, "all but the empty one of SignalEmitter"


def test_every_signal_kindling_emits_or_makes_is_in_the_catalog() -> None:
    sites = scan_package("kindling").sites
    assert len(sites) > 80
    assert {site.signal for site in sites} - set(catalog.get_all_signals()) == set()


@pytest.mark.parametrize("site", KINDLING_SITES, ids=lambda site: f"{site.module}:{site.line}")
def test_payloads_have_the_fields_kindling_sends(site: EmitSite) -> None:
    payload = payload_class(site.signal)
    required, optional = wire_fields(payload, site.signal)
    sent = set(site.keywords) - NOT_SENT
    assert sent <= {*required, *optional}, "a keyword the payload does not know"
    if not site.open_ended:
        assert set(required) <= sent, "a field called required that is not sent"


def test_what_kindlings_open_ended_sites_send() -> None:
    """Sites with ``**data`` are run: what they add is no text in the source."""
    open_ended = {site.signal for site in KINDLING_SITES if site.open_ended}
    received: dict[str, list[Payload]] = {}
    provider = BlinkerSignalProvider()

    def receive(signal: str, sender: Any, /, **kwargs: Any) -> None:
        received.setdefault(signal, []).append(decode(signal, kwargs))

    for name in open_ended:
        provider.create_signal(name).connect(partial(receive, name), weak=False)
    _drive_kindlings_listener_and_monitor(provider)
    assert set(received) == open_ended
    for payloads in received.values():
        assert all((each.missing, each.extra) == ((), {}) for each in payloads), payloads


def _drive_kindlings_listener_and_monitor(provider: BlinkerSignalProvider) -> None:
    logs = Mock()
    listener = KindlingStreamingListener(provider, logs, Mock())
    monitor = StreamingHealthMonitor(provider, logs, stall_threshold=0.2, stall_check_interval=0.01)
    monitor.start()
    listener.start()
    stalled = threading.Event()
    provider.create_signal("streaming.query_stalled").connect(
        lambda sender, **kwargs: stalled.set(), weak=False
    )

    def progress(query: str, rate_in: float, rate_out: float) -> Mock:
        event = Mock()
        event.progress = Mock(
            id=query,
            runId="run",
            batchId=1,
            numInputRows=10,
            inputRowsPerSecond=rate_in,
            processedRowsPerSecond=rate_out,
            batchDuration=5,
        )
        event.progress.name = query
        return event

    for query, rates in {"good": (1.0, 2.0), "behind": (100.0, 1.0)}.items():
        started = Mock(id=query, runId="run")
        started.name = query
        listener.onQueryStarted(started)
        listener.onQueryProgress(progress(query, *rates))
    listener.onQueryTerminated(Mock(id="behind", runId="run", exception="boom"))
    assert stalled.wait(30)
    listener.stop(30)
    monitor.stop(30)


def test_every_signal_of_ours_is_declared_and_known() -> None:
    scan = scan_package("kindling_dagster")
    known = set(catalog.get_all_signals())
    declared = {signal for emitter in scan.emitters for signal in emitter.signals}
    kindlings = {signal for emitter in scan_package("kindling").emitters for signal in emitter.signals}
    emitted = {
        site.signal for site in scan.sites if site.call.startswith("emit") or site.call.endswith("Payload")
    }
    assert declared <= known
    assert emitted <= declared | kindlings


def test_specs_are_complete() -> None:
    specs = catalog.get_all_signals()
    assert list(specs) == sorted(PAYLOAD_BY_SIGNAL)
    assert set(SUMMARIES) == set(specs)
    assert len({spec.summary for spec in specs.values()}) == len(specs)
    for spec in specs.values():
        assert spec.summary.endswith(".")
        assert spec.dagster_events, spec.name
        assert spec.fields, spec.name
    for name in (*catalog._EVENTS_BY_NAME, *catalog._HIGH_RATE):
        assert name in specs
    from_kindling = {site.signal for site in KINDLING_SITES}
    assert all(specs[name].emitters for name in from_kindling)


@pytest.mark.parametrize(
    ("name", "event", "subject"),
    [
        ("persist.after_persist", "materialization", "output_entity_id"),
        ("persist.persist_failed", "failure, asset metadata", "output_entity_id"),
        ("datapipes.pipe_failed", "failure, asset metadata", "pipe_id"),
        ("datapipes.pipe_skipped", "step log", "pipe_id"),
        ("orchestrator.generation_started", "step log", ""),
        ("orchestrator.cache_hit", "asset metadata", "entity_id"),
        ("watermark.watermark_found", "asset metadata", "source_entity_id"),
        ("streaming.query_started", "observation", "query_id"),
        ("streaming.query_unhealthy", "observation, check evaluation", "query_id"),
        ("streaming.recovery_exhausted", "observation, check evaluation", "query_id"),
        ("streaming.dimension_changed", "observation, check evaluation", "entity_id"),
        ("datapipes.lineage_applied", "materialization metadata", "entity_id"),
    ],
)
def test_what_signals_become(name: str, event: str, subject: str) -> None:
    spec = catalog.describe_signal(name)
    assert (spec.dagster_event, spec.subject) == (event, subject)


@pytest.mark.parametrize("name", PAYLOAD_BY_SIGNAL)
def test_schemas_fit_what_payloads_write(name: str) -> None:
    schema = catalog.payload_schema(name)
    json.dumps(schema)
    examples: dict[Any, Any] = {
        "string": "text", "integer": 1, "number": 1.5, "boolean": True, "array": ["a"], "object": {"a": 1},
    }  # fmt: skip
    kwargs = {key: examples[value["type"][0]] for key, value in schema["properties"].items()}
    data = decode(name, kwargs).to_data()
    assert data["missing"] == []
    assert data["extra"] == {}
    assert data["fields"] == {key: value for key, value in kwargs.items() if key != "timestamp"}


def test_unknown_signals() -> None:
    for ask in (catalog.describe_signal, catalog.payload_schema):
        with pytest.raises(SignalError, match=r"no\.such"):
            ask("no.such")


def test_emitters_of_kindling_ours_and_loaded_ones() -> None:
    class Mine(SignalEmitter):
        EMITS = ["mine.after_load"]  # noqa: RUF012

    class Child(Mine):
        pass

    found = {emitter.path: emitter.signals for emitter in catalog.list_emitters()}
    assert found["kindling.execution_orchestrator.ExecutionOrchestrator"] == ("orchestrator.plan_generated",)
    assert found["kindling_dagster.signals.emitter.AsyncSignalEmitter"] == ("signals.subscriber_failed",)
    assert found[f"{__name__}.{Mine.__qualname__}"] == ("mine.after_load",)
    assert not any(path.endswith("Child") for path in found)
    with pytest.raises(SignalError, match="no_such_package"):
        catalog.list_emitters(["no_such_package"])


def test_subscribers() -> None:
    provider = BlinkerSignalProvider()
    assert catalog.subscribers(provider, "orders.loaded") == ()
    assert catalog.live_signals(provider) == {}

    def strong(sender: Any, **kwargs: Any) -> None: ...

    def weak(sender: Any, **kwargs: Any) -> None: ...

    signal = provider.create_signal("orders.loaded")
    signal.connect(strong, weak=False)
    signal.connect(weak)
    provider.create_signal("orders.found")
    found = catalog.subscribers(provider, "orders.loaded")
    assert [(each.name.rpartition(".")[2], each.weak, each.alive) for each in found] == [
        ("strong", False, True),
        ("weak", True, True),
    ]
    live = catalog.live_signals(provider)
    assert {name: len(who) for name, who in live.items()} == {"orders.found": 0, "orders.loaded": 2}


# -- the scan ---------------------------------------------------------------------------------------


def test_the_scan_reads_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "scanned_app" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "scanned_app" / "__init__.py").write_text("")
    (package / "__init__.py").write_text(
        "class Outer:\n"
        "    class Loader(Base):\n"
        "        EMITS: list[str] = [*Base.EMITS, 'a.b'] + ['a.c']\n"
        "        def run(self):\n"
        "            self.emit('a.b', x=1, **more)\n"
        "            self.emit(name, x=1)\n"
        "            self.emit_payload(LoadPayload(signal='a.c', y=1))\n"
        "signals.create_signal('a.d')\n"
        "emit('no dot')\n"
        "raise SystemExit('imported')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    scan = scan_package("scanned_app")
    assert [(each.path, each.signals) for each in scan.emitters] == [
        ("scanned_app.inner.Outer.Loader", ("a.b", "a.c"))
    ]
    assert [(s.signal, s.call, s.line, s.emitter, s.keywords, s.open_ended) for s in scan.sites] == [
        ("a.b", "emit", 5, "Outer.Loader", ("x",), True),
        ("a.c", "LoadPayload", 7, "Outer.Loader", ("signal", "y"), False),
        ("a.d", "create_signal", 8, "", (), False),
    ]


# -- the reference ----------------------------------------------------------------------------------


def test_the_reference_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([str(ROOT / "docs" / "signals_reference.md"), "--check"]) == 0, (
        capsys.readouterr().err
    )


def test_the_reference_check_fails_when_it_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "docs" / "reference.md"
    assert reference.main([str(path), "--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert reference.main([str(path)]) == 0
    assert reference.main([str(path), "--check"]) == 0
    path.write_text(path.read_text().replace("cursor", "cursors", 1))
    assert reference.main([str(path), "--check"]) == 1


def test_the_reference_names_every_signal_with_payload_and_event() -> None:
    text = reference.render()
    for spec in catalog.get_all_signals().values():
        section = text.split(f"\n### {spec.name}\n")[1].split("\n### ")[0]
        assert spec.summary in section
        assert f"`{spec.payload.__name__}` · in Dagster: {spec.dagster_event}" in section
        for each in spec.fields:
            assert f"| `{each.name}` |" in section
    ast.parse(text.split("```python\n")[1].split("```")[0])
