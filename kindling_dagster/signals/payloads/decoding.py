"""From a Kindling signal's keywords, or from JSON, to a typed payload."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any, Final

from kindling_dagster.signals.errors import PayloadError
from kindling_dagster.signals.payloads import batch, entities, services, streams
from kindling_dagster.signals.payloads.base import FailurePayload, Payload, field_types, wire_fields
from kindling_dagster.signals.plain import plain

PAYLOAD_CLASSES: Final[tuple[type[Payload], ...]] = (
    batch.PipeRunPayload,
    batch.PipeExecutePayload,
    batch.PipeFailedPayload,
    batch.LineagePayload,
    batch.PlanPayload,
    batch.ExecutionPayload,
    batch.ExecutionFailedPayload,
    batch.GenerationPayload,
    batch.PlannedPipePayload,
    batch.PlannedPipeFailedPayload,
    batch.CachePayload,
    batch.StagePayload,
    batch.StageFailedPayload,
    entities.EntityRegisterPayload,
    entities.EntityResolvePayload,
    entities.EntityAccessPayload,
    entities.EntityFailedPayload,
    entities.PersistPayload,
    entities.PersistFailedPayload,
    entities.WatermarkPayload,
    entities.WatermarkFailedPayload,
    streams.StreamQueryPayload,
    streams.StreamQueryFailedPayload,
    streams.StreamHealthPayload,
    streams.StreamExceptionPayload,
    streams.StreamRecoveryPayload,
    streams.StreamRecoveryFailedPayload,
    streams.SparkQueryPayload,
    streams.StreamRunPayload,
    streams.StreamRunFailedPayload,
    streams.DimensionChangePayload,
    streams.StreamRestartPayload,
    services.FileIngestionPayload,
    services.FileIngestionFailedPayload,
    services.DeploymentPayload,
    services.DeploymentFailedPayload,
    services.ConfigPayload,
    services.ConfigFailedPayload,
    services.SubscriberFailedPayload,
)

PAYLOAD_BY_SIGNAL: Final[Mapping[str, type[Payload]]] = MappingProxyType(
    {signal: payload for payload in PAYLOAD_CLASSES for signal in payload.SIGNALS}
)


def payload_class(signal: str) -> type[Payload]:
    """The payload class of a signal; ``UnknownPayload`` for one that is not known."""
    return PAYLOAD_BY_SIGNAL.get(signal, services.UnknownPayload)


def decode(signal: str, kwargs: Mapping[str, Any]) -> Payload:
    """The typed payload of a signal as a subscriber received it. Never raises.

    Live objects become short descriptions, secrets are masked, keywords the family does not know go to
    ``extra`` and required ones that were not sent are named in ``missing``.

    >>> payload = decode("datapipes.after_pipe", {"pipe_id": "p", "duration_seconds": 1.5, "shard": 3})
    >>> payload.pipe_id, payload.extra, payload.missing
    ('p', {'shard': 3}, ('pipe_name', 'run_id'))
    """
    payload = payload_class(signal)
    names = field_types(payload)
    known: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for name, value in kwargs.items():
        if name in names:
            known[name] = payload.safe(name, value)
        elif name == "operation_id":
            known[name] = None if value is None else str(plain(value))
        elif name == "timestamp":
            known[name] = _unix_seconds(value)
        else:
            unknown[name] = value
    if known.get("timestamp", 0.0) is None:
        del known["timestamp"]
        if kwargs["timestamp"] is not None:
            unknown["timestamp"] = kwargs["timestamp"]
    _split_exception(payload, kwargs, known)
    missing = tuple(
        name for name in wire_fields(payload, signal).required if name not in kwargs and name not in known
    )
    return payload(signal=signal, extra=plain(unknown), missing=missing, **known)


def _split_exception(payload: type[Payload], kwargs: Mapping[str, Any], known: dict[str, Any]) -> None:
    """Where an exception came as ``error``, put its text there and its class's name in ``error_type``."""
    error = kwargs.get("error")
    if issubclass(type(error), BaseException) and issubclass(payload, FailurePayload):
        known.setdefault("error_type", type(error).__name__)
        prefix = f"{type(error).__name__}: "
        known["error"] = str(known["error"]).removeprefix(prefix)


def _unix_seconds(value: Any) -> float | None:
    """A time as Unix seconds; None for what is no time. Text without a zone is UTC, as Kindling writes it."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value.removesuffix("Z"))  # Python 3.10 does not know the Z
        if isinstance(value, datetime):
            zoned = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
            return zoned.timestamp()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except Exception:  # no time, one out of range, or an object that raises when looked at
        return None
    return None


def from_data(data: Any) -> Payload:
    """The payload that ``to_data`` made ``data`` from. Fields this version does not know go to ``extra``.

    Raises:
        PayloadError: ``data`` does not have that form.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("signal"), str):
        raise PayloadError("This is not a signal's payload: it names no signal.", _ASK)
    signal = data["signal"]
    fields, extra = data.get("fields", {}), data.get("extra", {})
    missing, timestamp = data.get("missing", ()), data.get("timestamp")
    if not isinstance(fields, Mapping) or not isinstance(extra, Mapping):
        raise PayloadError(f"The payload of {signal} has no mapping of fields.", _ASK)
    if isinstance(missing, str) or not isinstance(missing, Sequence):
        raise PayloadError(f"The payload of {signal} does not list its missing fields.", _ASK)
    payload = payload_class(signal)
    names = field_types(payload)
    return payload(
        signal=signal,
        operation_id=None if data.get("operation_id") is None else str(data["operation_id"]),
        timestamp=_unix_seconds(timestamp),
        extra={**extra, **{name: value for name, value in fields.items() if name not in names}},
        missing=tuple(str(name) for name in missing),
        **{name: value for name, value in fields.items() if name in names},
    )


def from_json(text: str) -> Payload:
    """The payload that ``to_json`` wrote.

    Raises:
        PayloadError: ``text`` is not JSON, or not a payload's.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"This is not a signal's payload: {error}.", _ASK) from error
    return from_data(data)


_ASK: Final = "Give it what a payload's to_data or to_json returned."
