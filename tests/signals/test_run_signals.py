"""From a signal that is sent to what Dagster stores, through the step that a user writes. Without Spark."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bridge_steps import APP, DAILY, LIVE, ORDERS, done, lines_of
from dagster import DagsterInstance, materialize
from kindling.signaling import BlinkerSignalProvider, SignalEmitter
from test_bridge_table import example

from kindling_dagster import KindlingProject, KindlingResource, kindling_assets
from kindling_dagster.dag.orchestrator import ExecutionOrchestrator
from kindling_dagster.engines.base import RunEvent, RunRequest, SignalSeen
from kindling_dagster.engines.listening import SignalListener
from kindling_dagster.signals.bridge_outputs import StepLog
from kindling_dagster.signals.bridge_table import SignalBridge
from kindling_dagster.signals.catalog import DagsterEvent, get_all_signals
from kindling_dagster.signals.dispatch import SignalDispatcher
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.errors import SignalError
from kindling_dagster.signals.reading import read_step_records
from kindling_dagster.signals.settings import SignalSettings

Send = Callable[[BlinkerSignalProvider], None]


class Engine:
    """Listens to a provider as the real one does; ``send`` is what Kindling and the app do meanwhile."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def run(self, request: RunRequest) -> Iterator[RunEvent]:
        provider, events = BlinkerSignalProvider(), list[RunEvent]()
        listener = SignalListener(events.append)
        listener.connect(provider, request.signals)
        self._send(provider)
        listener.close()
        yield from events
        for pipe_id in request.pipe_ids:
            yield done(pipe_id)

    def close(self) -> None:
        pass


def run_app(send: Send, folder: Path, bridge: SignalBridge | None = None) -> Any:
    """Materialize all of the app's assets while ``send`` emits; gives success, lines, and the step's record."""
    APP.write(folder / "manifest.json")

    class Resource(KindlingResource):
        def engine_for(self, project: KindlingProject, context: Any) -> Any:
            return Engine(send)

    @kindling_assets(project=KindlingProject(manifest=folder / "manifest.json"))
    def shop(context, kindling: KindlingResource):  # type: ignore[no-untyped-def]
        yield from kindling.run(context, bridge=bridge).stream()

    instance = DagsterInstance.ephemeral()
    result = materialize([shop], resources={"kindling": Resource()}, instance=instance, raise_on_error=False)
    (record,) = read_step_records(instance, result.run_id)
    return result.success, list(lines_of(instance, result.run_id)), record


def test_every_signal_that_is_sent_reaches_dagster(tmp_path: Path) -> None:
    specs = get_all_signals().values()

    def send(provider: BlinkerSignalProvider) -> None:
        for spec in specs:
            provider.create_signal(spec.name).send(object(), **example(spec).to_kwargs())

    success, lines, record = run_app(send, tmp_path)
    assert success
    assert record["signals"] == {spec.name: 1 for spec in specs}
    assert "dropped" not in record
    failures = {spec.name for spec in specs if DagsterEvent.FAILURE in spec.dagster_events}
    assert record["errors"] == dict.fromkeys(sorted(failures), 1)
    found = {(line.kind, line.asset) for line in lines}
    assert found >= {
        ("materialization", ORDERS.to_user_string()),
        ("materialization", DAILY.to_user_string()),
        ("observation", LIVE.to_user_string()),
        ("check", LIVE.to_user_string()),
        ("check", ORDERS.to_user_string()),
    }
    (orders,) = [line for line in lines if (line.kind, line.asset) == ("materialization", "silver/orders")]
    assert {"kindling/watermarks", "kindling/cache", "kindling/persist_seconds", "kindling/read_by"} <= set(
        orders.metadata
    )
    assert "kindling/lineage_package_version" in orders.metadata
    assert any(line.text.startswith("Plan (") for line in lines)
    assert any(line.text.startswith("Generation ") for line in lines)


class Loader(SignalEmitter):
    """An app's own emitter, of which the package knows nothing."""

    EMITS = ["shop_loader.files_loaded"]  # noqa: RUF012


def test_an_apps_own_signals_are_heard_where_they_are_declared_or_named(tmp_path: Path) -> None:
    def send(provider: BlinkerSignalProvider) -> None:
        loader = Loader()
        loader._init_signal_emitter(provider)
        loader.emit("shop_loader.files_loaded", files=2)
        provider.create_signal("shop.named").send(loader)
        provider.create_signal("shop.unheard_of").send(loader)

    rules = {"shop.named": lambda payload, context: [StepLog("by a rule")]}
    success, lines, record = run_app(send, tmp_path, SignalBridge(rules))
    assert success
    assert record["signals"] == {"shop_loader.files_loaded": 1, "shop.named": 1}
    texts = [line.text for line in lines]
    assert "shop_loader.files_loaded: files=2" in texts
    assert "by a rule" in texts


