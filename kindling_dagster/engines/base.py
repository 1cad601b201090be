"""The engine interface: a plan goes in as plain data, events come out as they happen. Free of Dagster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kindling_dagster.dag.results import PipeError, PipeResult


@dataclass(frozen=True)
class PipeOptions:
    """Options of one pipe, all resolved.

    Args:
        full_refresh: Read everything, ignoring watermarks.
        timeout: Seconds after which the pipe is cancelled; None for no limit.
        attempts: How often to try in all, at least 1.
        backoff: Seconds before the second attempt; doubles each time.
    """

    full_refresh: bool = False
    timeout: float | None = None
    attempts: int = 1
    backoff: float = 1.0


@dataclass(frozen=True)
class RunOptions:
    """Options of one execution, all resolved; JSON-ready.

    Args:
        max_workers: How many pipes may run at once when ``parallel``.
        parallel: Run independent pipes at the same time.
        barrier: Finish one generation before the next starts (strict generations).
        error_strategy: ``fail_fast``, ``continue`` or ``skip_dependents``.
        watermarks: Turn Kindling's watermarks on where its platform leaves them off.
        auto_cache: Cache entities that several pipes of the run read.
        cache_level: Spark's storage level for that, by name.
        cache_max_bytes: Larger entities are not cached; None for no limit.
        entity_tags: Per-run tag overrides by entity id, Kindling's channel for windows.
        pipes: Options by pipe id; a pipe that is not named gets ``PipeOptions()``.
        reprocess: By pipe id, the version whose rows are recomputed instead of all.
    """

    max_workers: int = 4
    parallel: bool = False
    barrier: bool = False
    error_strategy: str = "skip_dependents"
    watermarks: bool = False
    auto_cache: bool = False
    cache_level: str = "MEMORY_AND_DISK"
    cache_max_bytes: int | None = None
    entity_tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pipes: Mapping[str, PipeOptions] = field(default_factory=dict)
    reprocess: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRequest:
    """What an engine is asked to run; JSON-ready.

    Args:
        run_id: Tags Spark jobs.
        pipe_ids: The pipes, in any order.
        options: How to run them.
        durations: Seconds that pipes took in the past, where known.
        signals: Names of an app's own signals to hand on, beside those that are known.
        checks: By entity, the checks of its table to make once it is written, and which of them hold
            back what depends on it.
    """

    run_id: str
    pipe_ids: tuple[str, ...]
    options: RunOptions = field(default_factory=RunOptions)
    durations: Mapping[str, float] = field(default_factory=dict)
    signals: tuple[str, ...] = ()
    checks: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)


@dataclass(frozen=True)
class PipeStarted:
    """A pipe began (its ``attempt``-th try)."""

    pipe_id: str
    attempt: int
    at: float


@dataclass(frozen=True)
class PipeFinished:
    """A pipe ended, in whatever way; given the moment it is known."""

    result: PipeResult


@dataclass(frozen=True)
class SignalSeen:
    """A signal was emitted while the run went on. ``payload`` is JSON: no frames, no secrets."""

    name: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class LogLine:
    """Something worth telling a person. ``level`` is a name of the logging module, in lower case."""

    level: str
    message: str


@dataclass(frozen=True)
class PipeRetrying(LogLine):
    """A pipe failed in its ``attempt``-th try and will be tried again after ``pause`` seconds."""

    pipe_id: str
    attempt: int
    attempts: int
    pause: float
    error: PipeError | None = None


RunEvent = PipeStarted | PipeFinished | SignalSeen | LogLine


class Engine(Protocol):
    """Runs a plan somewhere. One engine serves one project."""

    def run(self, request: RunRequest) -> Iterator[RunEvent]:
        """Run the request, giving events as they happen; ends when all pipes ended.

        Closing the iterator early (also by an exception in the consumer) cancels the run: running
        Spark jobs are ended, awaited, and nothing is committed afterwards.
        """

    def close(self) -> None:
        """Let go of Spark: a session this engine started is stopped. Can be called twice."""
