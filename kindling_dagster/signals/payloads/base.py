"""Payload: the base of all typed payloads, and the forms it takes (keywords, data, JSON)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from typing import Any, ClassVar, Final, NamedTuple

from kindling.signaling import SignalPayload

from kindling_dagster.signals.plain import describe, plain

ENVELOPE: Final = frozenset({"signal", "extra", "missing"})
"""Attributes of a payload that are about the payload; never sent as keywords of their own."""


class WireFields(NamedTuple):
    """Which fields one signal carries: always, and where there is something to say."""

    required: tuple[str, ...]
    optional: tuple[str, ...]


@dataclass(kw_only=True)
class Payload(SignalPayload):  # type: ignore[misc]  # Kindling ships no types
    """What one signal says. Treat it as frozen: Kindling's base class is not, so this cannot be.

    Every field of a subclass is None until given, because one class serves the signals of a family.
    ``SIGNALS`` names the family's signals and the fields each carries; a trailing ``?`` marks a field
    that is sent only when there is something to say.

    Args:
        signal: The signal's name.
        operation_id: The same in all signals of one operation, where the emitter links them.
        timestamp: Unix seconds; when the payload was made, unless the emitter said otherwise.
        extra: Keywords that the family does not know, kept as plain data.
        missing: Names of required fields the emitter did not send (only after ``decode``).
    """

    SIGNALS: ClassVar[Mapping[str, str]] = {}
    DESCRIBED: ClassVar[frozenset[str]] = frozenset()
    """Fields of which only a description is ever kept."""

    signal: str
    operation_id: str | None = None
    timestamp: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Kindling's own makes a random id and formats the time in each payload: more than the signal costs.
        if self.timestamp is None:
            self.timestamp = time.time()

    @property
    def namespace(self) -> str:
        """The signal's part before the first dot."""
        return self.signal.partition(".")[0]

    def to_kwargs(self) -> dict[str, Any]:
        """The keyword form a Kindling subscriber expects.

        All required fields of the signal (None where unset, as Kindling sends them), all others that
        are set, and ``extra``. What ``missing`` names is left out: it was not sent before either.
        """
        cls: Any = type(self)
        # Copied whole and thinned out: emitting is a hot path, and this is half the cost of picking.
        made = self.__dict__.copy()
        del made["signal"], made["extra"], made["missing"]
        for name in _sent_when_set(cls, self.signal):
            if made[name] is None:
                del made[name]
        if self.missing:
            for name in self.missing:
                made.pop(name, None)
        if self.extra:
            # Not over the fields: a payload's own word counts.
            made = {**self.extra, **made}
        return made

    def to_dict(self) -> dict[str, Any]:
        """The same as ``to_kwargs``, under the name Kindling's base class gives it."""
        return self.to_kwargs()

    def to_data(self) -> dict[str, Any]:
        """The payload as plain data: bounded, no live objects, secrets masked."""
        sent = self.to_kwargs()
        fields_ = {name: self.safe(name, sent[name]) for name in field_types(type(self)) if name in sent}
        return {
            "signal": self.signal,
            "operation_id": plain(self.operation_id),
            "timestamp": plain(self.timestamp),
            "fields": fields_,
            "extra": plain(dict(self.extra)),
            "missing": list(self.missing),
        }

    @classmethod
    def safe(cls, name: str, value: Any) -> Any:
        """A field's value as plain data, or as its description where no more may be kept."""
        if name in cls.DESCRIBED and not issubclass(type(value), str):
            return None if value is None else describe(value)
        return plain(value, name)

    def to_json(self) -> str:
        """``to_data`` as one line of JSON; ``from_json`` reads it back."""
        return json.dumps(self.to_data(), sort_keys=True, separators=(",", ":"))


@dataclass(kw_only=True)
class FailurePayload(Payload):
    """What every ``*_failed`` signal says, and the few others that report an error.

    Args:
        error: The error's text.
        error_type: The exception's class name.
        suggestion: What to do about it.
        where: Innermost ``file:line`` of the app.
        traceback: The full text.
    """

    error: str | None = None
    error_type: str | None = None
    suggestion: str | None = None
    where: str | None = None
    traceback: str | None = None

    @property
    def error_text(self) -> str:
        """The error's text, whatever field the signal carries it in; empty when it gives none."""
        return str(self.error or "")


_BASE: Final = frozenset({"operation_id", "timestamp", *ENVELOPE})


def field_types(payload: type[Payload]) -> Mapping[str, str]:
    """The payload's own fields and their types as written, without ``| None``, in order."""
    return _layout(payload).types


def wire_fields(payload: type[Payload], signal: str) -> WireFields:
    """Which fields ``signal`` carries; both empty for a signal that is not of the payload's family."""
    return _layout(payload).wire.get(signal, _NO_FIELDS)


class _Layout(NamedTuple):
    """What is worked out once for each payload class."""

    types: Mapping[str, str]
    wire: Mapping[str, WireFields]


_NO_FIELDS: Final = WireFields((), ())


# Typed Any: mypy takes a class whose instances cannot be hashed for unhashable itself.
def _layout(payload: Any) -> _Layout:
    return _layout_of(payload)


@cache
def _layout_of(payload: type[Payload]) -> _Layout:
    wire = {}
    for signal, text in payload.SIGNALS.items():
        words = text.split()
        required = tuple(word for word in words if not word.endswith("?"))
        wire[signal] = WireFields(required, tuple(word[:-1] for word in words if word.endswith("?")))
    types = {
        each.name: str(each.type).removesuffix(" | None")
        for each in fields(payload)
        if each.name not in _BASE
    }
    return _Layout(types, wire)


# Bounded: a payload may carry any text as its signal's name.
@lru_cache(maxsize=4_096)
def _sent_when_set(payload: type[Payload], signal: str) -> tuple[str, ...]:
    required = wire_fields(payload, signal).required
    return tuple(
        each.name for each in fields(payload) if each.name not in required and each.name not in ENVELOPE
    )
