from __future__ import annotations

import logging
from typing import Any

import pytest
from emitters import SIGNAL, Loader, subscribe
from kindling.signaling import BlinkerSignalProvider, Signal, SignalProvider

from kindling_dagster.signals.emitter import SUBSCRIBER_FAILED, AsyncSignalEmitter
from kindling_dagster.signals.errors import SignalNameError
from kindling_dagster.signals.naming import NamingMode
from kindling_dagster.signals.payloads import PipeExecutePayload, decode


@pytest.fixture
def provider() -> BlinkerSignalProvider:
    return BlinkerSignalProvider()


def test_emit_returns_what_subscribers_return(provider: BlinkerSignalProvider) -> None:
    receiver = subscribe(provider, SIGNAL, lambda sender, n: n + 1)
    assert Loader(provider).emit(SIGNAL, n=1) == [(receiver, 2)]


def test_without_provider_or_init_nothing_is_sent() -> None:
    class Bare(AsyncSignalEmitter):
        EMITS = [SIGNAL]  # noqa: RUF012

    for emitter in (Loader(None), Bare()):
        assert emitter.emit(SIGNAL, n=1) == []
        emitter.emit_async(SIGNAL, n=1)
        assert emitter.flush_signals(0)
        assert emitter.shutdown_signals(0)
        assert emitter.signal_stats() == ()
        assert emitter.subscriber_failures() == {}


def test_a_payload_arrives_as_keywords(provider: BlinkerSignalProvider) -> None:
    got: list[Any] = []
    subscribe(provider, "datapipes.after_pipe", lambda sender, **kwargs: got.append(kwargs))
    payload = PipeExecutePayload(signal="datapipes.after_pipe", pipe_id="p", duration_seconds=1.0)
    Loader(provider).emit_payload(payload)
    assert decode("datapipes.after_pipe", got[0]).to_data() == payload.to_data()


