"""The durable store of streams: desired states, leases, statuses, history."""

from kindling_dagster.streaming.store.errors import (
    ConflictError,
    LeaseLost,
    StoreCorrupted,
    StoreError,
    StoreReplaced,
    StoreUnavailable,
    StoreVersionError,
)
from kindling_dagster.streaming.store.location import default_store_url, redact
from kindling_dagster.streaming.store.store import StreamStore

__all__ = [
    "ConflictError",
    "LeaseLost",
    "StoreCorrupted",
    "StoreError",
    "StoreReplaced",
    "StoreUnavailable",
    "StoreVersionError",
    "StreamStore",
    "default_store_url",
    "redact",
]
