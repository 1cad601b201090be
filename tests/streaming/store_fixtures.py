"""What the store's tests share: data to put into a store, and a clock."""

from __future__ import annotations

import uuid

from kindling_dagster.streaming.model import Command, HostInfo, StreamError

ERROR = StreamError("AnalysisException", "no such column", 12.5, "permanent", "Mend the schema.")


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def a_host(host_id: str = "host-1", **more: object) -> HostInfo:
    return HostInfo(host_id, 0, **more)  # type: ignore[arg-type]


def a_command(action: str, stream_id: str = "orders", id_: str | None = None, **more: object) -> Command:
    return Command(id_ or uuid.uuid4().hex, action, stream_id, **more)  # type: ignore[arg-type]
