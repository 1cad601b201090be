"""Asking one host to drain and end, so that a new one starts on new code. By the store, wherever it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kindling_dagster.streaming.store import ConflictError

if TYPE_CHECKING:
    from kindling_dagster.streaming.store import StreamStore

_KIND, _KEY = "host", "end"


def ask_to_end(store: StreamStore, host_id: str, reason: str) -> bool:
    """Ask the host ``host_id`` to end; other hosts are not meant. Gives whether it was asked by this call."""
    value, version = store.document(_KIND, _KEY)
    if isinstance(value, dict) and value.get("host_id") == host_id:
        return False
    try:
        store.put_document(_KIND, _KEY, {"host_id": host_id, "reason": reason}, expected=version)
    except ConflictError:
        # Somebody else asks at this moment; the next look sees what it was.
        return False
    return True


def asked_to_end(store: StreamStore, host_id: str) -> str | None:
    """Why the host ``host_id`` should drain and end; None when nobody asked it to."""
    value, _ = store.document(_KIND, _KEY)
    if isinstance(value, dict) and value.get("host_id") == host_id:
        return str(value.get("reason") or "asked to end")
    return None
