"""Requests and events of an engine as JSON, for engines whose pipes run in another process. Free of Dagster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import cattrs

from kindling_dagster import errors
from kindling_dagster.engines.base import (
    LogLine,
    PipeFinished,
    PipeRetrying,
    PipeStarted,
    RunEvent,
    RunRequest,
    SignalSeen,
)
from kindling_dagster.errors import KindlingDagsterError, RunError

_EVENTS: Mapping[str, type[RunEvent]] = {
    "pipe_started": PipeStarted,
    "pipe_finished": PipeFinished,
    "signal": SignalSeen,
    "retrying": PipeRetrying,
    "log": LogLine,
}
_NAMES = {kind: name for name, kind in _EVENTS.items()}
_KIND = "kind"
T = TypeVar("T")
_converter = cattrs.Converter()


def request_to_json(request: RunRequest) -> dict[str, Any]:
    """A request as plain data."""
    plain: dict[str, Any] = _plain(_converter.unstructure(request))
    return plain


def request_from_json(data: Mapping[str, Any]) -> RunRequest:
    """The request again.

    Raises:
        RunError: The data is none.
    """
    return _structure(data, RunRequest, "request")


def event_to_json(event: RunEvent) -> dict[str, Any]:
    """An event as plain data, with its kind."""
    return {_KIND: _NAMES[type(event)], **_plain(_converter.unstructure(event))}


def event_from_json(data: Mapping[str, Any]) -> RunEvent:
    """The event again; fields that a newer version has written are passed over.

    Raises:
        RunError: The data is none, or of a kind that this version does not know.
    """
    kind = _EVENTS.get(str(data.get(_KIND)))
    if kind is None:
        raise RunError(
            f"An engine told of an event of the kind {data.get(_KIND)!r}, which is not known here.",
            "Install the same version of kindling-dagster on both sides.",
        )
    return _structure({key: value for key, value in data.items() if key != _KIND}, kind, "event")


def error_to_json(error: BaseException) -> dict[str, str]:
    """What became of a run that could not go on: type, message and suggestion."""
    if isinstance(error, KindlingDagsterError):
        return {
            "type": type(error).__name__,
            "message": error.message,
            "suggestion": error.suggestion,
        }
    return {"type": type(error).__name__, "message": f"{type(error).__name__}: {error}", "suggestion": ""}


def error_from_json(data: Mapping[str, Any]) -> KindlingDagsterError:
    """The error again, of its own class where it is one of ours, else a ``RunError``."""
    kind = getattr(errors, str(data.get("type")), None)
    if not (isinstance(kind, type) and issubclass(kind, KindlingDagsterError)):
        kind = RunError
    made = KindlingDagsterError.__new__(kind)
    # Some have further arguments, which are about what the other side saw.
    KindlingDagsterError.__init__(made, str(data.get("message", "")), str(data.get("suggestion", "")))
    return made


def _plain(value: Any) -> Any:
    """What JSON makes of it: tuples as lists, enumerations as their values."""
    return json.loads(json.dumps(value))


def _structure(data: Mapping[str, Any], kind: type[T], name: str) -> T:
    try:
        return _converter.structure(data, kind)
    except Exception as error:  # cattrs passes on whatever a hook raised
        raise RunError(
            f"An engine's {name} cannot be read as {kind.__name__}: {error}.",
            "Install the same version of kindling-dagster on both sides.",
        ) from error
