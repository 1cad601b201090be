"""What executing pipes gives: plain data, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class PipeStatus(str, Enum):
    """How a pipe ended."""

    SUCCEEDED = "succeeded"
    """It ran and committed (or wrote to a provider without commits)."""
    SKIPPED = "skipped"
    """It had no new data to read."""
    FAILED = "failed"
    """It raised, on its last attempt."""
    TIMED_OUT = "timed_out"
    """Its time limit passed; its Spark jobs were cancelled and it committed nothing afterwards."""
    CANCELLED = "cancelled"
    """It was running when the run was cancelled or failed fast; nothing was committed afterwards."""
    UPSTREAM_FAILED = "upstream_failed"
    """It never started, because a pipe it depends on did not succeed."""
    NOT_STARTED = "not_started"
    """It never started, because the run was cancelled or failed fast before its turn."""
    STUCK = "stuck"
    """It was cancelled but its Python code did not end within the grace period; it is barred from writing."""

    @property
    def ok(self) -> bool:
        """Whether pipes downstream may run."""
        return self in (PipeStatus.SUCCEEDED, PipeStatus.SKIPPED)


@dataclass(frozen=True)
class PipeError:
    """One pipe's failure, structured.

    ``type`` is the exception's class name, ``suggestion`` what to do (may be empty), ``where`` the
    innermost ``file:line`` that belongs to the app (may be empty), ``traceback`` the full text.
    """

    pipe_id: str
    type: str
    message: str
    suggestion: str = ""
    where: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class PipeOutcome:
    """What a pipe executor returns for one pipe that did not raise.

    ``skipped`` means that there was no new data; ``reason`` says so in words. ``metadata`` is JSON:
    what is known of the commit (rows, bytes, version …).
    """

    skipped: bool = False
    reason: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PipeResult:
    """How one pipe of an execution ended.

    Times are Unix seconds; both are None for a pipe that never started. ``attempts`` counts tries.
    ``cause`` names the upstream pipe for ``UPSTREAM_FAILED``; ``reason`` is a sentence for people.
    """

    pipe_id: str
    status: PipeStatus
    generation: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    attempts: int = 0
    error: PipeError | None = None
    cause: str = ""
    reason: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from first start to end; None for a pipe that never started."""
        if self.started_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.started_at
