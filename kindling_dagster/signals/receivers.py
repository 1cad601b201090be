"""Behind Kindling's signal interfaces: who subscribes, which signals exist, and calling each by itself."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, TypeAlias

import blinker
from kindling.signaling import Signal, SignalProvider

Receiver: TypeAlias = Callable[..., Any]
Failed: TypeAlias = Callable[[Receiver | None, BaseException], None]
"""Told of a receiver that raised; None where it is not known which one did."""


@dataclass(frozen=True)
class Subscriber:
    """One subscriber of a signal.

    ``weak`` ones leave by themselves when nothing else refers to them. ``alive`` is False for such a one
    that is about to.
    """

    name: str
    weak: bool
    alive: bool = True


def blinker_signal(signal: Signal) -> blinker.Signal | None:
    """The blinker signal a Kindling signal wraps; None for another implementation.

    Kindling's interface tells neither who subscribes nor lets one receiver fail without the others. The
    wrapped signal does, by blinker's public interface; it is found by its type, not by a private name.
    """
    if isinstance(signal, blinker.Signal):
        return signal
    held = vars(signal).values() if hasattr(signal, "__dict__") else ()
    return next((value for value in held if isinstance(value, blinker.Signal)), None)


def signals_of(provider: SignalProvider) -> Mapping[str, Signal]:
    """The signals a provider has created, by name; found by their type, as Kindling's interface lists none."""
    for value in vars(provider).values() if hasattr(provider, "__dict__") else ():
        if isinstance(value, dict) and value and all(isinstance(item, Signal) for item in value.values()):
            return dict(value)
    return {}


def subscribers_of(signal: Signal) -> tuple[Subscriber, ...]:
    """Who subscribes to a signal; empty when that cannot be known."""
    inner = blinker_signal(signal)
    if inner is None:
        return ()
    found = []
    for receiver in list(inner.receivers.values()):
        weak = isinstance(receiver, weakref.ref)
        target = receiver() if isinstance(receiver, weakref.ref) else receiver
        found.append(Subscriber(receiver_name(target), weak, target is not None))
    return tuple(sorted(found, key=lambda each: each.name))


def receiver_name(receiver: object) -> str:
    """A receiver's module and qualified name, for people."""
    if receiver is None:
        return "unknown"
    target = getattr(receiver, "func", receiver)  # what a partial calls
    name = getattr(target, "__qualname__", type(target).__qualname__)
    module = getattr(target, "__module__", type(target).__module__)
    return f"{module}.{name}"


def deliver(
    signal: Signal, inner: blinker.Signal | None, sender: object, kwargs: Mapping[str, Any], failed: Failed
) -> list[tuple[Receiver, Any]]:
    """Call every receiver of a signal; one that raises is told to ``failed`` and stops no other.

    A receiver may disconnect itself or another meanwhile. Behind a signal that is not blinker's the
    receivers cannot be told apart: the first that raises ends that delivery.

    Returns:
        (receiver, returned value) of those that did not raise.
    """
    if inner is None:
        try:
            return list(signal.send(sender, **kwargs))
        except Exception as error:
            failed(None, error)
            return []
    if inner.is_muted:
        return []
    results = []
    for receiver in inner.receivers_for(sender):
        try:
            result = receiver(sender, **kwargs)
            if type(result) is CoroutineType:
                result.close()
                raise TypeError("a coroutine function cannot subscribe; nothing would await it")
        except Exception as error:
            failed(receiver, error)
        else:
            results.append((receiver, result))
    return results