def test_a_failing_subscriber_stops_neither_the_emitter_nor_the_others(
    provider: BlinkerSignalProvider, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[int] = []
    reports: list[dict[str, Any]] = []

    def failing(sender: Any, n: int) -> None:
        raise ValueError(f"no {n}")

    for position in range(5):  # blinker's order is not defined: before and after the failing one
        subscribe(provider, SIGNAL, lambda sender, n, position=position: got.append(position))
    subscribe(provider, SIGNAL, failing)
    subscribe(provider, SUBSCRIBER_FAILED, lambda sender, **kwargs: reports.append(kwargs))
    loader = Loader(provider)

    results = [loader.emit(SIGNAL, n=n) for n in range(4)]

    assert sorted(got) == sorted([*range(5)] * 4)
    assert [len(each) for each in results] == [5] * 4
    assert len(reports) == 4
    report = decode(SUBSCRIBER_FAILED, reports[0])
    assert (report.failed_signal, report.error, report.error_type) == (SIGNAL, "no 0", "ValueError")
    assert report.subscriber.endswith("failing")
    assert list(loader.subscriber_failures().values()) == [4]
    logged = [record for record in caplog.records if "raised" in record.message]
    assert len(logged) == 3, "the 1st, 2nd and 4th time"


def test_a_failing_subscriber_of_the_report_ends_there(provider: BlinkerSignalProvider) -> None:
    def failing(sender: Any, **kwargs: Any) -> None:
        raise ValueError("no")

    subscribe(provider, SIGNAL, failing)
    subscribe(provider, SUBSCRIBER_FAILED, failing)
    loader = Loader(provider)
    loader.emit(SIGNAL)
    assert {signal: n for (signal, _), n in loader.subscriber_failures().items()} == {
        SIGNAL: 1,
        SUBSCRIBER_FAILED: 1,
    }


def test_a_coroutine_function_is_reported(provider: BlinkerSignalProvider) -> None:
    async def receiver(sender: Any, **kwargs: Any) -> None:
        raise AssertionError("never awaited")

    subscribe(provider, SIGNAL, receiver)
    loader = Loader(provider)
    assert loader.emit(SIGNAL) == []
    assert sum(loader.subscriber_failures().values()) == 1


def test_subscribers_that_disconnect_while_being_called(provider: BlinkerSignalProvider) -> None:
    signal = provider.create_signal(SIGNAL)
    calls: list[int] = []
    receivers: list[Any] = []

    def make(own: int) -> Any:
        def receiver(sender: Any, **kwargs: Any) -> None:
            calls.append(own)
            for each in receivers:
                signal.disconnect(each)

        return receiver

    receivers.extend(make(n) for n in range(3))
    for each in receivers:
        signal.connect(each, weak=False)
    loader = Loader(provider)
    loader.emit(SIGNAL)
    loader.emit(SIGNAL)
    assert len(calls) == 1


def test_muted_signals_stay_muted(provider: BlinkerSignalProvider) -> None:
    got: list[int] = []
    subscribe(provider, SIGNAL, lambda sender, **kwargs: got.append(1))
    with provider.create_signal(SIGNAL).muted():
        Loader(provider).emit(SIGNAL)
    assert got == []


def test_interrupts_pass_in_the_emitters_own_thread(provider: BlinkerSignalProvider) -> None:
    def receiver(sender: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    subscribe(provider, SIGNAL, receiver)
    with pytest.raises(KeyboardInterrupt):
        Loader(provider).emit(SIGNAL)


class PlainSignal(Signal):
    """Another implementation of Kindling's interface."""

    def __init__(self) -> None:
        self.receivers: list[Any] = []

    def connect(self, receiver: Any, sender: Any = None, weak: bool = True) -> Any:
        self.receivers.append(receiver)

    def disconnect(self, receiver: Any, sender: Any = None) -> None:
        self.receivers.remove(receiver)

    def send(self, sender: Any, **kwargs: Any) -> list[Any]:
        return [(each, each(sender, **kwargs)) for each in self.receivers]

    def has_receivers_for(self, sender: Any) -> bool:
        return bool(self.receivers)

    muted = connected_to = None  # type: ignore[assignment]


def test_another_signal_implementation_cannot_break_the_emitter() -> None:
    class Provider(SignalProvider):
        def __init__(self) -> None:
            self.made: dict[str, Signal] = {}

        def create_signal(self, name: str, doc: str | None = None) -> Signal:
            return self.made.setdefault(name, PlainSignal())

        def get_signal(self, name: str) -> Signal | None:
            return self.made.get(name)

    provider = Provider()
    subscribe(provider, SIGNAL, lambda sender, n: 1 // n)
    loader = Loader(provider)
    assert [value for _, value in loader.emit(SIGNAL, n=1)] == [1]
    assert loader.emit(SIGNAL, n=0) == []
    assert loader.subscriber_failures() == {(SIGNAL, "unknown"): 1}


def test_set_signal_provider_moves_the_emitter(provider: BlinkerSignalProvider) -> None:
    other = BlinkerSignalProvider()
    got: list[str] = []
    subscribe(provider, SIGNAL, lambda sender: got.append("old"))
    subscribe(other, SIGNAL, lambda sender: got.append("new"))
    loader = Loader(provider)
    loader.emit(SIGNAL)
    loader.set_signal_provider(other)
    loader.emit(SIGNAL)
    assert got == ["old", "new"]


def test_names_are_checked_at_declaration(caplog: pytest.LogCaptureFixture) -> None:
    class Warned(AsyncSignalEmitter):
        EMITS = ["orders.loadError"]  # noqa: RUF012

    assert "Call it 'orders.load_failed'." in caplog.text
    assert "Warned.EMITS" in caplog.text

    with pytest.raises(SignalNameError, match=r"orders\.load_failed"):

        class Strict(AsyncSignalEmitter):
            NAMING = NamingMode.STRICT
            EMITS = ["orders.loadError"]  # noqa: RUF012

    caplog.clear()

    class Off(AsyncSignalEmitter):
        NAMING = NamingMode.OFF
        EMITS = ["orders.loadError"]  # noqa: RUF012

    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("orders.pre_load", "before_load"),
        ("orders.after_loaded", "none of its EMITS"),
        ("load", "orders.loaded"),
    ],
)
def test_names_are_checked_at_emit(
    provider: BlinkerSignalProvider, caplog: pytest.LogCaptureFixture, name: str, message: str
) -> None:
    got: list[int] = []
    subscribe(provider, name, lambda sender: got.append(1))

    Loader(provider, naming=NamingMode.OFF).emit(name)
    Loader(provider, naming=NamingMode.STRICT, allowed_names=(name[:-1] + "*",)).emit(name)
    assert (got, caplog.text) == ([1, 1], "")

    warned = Loader(provider, naming=NamingMode.WARN)
    warned.emit(name)
    warned.emit(name)
    assert len(got) == 4
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1, "once for each emitter"
    assert message in caplog.text

    with pytest.raises(SignalNameError, match=message):
        Loader(provider, naming=NamingMode.STRICT).emit(name)
    assert len(got) == 4


def test_signals_of_the_bases_are_declared(provider: BlinkerSignalProvider) -> None:
    class Child(Loader):
        EMITS = ["orders.after_check"]  # noqa: RUF012

    child = Child(provider, naming=NamingMode.STRICT)
    child.emit(SIGNAL)
    child.emit("orders.after_check")
    assert Child.declared_signals() == {*Loader.EMITS, "orders.after_check", SUBSCRIBER_FAILED}
