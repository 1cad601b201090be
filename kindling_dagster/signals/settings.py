"""SignalSettings: sync or async, naming, back-pressure; read from an app's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, Final, TypeVar

from kindling_dagster.signals.errors import SignalError
from kindling_dagster.signals.naming import NamingMode

PREFIX: Final = "kindling.signals."
"""Where the settings live among an app's settings."""


class Backpressure(str, Enum):
    """What an asynchronous emit does when a signal's queue is full."""

    BLOCK = "block"
    """Wait for space: nothing is lost, but by a subscriber that hangs (see ``stall_after``)."""
    DROP_OLDEST = "drop_oldest"
    """Never wait: the oldest waiting signal of that name is dropped and counted."""


@dataclass(frozen=True)
class SignalSettings:
    """How signals are emitted.

    Args:
        asynchronous: True or False for all signals, or patterns of names (``streaming.*``; ``!persist.*``
            for synchronous ones; the last that fits counts). None, and names no pattern fits: as the
            emitter says.
        naming: What a bad or undeclared name leads to at emit.
        allowed_names: Patterns of names that are accepted although they break the convention.
        backpressure: What happens when a queue is full.
        capacity: How many signals of one name may wait.
        max_workers: Threads that call subscribers.
        stall_after: Seconds without any progress of a full queue after which an emit under ``block``
            waits no longer: its subscriber hangs, and the run must go on. The oldest signal is dropped
            and counted as ``dropped``.
    """

    asynchronous: bool | tuple[str, ...] | None = None
    naming: NamingMode = NamingMode.WARN
    allowed_names: tuple[str, ...] = ()
    backpressure: Backpressure = Backpressure.BLOCK
    capacity: int = 1_000
    max_workers: int = 4
    stall_after: float = 30.0

    def is_async(self, signal: str, emitter: bool | Sequence[str] = False) -> bool:
        """Whether a signal is emitted asynchronously; ``emitter`` is its emitter's own choice."""
        for choice in (self.asynchronous, emitter):
            decided = _decide(choice, signal)
            if decided is not None:
                return decided
        return False

    def allows(self, signal: str) -> bool:
        """Whether a name is accepted whatever the convention says."""
        return any(fnmatchcase(signal, pattern) for pattern in self.allowed_names)

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> SignalSettings:
        """Read the settings from an app's settings, flattened to dotted keys.

        ``kindling.signals.async``, ``.naming``, ``.allowed_names``, ``.backpressure``, ``.capacity``,
        ``.max_workers``, ``.stall_after``; what is not there keeps its default.

        Raises:
            SignalError: A value that cannot be; it names the key and what is allowed.
        """
        given = {
            key[len(PREFIX) :]: value
            for key, value in config.items()
            if key.startswith(PREFIX) and value is not None
        }
        unknown = sorted(set(given) - set(_READERS))
        if unknown:
            raise SignalError(
                f"There is no setting {PREFIX}{unknown[0]}.", f"Known are: {', '.join(sorted(_READERS))}."
            )
        return SignalSettings(
            **{_READERS[key][0]: _READERS[key][1](key, value) for key, value in given.items()}
        )


def _decide(choice: bool | Sequence[str] | None, signal: str) -> bool | None:
    if choice is None or isinstance(choice, bool):
        return choice
    for pattern in reversed(choice):
        if fnmatchcase(signal, pattern.removeprefix("!")):
            return not pattern.startswith("!")
    return None


def _bad(key: str, value: object, allowed: str) -> SignalError:
    return SignalError(f"The setting {PREFIX}{key} is {value!r}.", f"It may be {allowed}.")


def _patterns(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise _bad(key, value, "a list of patterns")


def _async(key: str, value: Any) -> bool | tuple[str, ...]:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    return value if isinstance(value, bool) else _patterns(key, value)


_E = TypeVar("_E", bound=Enum)


def _one_of(kind: type[_E], key: str, value: Any) -> _E:
    if value is False:  # YAML reads a bare "off" as False
        value = "off"
    try:
        return kind(str(value).strip().lower())
    except ValueError:
        raise _bad(key, value, " or ".join(repr(member.value) for member in kind)) from None


def _number(key: str, value: Any, least: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not least <= number < float("inf"):
        raise _bad(key, value, f"a number from {least:g}")
    return number


_READERS: Final[Mapping[str, tuple[str, Any]]] = {
    "async": ("asynchronous", _async),
    "naming": ("naming", lambda key, value: _one_of(NamingMode, key, value)),
    "allowed_names": ("allowed_names", _patterns),
    "backpressure": ("backpressure", lambda key, value: _one_of(Backpressure, key, value)),
    "capacity": ("capacity", lambda key, value: int(_number(key, value, 1))),
    "max_workers": ("max_workers", lambda key, value: int(_number(key, value, 1))),
    "stall_after": ("stall_after", lambda key, value: _number(key, value, 0)),
}
