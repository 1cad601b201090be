"""Runs pipes: one scheduler loop, threads for the pipes, real time limits and cancellation."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from kindling_dagster.dag.cancellation import Canceller, NoCanceller
from kindling_dagster.dag.execution import Execution, Setup
from kindling_dagster.dag.results import ExecutionResult, GenerationResult, PipeOutcome
from kindling_dagster.dag.scheduling import ErrorStrategy, Workload
from kindling_dagster.engines.base import PipeOptions, RunEvent, RunOptions
from kindling_dagster.errors import PlanError, RunError

PipeExecutor = Callable[[str], "PipeOutcome | None"]
"""Runs one pipe by id, in a thread of its own; raises when the pipe fails."""


class PlanLike(Protocol):
    """What the executor reads of a plan."""

    @property
    def predecessors(self) -> Mapping[str, Collection[str]]:
        """Per pipe, the pipes that must end before it starts."""

    @property
    def ordering(self) -> Mapping[str, Collection[str]]:
        """Of the predecessors, those that need not have succeeded."""

    @property
    def generations(self) -> Sequence[Sequence[str]]:
        """The pipes, generation by generation."""


class GenerationExecutor:
    """Runs the pipes of one generation, or of a whole plan, sequentially or several at once.

    Both ways are one scheduler loop. It runs in the thread that calls; each pipe runs in a thread
    of its own. A pipe starts once its predecessors have ended, the head of the longest path first.

    A pipe that reaches its limit, and with ``fail_fast`` or ``cancel`` everything that runs, is
    cancelled for real: its Spark jobs are ended and its thread is awaited before it is said how it
    ended. If it turns out to have committed all the same, it has succeeded. Python code that does
    not end within ``grace`` seconds is interrupted; if it still lives after another ``grace``, the
    pipe is reported as stuck with its stack, is barred from writing, and the run goes on without it.

    Args:
        max_workers: How many pipes run at once when ``parallel``.
        parallel: Run pipes side by side; otherwise one after the other.
        error_strategy: ``fail_fast``, ``continue`` or ``skip_dependents``.
        barrier: Finish one generation before the next starts.
        pipe_timeout: Seconds a pipe may take, all its attempts together; None for no limit.
        attempts: How often to try a pipe in all. Errors that stay until someone changes something
            (a column that is not there) are not tried again.
        backoff: Seconds before the second attempt; doubles each time. Other pipes run meanwhile.
        pipe_options: Options by pipe id; they take the place of the three above as a whole.
        durations: Seconds that pipes took in the past, where known: what is longest starts first.
        canceller: Ends what pipes run outside their Python code.
        on_event: Called the moment something happens, always in the thread that called ``execute_…``.
        clock: Gives Unix seconds, for what is reported.
        grace: Seconds before a cancelled pipe is interrupted, and again before it is given up on.

    Raises:
        PlanError: An unknown error strategy, or numbers that make no sense.
    """

    def __init__(
        self,
        max_workers: int = 4,
        parallel: bool = False,
        *,
        error_strategy: str = ErrorStrategy.SKIP_DEPENDENTS.value,
        barrier: bool = False,
        pipe_timeout: float | None = None,
        attempts: int = 1,
        backoff: float = 1.0,
        pipe_options: Mapping[str, PipeOptions] | None = None,
        durations: Mapping[str, float] | None = None,
        canceller: Canceller | None = None,
        on_event: Callable[[RunEvent], None] | None = None,
        clock: Callable[[], float] = time.time,
        grace: float = 10.0,
    ) -> None:
        default = PipeOptions(timeout=pipe_timeout, attempts=attempts, backoff=backoff)
        for options in (default, *(pipe_options or {}).values()):
            _check_options(options)
        if max_workers < 1:
            raise PlanError(f"max_workers is {max_workers}.", "Let at least one pipe run.")
        self._durations = dict(durations or {})
        self._setup = Setup(
            workers=max_workers if parallel else 1,
            strategy=ErrorStrategy.of(error_strategy),
            barrier=barrier,
            default=default,
            options=dict(pipe_options or {}),
            canceller=canceller or NoCanceller(),
            on_event=on_event or _ignore,
            clock=clock,
            grace=grace,
        )
        self._lock = threading.Lock()
        self._execution: Execution | None = None
        self._cancelled: str | None = None

    @staticmethod
    def from_options(
        options: RunOptions,
        *,
        durations: Mapping[str, float] | None = None,
        canceller: Canceller | None = None,
        on_event: Callable[[RunEvent], None] | None = None,
        grace: float = 10.0,
    ) -> GenerationExecutor:
        """The executor that a run's resolved options ask for."""
        return GenerationExecutor(
            options.max_workers,
            options.parallel,
            error_strategy=options.error_strategy,
            barrier=options.barrier,
            pipe_options=options.pipes,
            durations=durations,
            canceller=canceller,
            on_event=on_event,
            grace=grace,
        )

    def execute_generation(
        self, generation: Sequence[str], pipe_executor: PipeExecutor, index: int = 0
    ) -> GenerationResult:
        """Run pipes that do not depend on each other.

        Args:
            generation: Pipe ids.
            pipe_executor: Runs one pipe.
            index: The generation's number, for the results.

        Raises:
            PlanError: A pipe is named twice.
        """
        if len(set(generation)) < len(generation):
            raise PlanError(f"A generation names a pipe twice: {', '.join(generation)}.")
        workload = Workload.of(
            dict.fromkeys(generation, ()),
            generations=dict.fromkeys(generation, index),
            durations=self._durations,
        )
        result = self._execute(workload, pipe_executor)
        return GenerationResult(
            results=result.results,
            started_at=result.started_at,
            ended_at=result.ended_at,
            cancelled=result.cancelled,
            generation=index,
        )

    def execute_plan(
        self, plan: PlanLike | Mapping[str, Collection[str]], pipe_executor: PipeExecutor
    ) -> ExecutionResult:
        """Run a plan as data flows through it: each pipe as soon as its predecessors have ended.

        Args:
            plan: An ExecutionPlan, or predecessors by pipe id.
            pipe_executor: Runs one pipe.

        Raises:
            PlanError: Pipes wait for each other in a circle.
        """
        if isinstance(plan, Mapping):
            workload = Workload.of(plan, durations=self._durations)
        else:
            generations = {
                pipe_id: number for number, pipes in enumerate(plan.generations) for pipe_id in pipes
            }
            ordered = {pipe_id: plan.predecessors.get(pipe_id, ()) for pipe_id in generations}
            workload = Workload.of(
                ordered, ordering=plan.ordering, generations=generations, durations=self._durations
            )
        return self._execute(workload, pipe_executor)

    def cancel(self, reason: str = "the run was cancelled") -> None:
        """Cancel what runs and start nothing more, now and later. Any thread; returns at once."""
        with self._lock:
            if self._cancelled is None:
                self._cancelled = reason
            if self._execution is not None:
                self._execution.cancel(self._cancelled)

    def _execute(self, workload: Workload, pipe_executor: PipeExecutor) -> ExecutionResult:
        context = contextvars.copy_context()
        execution = Execution(self._setup, workload, pipe_executor, context)
        with self._lock:
            if self._execution is not None:
                raise RunError("This executor is already running.", "Make one executor per run.")
            self._execution = execution
            if self._cancelled is not None:
                execution.cancel(self._cancelled)
        try:
            return execution.run()
        finally:
            with self._lock:
                self._execution = None


def _check_options(options: PipeOptions) -> None:
    if options.attempts < 1:
        raise PlanError(f"attempts is {options.attempts}.", "A pipe is tried at least once.")
    if options.timeout is not None and options.timeout <= 0:
        raise PlanError(f"A pipe's timeout is {options.timeout} s.", "Leave it out for no limit.")
    if options.backoff < 0:
        raise PlanError(f"A pipe's backoff is {options.backoff} s.", "Use 0 to try again at once.")


def _ignore(event: RunEvent) -> None:
    """Nobody listens."""
