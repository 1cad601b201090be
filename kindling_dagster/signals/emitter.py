"""AsyncSignalEmitter: Kindling's SignalEmitter with typed payloads, async emission and checked names."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import blinker
from kindling.signaling import Signal, SignalEmitter, SignalProvider

from kindling_dagster.signals import naming
from kindling_dagster.signals.dispatch import Delivery, SignalDispatcher, SignalStats
from kindling_dagster.signals.naming import NamingMode
from kindling_dagster.signals.payloads import Payload, SubscriberFailedPayload
from kindling_dagster.signals.receivers import (
    Failed,
    Receiver,
    blinker_signal,
    deliver,
    receiver_name,
)
from kindling_dagster.signals.settings import SignalSettings

logger = logging.getLogger("kindling_dagster.signals")

SUBSCRIBER_FAILED = "signals.subscriber_failed"


class _Route(NamedTuple):
    """What is worked out once for each signal an emitter emits."""

    signal: Signal
    inner: blinker.Signal | None
    asynchronous: bool
    failed: Failed


class AsyncSignalEmitter(SignalEmitter):  # type: ignore[misc]  # Kindling ships no types
    """A mixin for classes that emit signals.

    A subscriber that raises breaks neither the emitter nor the other subscribers: it is logged, counted
    (``subscriber_failures``) and reported by the signal ``signals.subscriber_failed``. (``emit_chained``
    is Kindling's own and lets an exception through: there a subscriber is asked, and may refuse.)

    Class attributes:
        EMITS: The signals the class emits; those of its bases count too. Checked when the class is made.
        ASYNC: Which of them are asynchronous: True, False, or patterns of names (``streaming.*``,
            ``!streaming.query_failed``); the app's settings come first.
        NAMING: What a bad name in EMITS leads to.

    Example:
        >>> class Loader(AsyncSignalEmitter):
        ...     EMITS = ["orders.before_load", "orders.after_load", "orders.load_failed"]
        ...
        ...     def __init__(self, provider):
        ...         self._init_signal_emitter(provider)
        ...
        ...     def load(self):
        ...         self.emit("orders.before_load", day="2013-01-01")
    """

    EMITS: ClassVar[list[str]] = ["signals.subscriber_failed"]
    ASYNC: ClassVar[bool | Sequence[str]] = False
    NAMING: ClassVar[NamingMode] = NamingMode.WARN

    _signal_provider: SignalProvider | None = None
    _signal_settings: SignalSettings = SignalSettings()
    _signal_dispatcher: SignalDispatcher | None = None
    _owns_dispatcher: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for signal in cls.__dict__.get("EMITS", ()):
            problem = naming.find_problem(signal, signal_namespace(cls))
            if problem:
                naming.report(problem, cls.NAMING, f"in {cls.__qualname__}.EMITS")

    def _init_signal_emitter(
        self,
        signal_provider: SignalProvider | None = None,
        settings: SignalSettings | None = None,
        dispatcher: SignalDispatcher | None = None,
    ) -> None:
        """Make the emitter ready; call it in ``__init__``, as with Kindling's own.

        Args:
            signal_provider: Where the signals live; without one nothing is sent.
            settings: Sync or async, naming, back-pressure; the defaults when None.
            dispatcher: The session's dispatcher; without one the emitter makes its own when it needs it.
        """
        self._signal_provider = signal_provider
        self._signal_settings = settings or SignalSettings()
        self._signal_dispatcher = dispatcher
        self._owns_dispatcher = False
        self._signal_lock = threading.Lock()
        self._routes: dict[str, _Route] = {}
        self._failures: Counter[tuple[str, str]] = Counter()

    def set_signal_provider(self, provider: SignalProvider) -> None:
        """Set where the signals live from now on."""
        owns = self._owns_dispatcher
        self._init_signal_emitter(provider, self._signal_settings, self._signal_dispatcher)
        self._owns_dispatcher = owns

    @classmethod
    def declared_signals(cls) -> frozenset[str]:
        """Every signal that the class or one of its bases declares in EMITS."""
        return frozenset(signal for base in cls.__mro__ for signal in base.__dict__.get("EMITS", ()))

    def emit(self, signal_name: str, **kwargs: Any) -> list[tuple[Receiver, Any]]:
        """Emit a signal, synchronously or not as class and settings say.

        Returns:
            (receiver, returned value) of those that did not raise; empty when asynchronous.

        Raises:
            SignalNameError: In strict mode, for a name that is bad or in no EMITS; nothing is sent then.
        """
        return self._send(signal_name, kwargs, None)

    def emit_async(self, signal_name: str, **kwargs: Any) -> None:
        """Emit a signal and return before its subscribers are called, whatever class and settings say.

        Raises:
            SignalNameError: As ``emit``.
        """
        self._send(signal_name, kwargs, True)

    def emit_payload(self, payload: Payload, asynchronous: bool | None = None) -> list[tuple[Receiver, Any]]:
        """Emit a typed payload as its signal, in the keyword form Kindling's subscribers expect.

        Args:
            payload: What to say.
            asynchronous: True or False to override class and settings.

        Returns:
            As ``emit``.

        Raises:
            SignalNameError: As ``emit``.
        """
        return self._send(payload.signal, payload.to_kwargs(), asynchronous)

    def flush_signals(self, timeout: float | None = None) -> bool:
        """Wait until all asynchronous signals emitted so far are delivered; False when time ran out."""
        return self._signal_dispatcher is None or self._signal_dispatcher.flush(timeout)

    def shutdown_signals(self, timeout: float | None = None) -> bool:
        """Deliver what waits and, if the dispatcher is this emitter's own, end its threads.

        Signals emitted afterwards are delivered synchronously. Returns whether all was delivered.
        """
        dispatcher = self._signal_dispatcher
        if dispatcher is None:
            return True
        return dispatcher.shutdown(timeout) if self._owns_dispatcher else dispatcher.flush(timeout)

    def signal_stats(self) -> tuple[SignalStats, ...]:
        """What became of the asynchronous signals of this emitter's dispatcher."""
        return () if self._signal_dispatcher is None else self._signal_dispatcher.stats()

    def subscriber_failures(self) -> Mapping[tuple[str, str], int]:
        """How often a subscriber of this emitter raised, by (signal, subscriber)."""
        if self._signal_provider is None:
            return {}
        with self._signal_lock:
            return dict(self._failures)

    def _send(
        self, name: str, kwargs: Mapping[str, Any], asynchronous: bool | None
    ) -> list[tuple[Receiver, Any]]:
        provider = self._signal_provider
        if provider is None:
            return []
        route = self._routes.get(name) or self._make_route(name, provider)
        if route.asynchronous if asynchronous is None else asynchronous:
            if route.signal.has_receivers_for(self):
                self._dispatcher().submit(
                    name, Delivery(route.signal, route.inner, self, kwargs, route.failed)
                )
            return []
        return deliver(route.signal, route.inner, self, kwargs, route.failed)

    def _make_route(self, name: str, provider: SignalProvider) -> _Route:
        self._check_name(name)
        signal = provider.get_signal(name) or provider.create_signal(name)
        route = _Route(
            signal=signal,
            inner=blinker_signal(signal),
            asynchronous=self._signal_settings.is_async(name, type(self).ASYNC),
            failed=partial(self._subscriber_failed, name),
        )
        self._routes[name] = route
        return route

    def _check_name(self, name: str) -> None:
        settings = self._signal_settings
        if settings.naming is NamingMode.OFF or settings.allows(name):
            return
        emitter = type(self)
        problem = naming.find_problem(name, signal_namespace(emitter)) or naming.undeclared(
            name, emitter, emitter.declared_signals()
        )
        if problem:
            naming.report(problem, settings.naming, f"emitted by {emitter.__qualname__}")

    def _dispatcher(self) -> SignalDispatcher:
        with self._signal_lock:
            if self._signal_dispatcher is None:
                self._signal_dispatcher = SignalDispatcher(self._signal_settings)
                self._owns_dispatcher = True
            return self._signal_dispatcher

    def _subscriber_failed(self, name: str, receiver: Receiver | None, error: BaseException) -> None:
        subscriber = receiver_name(receiver)
        with self._signal_lock:
            self._failures[name, subscriber] += 1
            count = self._failures[name, subscriber]
        if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th …: one that always fails must not flood the log
            logger.error(
                "Subscriber %s of %s raised (%d times so far)", subscriber, name, count, exc_info=error
            )
        provider = self._signal_provider
        if provider is None or name == SUBSCRIBER_FAILED:  # a report that fails is not reported in turn
            return
        payload = SubscriberFailedPayload(
            signal=SUBSCRIBER_FAILED,
            failed_signal=name,
            subscriber=subscriber,
            emitter=f"{type(self).__module__}.{type(self).__qualname__}",
            error=_text_of(error),
            error_type=type(error).__name__,
        )
        self._send(SUBSCRIBER_FAILED, payload.to_kwargs(), False)


def signal_namespace(emitter: type[SignalEmitter]) -> str:
    """The namespace an emitter's signals mostly have; empty when it declares none."""
    spaces = Counter(
        signal.rpartition(".")[0]
        for base in emitter.__mro__
        for signal in base.__dict__.get("EMITS", ())
        if "." in signal and signal != SUBSCRIBER_FAILED
    )
    return spaces.most_common(1)[0][0] if spaces else ""


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception whose own text raises
        return type(error).__name__
