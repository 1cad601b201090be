"""ExecutionOrchestrator: graph → plan → run, and the signals that tell of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from kindling.signaling import SignalProvider

from kindling_dagster.dag.cache import EntityCache
from kindling_dagster.dag.cancellation import Canceller
from kindling_dagster.dag.executor import GenerationExecutor, PipeExecutor
from kindling_dagster.dag.plan import ExecutionPlan, ExecutionPlanGenerator
from kindling_dagster.dag.results import ExecutionResult, PipeError, PipeResult, PipeStatus
from kindling_dagster.dag.strategy import ExecutionStrategy
from kindling_dagster.engines.base import PipeFinished, PipeRetrying, PipeStarted, RunEvent, RunOptions
from kindling_dagster.manifest import Manifest
from kindling_dagster.signals.dispatch import SignalDispatcher
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.payloads import (
    ExecutionFailedPayload,
    ExecutionPayload,
    GenerationPayload,
    Payload,
    PlannedPipeFailedPayload,
    PlannedPipePayload,
    PlanPayload,
)
from kindling_dagster.signals.settings import SignalSettings

_SKIPPED = (PipeStatus.SKIPPED, PipeStatus.UPSTREAM_FAILED, PipeStatus.NOT_STARTED)
_CANCELLED = (PipeStatus.CANCELLED, PipeStatus.NOT_STARTED)


class ExecutionOrchestrator(AsyncSignalEmitter):
    """Coordinates planning and execution of an app's pipes. One orchestrator serves one execution at a time.

    Args:
        manifest: What the app declares.
        pipe_executor: Runs one pipe, on a thread of its own.
        signals: Where the signals go; without one nothing is sent.
        options: How to run.
        canceller: Ends what pipes run outside their Python code.
        on_event: Called the moment something happens, always on the thread that called ``execute``.
        durations: Seconds that pipes took in the past, where known.
        cache: Shares frames among pipes that read the same entity; None for no caching.
        run_id: Named in every signal; made up when empty.
        dispatcher: Delivers asynchronous signals; one of its own when None.
        grace: Seconds before a cancelled pipe is interrupted, and again before it is given up on.
    """

    EMITS: ClassVar[list[str]] = [
        "orchestrator.plan_generated",
        "orchestrator.execution_started",
        "orchestrator.generation_started",
        "orchestrator.generation_completed",
        "orchestrator.pipe_started",
        "orchestrator.pipe_retrying",
        "orchestrator.pipe_completed",
        "orchestrator.pipe_skipped",
        "orchestrator.pipe_failed",
        "orchestrator.pipe_timed_out",
        "orchestrator.pipe_stuck",
        "orchestrator.pipe_cancelled",
        "orchestrator.execution_completed",
        "orchestrator.execution_failed",
        "orchestrator.execution_cancelled",
    ]

    def __init__(
        self,
        manifest: Manifest,
        pipe_executor: PipeExecutor,
        *,
        signals: SignalProvider | None = None,
        options: RunOptions | None = None,
        canceller: Canceller | None = None,
        on_event: Callable[[RunEvent], None] | None = None,
        durations: Mapping[str, float] | None = None,
        cache: EntityCache | None = None,
        run_id: str = "",
        dispatcher: SignalDispatcher | None = None,
        grace: float = 10.0,
    ) -> None:
        self._init_signal_emitter(signals, SignalSettings.from_config(manifest.settings), dispatcher)
        self._manifest = manifest
        self._pipe_executor = pipe_executor
        self._options = options or RunOptions()
        self._on_event = on_event
        self._cache = cache
        self._run_id = run_id or str(uuid.uuid4())
        self._executor = GenerationExecutor.from_options(
            self._options, durations=durations, canceller=canceller, on_event=self._handle, grace=grace
        )
        self._progress: _Progress | None = None

    def plan(self, pipe_ids: Iterable[str], strategy: ExecutionStrategy | None = None) -> ExecutionPlan:
        """The plan for these pipes; raises PlanError and CycleError as ``ExecutionPlanGenerator`` does."""
        return ExecutionPlanGenerator(self._manifest, strategy).generate_plan(pipe_ids)

    def execute(self, pipe_ids: Iterable[str], strategy: ExecutionStrategy | None = None) -> ExecutionResult:
        """Plan pipes and run them, on the calling thread.

        Args:
            pipe_ids: The pipes, in any order.
            strategy: How to order them; chosen by what they are when left out.

        Raises:
            PlanError: The pipes cannot run as asked.
            CycleError: They depend on each other in a circle.
        """
        return self.execute_plan(self.plan(pipe_ids, strategy))

    def execute_plan(self, plan: ExecutionPlan) -> ExecutionResult:
        """Run a plan to its end, on the calling thread. Failures are in the result, not raised."""
        self._progress = _Progress(plan)
        self._tell(
            PlanPayload(
                signal="orchestrator.plan_generated",
                strategy=plan.strategy,
                pipe_ids=list(plan.pipe_ids),
                pipe_count=len(plan.pipe_ids),
                generation_count=len(plan.generations),
                max_parallelism=max(map(len, plan.generations), default=0),
                metadata={"generations": list(map(list, plan.generations)), "warnings": list(plan.warnings)},
                run_id=self._run_id,
            )
        )
        self._tell(
            ExecutionPayload(
                signal="orchestrator.execution_started",
                run_id=self._run_id,
                strategy=plan.strategy,
                mode="barrier" if self._options.barrier else "data_flow",
                pipe_count=len(plan.pipe_ids),
                generation_count=len(plan.generations),
                parallel=self._options.parallel,
            )
        )
        if self._cache is not None:
            self._cache.begin(plan)
        try:
            result = self._executor.execute_plan(plan, self._pipe_executor)
        finally:
            if self._cache is not None:
                self._cache.end()
        self._report_end(result)
        return result

    def cancel(self, reason: str = "the run was cancelled") -> None:
        """Cancel what runs and start nothing more. Any thread; returns at once."""
        self._executor.cancel(reason)

    def _handle(self, event: RunEvent) -> None:
        assert self._progress is not None
        match event:
            case PipeStarted(pipe_id, attempt, _):
                generation = self._progress.start(pipe_id)
                if generation is not None:
                    self._report_generation_start(generation)
                if attempt == 1:
                    self._tell(
                        PlannedPipePayload(
                            signal="orchestrator.pipe_started",
                            run_id=self._run_id,
                            pipe_id=pipe_id,
                            is_streaming=False,
                        )
                    )
            case PipeFinished(result):
                if self._cache is not None:
                    self._cache.done(result.pipe_id)
                self._tell(self._pipe_payload(result))
                generation = self._progress.finish(result)
                if generation is not None:
                    self._report_generation_end(generation)
            case PipeRetrying() if self._signal_provider is not None:
                self._tell(self._retrying_payload(event))
                return  # whoever hears the signal need not read it in a log line as well
            case _:
                pass
        if self._on_event is not None:
            self._on_event(event)

    def _pipe_payload(self, result: PipeResult) -> Payload:
        shared: dict[str, Any] = {
            "run_id": self._run_id,
            "pipe_id": result.pipe_id,
            "duration_seconds": result.duration_seconds or 0.0,
        }
        if result.status is PipeStatus.SUCCEEDED:
            return PlannedPipePayload(
                signal="orchestrator.pipe_completed", is_streaming=False, attempts=result.attempts, **shared
            )
        if result.status is PipeStatus.CANCELLED:
            return PlannedPipePayload(
                signal="orchestrator.pipe_cancelled", reason=result.reason or "cancelled", **shared
            )
        if result.status in _SKIPPED or result.error is None:
            return PlannedPipePayload(
                signal="orchestrator.pipe_skipped",
                reason=result.reason or result.status.value,
                upstream_pipe=result.cause or None,
                **shared,
            )
        return self._failure_payload(result, result.error, shared)

    def _retrying_payload(self, event: PipeRetrying) -> Payload:
        return PlannedPipeFailedPayload(
            signal="orchestrator.pipe_retrying",
            run_id=self._run_id,
            pipe_id=event.pipe_id,
            attempt=event.attempt,
            max_attempts=event.attempts,
            error=event.error.message if event.error else "it ended without a result",
            error_type=event.error.type if event.error else "Error",
            suggestion=(event.error.suggestion or None) if event.error else None,
            interval_seconds=event.pause,
        )

    def _failure_payload(self, result: PipeResult, error: PipeError, shared: dict[str, Any]) -> Payload:
        told = {
            **shared,
            "error": error.message,
            "error_type": error.type,
            "suggestion": error.suggestion or None,
        }
        if result.status is PipeStatus.TIMED_OUT:
            options = self._options.pipes.get(result.pipe_id)
            limit = options.timeout if options else None
            return PlannedPipeFailedPayload(signal="orchestrator.pipe_timed_out", limit_seconds=limit, **told)
        if result.status is PipeStatus.STUCK:
            return PlannedPipeFailedPayload(signal="orchestrator.pipe_stuck", **told)
        return PlannedPipeFailedPayload(signal="orchestrator.pipe_failed", attempts=result.attempts, **told)

    def _report_generation_start(self, generation: int) -> None:
        assert self._progress is not None
        pipes = self._progress.plan.generations[generation]
        self._tell(
            GenerationPayload(
                signal="orchestrator.generation_started",
                run_id=self._run_id,
                generation=generation,
                pipe_ids=list(pipes),
                pipe_count=len(pipes),
            )
        )

    def _report_generation_end(self, generation: int) -> None:
        assert self._progress is not None
        results = self._progress.results(generation)
        success, failed, skipped = _counts(results)
        self._tell(
            GenerationPayload(
                signal="orchestrator.generation_completed",
                run_id=self._run_id,
                generation=generation,
                success_count=success,
                failed_count=failed,
                skipped_count=skipped,
                duration_seconds=self._progress.duration(generation),
            )
        )

    def _report_end(self, result: ExecutionResult) -> None:
        success, failed, skipped = _counts(result.results.values())
        metrics = self._cache.metrics() if self._cache is not None else {}
        if result.cancelled:
            self._tell(
                ExecutionPayload(
                    signal="orchestrator.execution_cancelled",
                    run_id=self._run_id,
                    success_count=success,
                    failed_count=failed,
                    skipped_count=skipped,
                    cancelled_count=sum(r.status in _CANCELLED for r in result.results.values()),
                    duration_seconds=result.duration_seconds,
                    reason=result.cancelled,
                )
            )
            return
        if result.failed:
            first = result.failed[0]
            self._tell(
                ExecutionFailedPayload(
                    signal="orchestrator.execution_failed",
                    run_id=self._run_id,
                    error=f"{len(result.failed)} of {len(result.results)} pipes failed",
                    error_type=first.error.type if first.error else first.status.value,
                    duration_seconds=result.duration_seconds,
                    failed_pipes=[pipe.pipe_id for pipe in result.failed],
                    cache_metrics=metrics,
                )
            )
        self._tell(
            ExecutionPayload(
                signal="orchestrator.execution_completed",
                run_id=self._run_id,
                success_count=success,
                failed_count=failed,
                skipped_count=skipped,
                duration_seconds=result.duration_seconds,
                all_succeeded=result.ok,
                cache_metrics=metrics,
            )
        )

    def _tell(self, payload: Payload) -> None:
        self.emit_payload(payload)


class _Progress:
    """Which generations have begun and ended: with data flow several are under way at once."""

    def __init__(self, plan: ExecutionPlan) -> None:
        self.plan = plan
        self._begun: dict[int, float] = {}
        self._ended: dict[int, float] = {}
        self._results: dict[int, list[PipeResult]] = {}

    def start(self, pipe_id: str) -> int | None:
        """The pipe's generation when this is its first start of all; else None."""
        generation = self.plan.generation_of[pipe_id]
        if generation in self._begun:
            return None
        self._begun[generation] = time.monotonic()
        return generation

    def finish(self, result: PipeResult) -> int | None:
        """The pipe's generation when this was its last pipe; else None."""
        generation = self.plan.generation_of[result.pipe_id]
        ended = self._results.setdefault(generation, [])
        ended.append(result)
        if len(ended) < len(self.plan.generations[generation]):
            return None
        self._ended[generation] = time.monotonic()
        return generation

    def results(self, generation: int) -> list[PipeResult]:
        return self._results.get(generation, [])

    def duration(self, generation: int) -> float:
        """Seconds from the generation's first start to its last end; 0 when nothing of it started."""
        begun = self._begun.get(generation)
        return 0.0 if begun is None else self._ended[generation] - begun


def _counts(results: Iterable[PipeResult]) -> tuple[int, int, int]:
    """How many succeeded, went wrong, and did nothing (no new data, or never started)."""
    statuses = [result.status for result in results]
    success = statuses.count(PipeStatus.SUCCEEDED)
    skipped = sum(status in _SKIPPED for status in statuses)
    return success, len(statuses) - success - skipped, skipped
