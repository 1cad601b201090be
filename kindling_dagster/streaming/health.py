"""What a query's last observations say of its health: pure judgement, no Spark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kindling_dagster.streaming.model import StreamError, StreamHealth, StreamingQueryConfig, StreamMetrics


class Verdict(NamedTuple):
    """How a query is, and why, in words."""

    health: StreamHealth
    reason: str = ""


@dataclass(frozen=True)
class Observation:
    """One look at a query. Times in Unix seconds; None where Spark did not say."""

    at: float
    started_at: float | None = None
    active: bool | None = None
    data_available: bool | None = None
    trigger_active: bool | None = None
    message: str = ""
    error: StreamError | None = None
    unanswered_since: float | None = None
    metrics: StreamMetrics = field(default_factory=StreamMetrics)


def judge(history: Sequence[Observation], config: StreamingQueryConfig, now: float) -> Verdict:
    """The health that observations (oldest first) of one start of a query show."""
    raise NotImplementedError
