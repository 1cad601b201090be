"""What executing pipes gives: plain data, ready for JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cattrs import Converter


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
    what is known of the commit (rows, bytes, version …). ``error`` holds back what depends on the pipe
    although it has run: it counts as failed, and is not tried again.
    """

    skipped: bool = False
    reason: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    error: PipeError | None = None


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
    def held_back(self) -> bool:
        """Whether it ran to its end, and counts as failed for what it left: what depends on it must not run."""
        return self.status is PipeStatus.FAILED and bool(self.metadata)

    @property
    def committed(self) -> bool:
        """Whether it ran to its end and wrote, whatever is thought of that."""
        return self.status is PipeStatus.SUCCEEDED or (self.held_back and "commits" in self.metadata)

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from first start to end; None for a pipe that never started."""
        if self.started_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.started_at


@dataclass(frozen=True)
class GenerationResult:
    """How a set of pipes ended: one generation, or (as ExecutionResult) a whole execution.

    ``results`` holds every pipe exactly once, in the order they were given. Times are Unix seconds.
    ``cancelled`` says why the run was cancelled from outside; empty when it was not.
    """

    results: Mapping[str, PipeResult]
    started_at: float
    ended_at: float
    cancelled: str = ""
    generation: int = 0

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """How many pipes ended in which way, by status value; ways that did not occur are left out."""
        return dict(Counter(result.status.value for result in self.results.values()))

    @cached_property
    def succeeded(self) -> tuple[PipeResult, ...]:
        """Pipes that committed or had nothing to do."""
        return tuple(result for result in self.results.values() if result.status.ok)

    @cached_property
    def failed(self) -> tuple[PipeResult, ...]:
        """Pipes that went wrong themselves: failed, timed out or stuck."""
        own = (PipeStatus.FAILED, PipeStatus.TIMED_OUT, PipeStatus.STUCK)
        return tuple(result for result in self.results.values() if result.status in own)

    @cached_property
    def not_run(self) -> tuple[PipeResult, ...]:
        """Pipes that were cancelled or never started, because of something else."""
        without = {result.pipe_id for result in (*self.succeeded, *self.failed)}
        return tuple(result for result in self.results.values() if result.pipe_id not in without)

    @property
    def ok(self) -> bool:
        """Whether every pipe succeeded or had nothing to do."""
        return len(self.succeeded) == len(self.results)

    @property
    def duration_seconds(self) -> float:
        """Seconds from start to end."""
        return self.ended_at - self.started_at

    def to_json(self) -> str:
        """Everything as indented JSON, with the counts."""
        return json.dumps({**self.to_dict(), "counts": self.counts}, indent=1)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, lists, strings and numbers."""
        plain: dict[str, Any] = _converter().unstructure(self)
        return plain


@dataclass(frozen=True)
class ExecutionResult(GenerationResult):
    """How an execution of several generations ended; ``generation`` is always 0."""

    def of_generation(self, generation: int) -> GenerationResult:
        """The part of one generation, from its first start to its last end."""
        results = {
            pipe_id: result for pipe_id, result in self.results.items() if result.generation == generation
        }
        started = [result.started_at for result in results.values() if result.started_at is not None]
        ended = [result.ended_at for result in results.values() if result.ended_at is not None]
        return GenerationResult(
            results=results,
            started_at=min(started, default=self.started_at),
            ended_at=max(ended, default=self.started_at),
            cancelled=self.cancelled,
            generation=generation,
        )

    @cached_property
    def generations(self) -> tuple[GenerationResult, ...]:
        """The parts, generation by generation."""
        numbers = sorted({result.generation for result in self.results.values()})
        return tuple(self.of_generation(number) for number in numbers)


@cache
def _converter() -> Converter:
    # Here, because definitions load without it.
    from cattrs import Converter

    return Converter()
