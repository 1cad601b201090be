"""KindlingStreamingListener: Spark's streaming events as signals and as plain data, never holding Spark up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class SparkEvent:
    """One event of Spark's. ``query_id`` and ``run_id`` are Spark's; ``at`` is Unix seconds."""

    kind: Literal["started", "progress", "idle", "terminated"]
    query_id: str
    run_id: str
    at: float
    name: str = ""
    progress: Mapping[str, Any] = field(default_factory=dict)
    exception: str = ""
    error_class: str = ""


OnEvent = Callable[[SparkEvent], None]
