"""Payloads as metadata of Dagster events, and metadata made safe: bounded, plain, secrets masked."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from dagster import MetadataValue, TableSchema

from kindling_dagster.signals.bridge_outputs import OMITTED_METADATA, SIGNALS_METADATA
from kindling_dagster.signals.plain import plain, scrub_text

if TYPE_CHECKING:
    from kindling_dagster.signals.payloads import Payload

MAX_SIGNALS: Final = 50
MAX_BYTES: Final = 32_000
"""Limits of what one event carries; the newest are kept, and what is left out is counted."""

_MAX_TEXT: Final = 1_000
_MAX_ITEMS: Final = 50


class Carried:
    """The payloads of one event to come: the newest that fit, and how many did not."""

    def __init__(self, payloads: Iterable[Payload] = ()) -> None:
        self._kept: deque[tuple[dict[str, Any], int]] = deque()
        self._bytes = 0
        self.omitted = 0
        for payload in payloads:
            self.add(payload)

    def add(self, payload: Payload) -> None:
        """Take one more; the oldest give way."""
        data = _shortened(payload.to_data())
        size = len(json.dumps(data))
        if size > MAX_BYTES:
            self.omitted += 1
        else:
            self._keep(data, size)

    def extend(self, other: Carried) -> None:
        """Take what another has."""
        self.omitted += other.omitted
        for data, size in other._kept:
            self._keep(data, size)

    def _keep(self, data: dict[str, Any], size: int) -> None:
        self._kept.append((data, size))
        self._bytes += size
        while len(self._kept) > MAX_SIGNALS or self._bytes > MAX_BYTES:
            self._bytes -= self._kept.popleft()[1]
            self.omitted += 1

    def __len__(self) -> int:
        return len(self._kept) + self.omitted

    def metadata(self) -> dict[str, Any]:
        """The entries for an event's metadata; empty when nothing was taken."""
        made: dict[str, Any] = {}
        if self._kept:
            made[SIGNALS_METADATA] = MetadataValue.json([data for data, _ in self._kept])
        if self.omitted:
            made[OMITTED_METADATA] = self.omitted
        return made


def _shortened(value: Any) -> Any:
    """Long texts and lists cut; a payload's own limits are wider, as a log's may be."""
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT else f"{value[:_MAX_TEXT]}… ({len(value)} characters)"
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        cut = [_shortened(item) for item in value[:_MAX_ITEMS]]
        return cut if len(value) <= _MAX_ITEMS else [*cut, f"… {len(value) - _MAX_ITEMS} more"]
    return value


def safe_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with every value as Dagster takes it, and no secret in any; what is None is left out."""
    return {key: _safe(key, value) for key, value in metadata.items() if value is not None}


def _safe(key: str, value: Any) -> Any:
    if isinstance(value, TableSchema):
        return value
    if isinstance(value, MetadataValue):
        return _safe_value(value)
    made = plain(value, key)
    return MetadataValue.json(made) if isinstance(made, dict | list) else made


def _safe_value(value: MetadataValue[Any]) -> MetadataValue[Any]:
    """The texts inside Dagster's own metadata values are masked too; kinds without free text stay as they are."""
    inner = value.value
    if isinstance(inner, str):
        clean = scrub_text(inner)
        return value if clean == inner else MetadataValue.text(clean)
    if isinstance(inner, dict | list):
        return MetadataValue.json(plain(inner))
    return value
