"""The durable store of streams: desired states, leases, statuses, history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    # On demand: it brings in SQLAlchemy and Alembic, which definitions do without.
    if name == "StreamStore":
        from kindling_dagster.streaming.store.store import StreamStore

        return StreamStore
    raise AttributeError(f"module {__name__} has no attribute {name}")
