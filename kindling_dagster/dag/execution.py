"""The scheduler loop behind GenerationExecutor: one object per execution, all its state in one thread."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue

from kindling_dagster.dag.cancellation import Canceller
from kindling_dagster.dag.failures import Failure, where
from kindling_dagster.dag.pipe_thread import PipeThread
from kindling_dagster.dag.results import ExecutionResult, PipeError, PipeOutcome, PipeResult, PipeStatus
from kindling_dagster.dag.scheduling import ErrorStrategy, Frontier, Workload
from kindling_dagster.dag.termination import Terminator
from kindling_dagster.engines.base import (
    LogLine,
    PipeFinished,
    PipeOptions,
    PipeRetrying,
    PipeStarted,
    RunEvent,
)


@dataclass(frozen=True)
class Setup:
    """How to execute; see GenerationExecutor."""

    workers: int
    strategy: ErrorStrategy
    barrier: bool
    default: PipeOptions
    options: Mapping[str, PipeOptions]
    canceller: Canceller
    on_event: Callable[[RunEvent], None]
    clock: Callable[[], float]
    grace: float


@dataclass(frozen=True)
class _Stop:
    """Why and when a running pipe was told to end, and where its Python code was then."""

    status: PipeStatus
    reason: str
    cause: str
    at: float
    where: str
    stack: str


@dataclass
class _Active:
    """A pipe that has started and not ended: running, or waiting for its next attempt.

    ``deadline`` and ``retry_at`` are on the monotonic clock.
    """

    pipe_id: str
    options: PipeOptions
    started_at: float
    deadline: float | None
    attempt: int = 0
    thread: PipeThread | None = None
    stop: _Stop | None = None
    retry_at: float = 0.0
    failure: Failure | None = None


@dataclass(frozen=True)
class _Cancel:
    reason: str


_Message = PipeThread | _Cancel | LogLine


@dataclass(eq=False)
class Execution:
    """One execution of one workload. ``run`` is called once; ``cancel`` from any thread."""

    setup: Setup
    workload: Workload
    pipe_executor: Callable[[str], PipeOutcome | None]
    context: contextvars.Context
    _inbox: SimpleQueue[_Message] = field(default_factory=SimpleQueue)
    _running: dict[str, _Active] = field(default_factory=dict)
    _retrying: dict[str, _Active] = field(default_factory=dict)
    _results: dict[str, PipeResult] = field(default_factory=dict)
    _stuck: dict[PipeThread, str] = field(default_factory=dict)
    _cancelled: str = ""
    _given_up: str = ""
    _muted: bool = False

    def __post_init__(self) -> None:
        self._frontier = Frontier(self.workload, self.setup.strategy, barrier=self.setup.barrier)

    def cancel(self, reason: str) -> None:
        """Cancel what runs and start nothing more; returns at once."""
        self._inbox.put(_Cancel(reason))

    def run(self) -> ExecutionResult:
        """Run everything; returns when every pipe has a result.

        An exception from ``on_event`` (or a KeyboardInterrupt) cancels what runs, waits for it and
        goes on to the caller.
        """
        started_at = self.setup.clock()
        try:
            self._loop()
        except BaseException:
            self._muted = True  # whoever listens has failed; it hears nothing more
            self._stop_everything("the run was given up", cause="")
            self._loop()
            raise
        return ExecutionResult(
            results={pipe_id: self._results[pipe_id] for pipe_id in self.workload.order},
            started_at=started_at,
            ended_at=self.setup.clock(),
            cancelled=self._cancelled,
        )

    def _loop(self) -> None:
        self._drain()
        while True:
            self._start_ready()
            if not self._running and not self._retrying:
                return
            self._receive(self._wait())
            self._drain()
            self._watch_limits()

    # Messages

    def _wait(self) -> _Message | None:
        """The next message, or None when a limit, a grace period or a pause is over first."""
        moments = [moment for active in self._running.values() for moment in self._moments(active)]
        if len(self._running) < self.setup.workers:
            moments += [active.retry_at for active in self._retrying.values()]
        timeout = max(0.0, min(moments) - time.monotonic()) if moments else None
        try:
            return self._inbox.get(timeout=timeout)
        except Empty:
            return None

    def _moments(self, active: _Active) -> list[float]:
        if active.stop is not None:
            return [active.stop.at + 2 * self.setup.grace]
        return [] if active.deadline is None else [active.deadline]

    def _drain(self) -> None:
        while not self._inbox.empty():
            self._receive(self._inbox.get())

    def _receive(self, message: _Message | None) -> None:
        if isinstance(message, PipeThread):
            self._ended(message)
        elif isinstance(message, _Cancel):
            self._cancelled = self._cancelled or message.reason
            self._stop_everything(message.reason, cause="")
        elif isinstance(message, LogLine):
            self._emit(message)

    def _emit(self, event: RunEvent) -> None:
        if not self._muted:
            self.setup.on_event(event)

    # Starting

    def _start_ready(self) -> None:
        now = time.monotonic()
        due = sorted(
            (active for active in self._retrying.values() if active.retry_at <= now),
            key=lambda active: active.retry_at,
        )
        for active in due[: self.setup.workers - len(self._running)]:
            del self._retrying[active.pipe_id]
            self._start(active)
        for pipe_id in self._frontier.take(self.setup.workers - len(self._running)):
            options = self.setup.options.get(pipe_id, self.setup.default)
            deadline = None if options.timeout is None else time.monotonic() + options.timeout
            self._start(_Active(pipe_id, options, self.setup.clock(), deadline))

    def _start(self, active: _Active) -> None:
        active.attempt += 1
        active.thread = PipeThread(
            active.pipe_id,
            active.attempt,
            partial(self.context.copy().run, self._call, active.pipe_id),
            self._inbox.put,
        )
        self._running[active.pipe_id] = active
        self._emit(PipeStarted(active.pipe_id, active.attempt, self.setup.clock()))
        active.thread.start()

    def _call(self, pipe_id: str) -> PipeOutcome | None:
        with self.setup.canceller.scope(pipe_id):
            return self.pipe_executor(pipe_id)

    # Stopping

    def _watch_limits(self) -> None:
        now = time.monotonic()
        for active in list(self._running.values()):
            if active.stop is not None:
                if now >= active.stop.at + 2 * self.setup.grace:
                    self._give_up_on(active)
            elif active.deadline is not None and now >= active.deadline:
                reason = f"it did not finish within {active.options.timeout:g} s"
                self._stop(active, PipeStatus.TIMED_OUT, reason, cause="")

    def _stop(self, active: _Active, status: PipeStatus, reason: str, cause: str) -> None:
        thread = active.thread
        if active.stop is not None or thread is None or thread.outcome or thread.failure:
            return  # told already, or it has just ended by itself
        active.stop = _Stop(status, reason, cause, time.monotonic(), where(thread.places()), thread.stack())
        Terminator(thread, self.setup.canceller, self.setup.grace, self._inbox.put).start()

    def _stop_everything(self, reason: str, cause: str) -> None:
        """Cancel what runs, try nothing again and start nothing more. Can be repeated."""
        self._given_up = self._given_up or reason
        for active in list(self._running.values()):
            self._stop(active, PipeStatus.CANCELLED, reason, cause)
        while self._retrying:
            self._fail(self._retrying.popitem()[1], f"not tried again: {reason}")
        for pipe_id in self._frontier.give_up():
            self._record(
                self._never_started(pipe_id, PipeStatus.NOT_STARTED, cause, f"not started: {reason}")
            )

    def _give_up_on(self, active: _Active) -> None:
        stop, thread = active.stop, active.thread
        if stop is None or thread is None:
            return
        del self._running[active.pipe_id]
        self._stuck[thread] = active.pipe_id
        seconds = time.monotonic() - stop.at
        error = PipeError(
            pipe_id=active.pipe_id,
            type="TimeoutError",
            message=f"Cancelled because {stop.reason}, but its Python code has not ended {seconds:.1f} s later.",
            suggestion="Find what it waits for in the stack: give calls that wait a timeout of their own. "
            "Its thread lives on until it comes back by itself or the process ends.",
            where=where(thread.places()) or stop.where,
            traceback=thread.stack() or stop.stack,
        )
        self._finish(active, PipeStatus.STUCK, error=error, reason=f"stuck after: {stop.reason}")

    # Ending

    def _ended(self, thread: PipeThread) -> None:
        active = self._running.get(thread.pipe_id)
        if active is None or active.thread is not thread:
            self._ended_late(thread)
            return
        del self._running[thread.pipe_id]
        stop = active.stop
        if thread.outcome is not None:
            self._succeed(active, thread.outcome)
        elif stop is not None and self.setup.canceller.committed(thread.pipe_id):
            reason = f"it had committed when it was cancelled ({stop.reason})"
            self._finish(active, PipeStatus.SUCCEEDED, reason=reason)
        elif stop is not None:
            self._finish(active, stop.status, error=_stop_error(active, stop), reason=stop.reason)
        else:
            self._retry_or_fail(active, thread.failure)

    def _ended_late(self, thread: PipeThread) -> None:
        pipe_id = self._stuck.pop(thread, None)
        if pipe_id is not None:
            wrote = thread.outcome is not None or self.setup.canceller.committed(pipe_id)
            told = "it has written all the same" if wrote else "no write of it is known"
            self._emit(LogLine("warning", f"Pipe {pipe_id}, reported as stuck, has ended: {told}."))

    def _succeed(self, active: _Active, outcome: PipeOutcome) -> None:
        reason = outcome.reason
        if active.stop is not None:
            late = f"it finished while being cancelled ({active.stop.reason})"
            reason = f"{reason}; {late}" if reason else late
        status = PipeStatus.SKIPPED if outcome.skipped else PipeStatus.SUCCEEDED
        if outcome.error is not None:
            status = PipeStatus.FAILED
        self._finish(active, status, error=outcome.error, reason=reason, metadata=outcome.metadata)

    def _retry_or_fail(self, active: _Active, failure: Failure | None) -> None:
        active.failure = failure
        options = active.options
        if active.attempt >= options.attempts:
            self._fail(active, "")
            return
        pause = options.backoff * 2 ** (active.attempt - 1)
        active.retry_at = time.monotonic() + pause
        if self._given_up:
            self._fail(active, f"not tried again: {self._given_up}")
        elif failure is not None and failure.permanent:
            self._fail(active, "not tried again: the error stays until something is changed")
        elif active.deadline is not None and active.retry_at >= active.deadline:
            self._fail(active, f"not tried again: its limit of {options.timeout:g} s would pass first")
        else:
            self._retrying[active.pipe_id] = active
            self._emit(_retrying(active, failure, pause))

    def _fail(self, active: _Active, reason: str) -> None:
        error = active.failure.error if active.failure else None
        self._finish(active, PipeStatus.FAILED, error=error, reason=reason)

    def _finish(
        self,
        active: _Active,
        status: PipeStatus,
        *,
        error: PipeError | None = None,
        reason: str = "",
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        self._record(
            PipeResult(
                pipe_id=active.pipe_id,
                status=status,
                generation=self.workload.generations[active.pipe_id],
                started_at=active.started_at,
                ended_at=self.setup.clock(),
                attempts=active.attempt,
                error=error,
                cause=active.stop.cause if active.stop and not status.ok else "",
                reason=reason,
                metadata=dict(metadata or {}),
            )
        )
        alive = status is PipeStatus.STUCK
        for blocked in self._frontier.ended(active.pipe_id, ok=status.ok, alive=alive):
            reason = f"not started: {blocked.cause} did not succeed ({status.value})"
            self._record(
                self._never_started(blocked.pipe_id, PipeStatus.UPSTREAM_FAILED, blocked.cause, reason)
            )
        if not status.ok and self.setup.strategy is ErrorStrategy.FAIL_FAST and not self._given_up:
            self._stop_everything(f"{active.pipe_id} did not succeed ({status.value})", active.pipe_id)

    def _never_started(self, pipe_id: str, status: PipeStatus, cause: str, reason: str) -> PipeResult:
        generation = self.workload.generations[pipe_id]
        return PipeResult(pipe_id, status, generation, cause=cause, reason=reason)

    def _record(self, result: PipeResult) -> None:
        self._results[result.pipe_id] = result
        self._emit(PipeFinished(result))


def _retrying(active: _Active, failure: Failure | None, pause: float) -> PipeRetrying:
    error = failure.error if failure else None
    what = f"{error.type}: {error.message}" if error else "it ended without a result"
    attempts = active.options.attempts
    return PipeRetrying(
        "warning",
        f"Pipe {active.pipe_id} failed on attempt {active.attempt} of {attempts} ({what}); "
        f"next attempt in {pause:g} s.",
        pipe_id=active.pipe_id,
        attempt=active.attempt,
        attempts=attempts,
        pause=pause,
        error=error,
    )


def _stop_error(active: _Active, stop: _Stop) -> PipeError | None:
    """The error of a pipe that ended because it was told to; none for a pipe that did nothing wrong."""
    if stop.status is not PipeStatus.TIMED_OUT:
        return None
    return PipeError(
        pipe_id=active.pipe_id,
        type="TimeoutError",
        message=f"Cancelled because {stop.reason}; nothing was committed.",
        suggestion="Raise the pipe's timeout if it needs the time; if not, the stack shows where it was.",
        where=stop.where,
        traceback=stop.stack,
    )
