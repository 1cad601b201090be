"""A look that has found a change as the payload of a signal. Needs no Kindling, so that sensors can tell it too."""

from __future__ import annotations

from kindling_dagster.signals.payloads.streams import DimensionChangePayload
from kindling_dagster.streaming.dimensions.model import DimensionLook


def payload_of(found: DimensionLook) -> DimensionChangePayload:
    """A look that has found a change as the signal's payload."""
    return DimensionChangePayload(
        signal="streaming.dimension_changed",
        entity_id=found.entity_id,
        change_detection=found.method,
        change=found.change,
        previous_fingerprint=found.previous_fingerprint,
        fingerprint=found.fingerprint,
        version=found.version,
        operation=", ".join(found.operations) or None,
        new_count=found.new_count,
        closed_count=found.closed_count,
        changed_count=found.changed_count,
        reason=found.reason,
    )