def heard(send: Callable[[BlinkerSignalProvider], Any]) -> list[RunEvent]:
    provider, events = BlinkerSignalProvider(), list[RunEvent]()
    provider.create_signal("shop.made_before")
    listener = SignalListener(events.append)
    listener.connect(provider)
    send(provider)
    listener.close()
    listener.close()
    send(provider)
    return events


def test_signals_that_exist_are_listened_to_until_the_end() -> None:
    events = heard(lambda provider: provider.create_signal("shop.made_before").send(None, n=1))
    assert [event.name for event in events if isinstance(event, SignalSeen)] == ["shop.made_before"]


def test_no_keyword_collides_with_the_listeners_own() -> None:
    class Emitter(AsyncSignalEmitter):
        EMITS = ["shop.made_before"]  # noqa: RUF012

    def send(provider: BlinkerSignalProvider) -> None:
        emitter = Emitter()
        emitter._init_signal_emitter(provider)
        emitter.emit("shop.made_before", sender="a", name="b", payload={"c": 1}, event="d")
        assert emitter.subscriber_failures() == {}

    (event,) = heard(send)
    assert isinstance(event, SignalSeen)
    assert event.payload["extra"] == {"sender": "a", "name": "b", "payload": {"c": 1}, "event": "d"}


# -- the app's settings -----------------------------------------------------------------------------


def execute(settings: dict[str, Any], provider: BlinkerSignalProvider, **options: Any) -> None:
    from manifests import manifest, pipe

    app = manifest(pipe("clean", "bronze.orders", "silver.orders"), settings=settings)
    ExecutionOrchestrator(app, lambda pipe_id: None, signals=provider, **options).execute(["clean"])


@pytest.mark.parametrize(
    ("patterns", "elsewhere"),
    [(None, False), ("false", False), ("true", True), (["*.execution_*"], True), (["!*.execution_*"], False)],
)
def test_the_settings_say_what_is_asynchronous_in_a_run(patterns: Any, elsewhere: bool) -> None:
    provider, threads = BlinkerSignalProvider(), list[bool]()
    main = threading.get_ident()
    provider.create_signal("orchestrator.execution_completed").connect(
        lambda sender, **kwargs: threads.append(threading.get_ident() != main), weak=False
    )
    settings = {} if patterns is None else {"kindling.signals.async": patterns}
    dispatcher = SignalDispatcher(SignalSettings.from_config(settings))
    execute(settings, provider, dispatcher=dispatcher)
    assert dispatcher.shutdown(30)
    assert threads == [elsewhere]


def test_a_bad_setting_ends_the_run_before_it_begins() -> None:
    with pytest.raises(SignalError, match=r"kindling\.signals\.naming is 'loud'"):
        execute({"kindling.signals.naming": "loud"}, BlinkerSignalProvider())


def test_subscribers_that_raise_or_leave_while_being_called_do_not_end_a_run() -> None:
    provider, events = BlinkerSignalProvider(), list[str]()
    started = provider.create_signal("orchestrator.execution_started")

    def raising(sender: Any, **kwargs: Any) -> None:
        raise RuntimeError("no")

    def leaving(sender: Any, **kwargs: Any) -> None:
        events.append("left")
        started.disconnect(leaving)
        started.disconnect(raising)

    started.connect(raising, weak=False)
    started.connect(leaving, weak=False)
    provider.create_signal("orchestrator.execution_completed").connect(
        lambda sender, **kwargs: events.append("completed"), weak=False
    )
    execute({}, provider)
    execute({}, provider)
    assert events == ["left", "completed", "completed"]


def test_a_subscriber_that_hangs_does_not_end_a_run() -> None:
    provider, release = BlinkerSignalProvider(), threading.Event()
    provider.create_signal("orchestrator.execution_started").connect(
        lambda sender, **kwargs: release.wait(30), weak=False
    )
    completed = threading.Event()
    provider.create_signal("orchestrator.execution_completed").connect(
        lambda sender, **kwargs: completed.set(), weak=False
    )
    dispatcher = SignalDispatcher()
    execute({"kindling.signals.async": True}, provider, dispatcher=dispatcher)
    assert completed.wait(30)
    assert not release.is_set()
    assert not dispatcher.flush(0.05), "what hangs is known to hang"
    release.set()
    assert dispatcher.shutdown(30)
