"""The default engine: the plan runs on threads of this process, in one Spark session. Free of Dagster."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from kindling_dagster.dag.orchestrator import ExecutionOrchestrator
from kindling_dagster.engines.base import LogLine, RunEvent, RunRequest
from kindling_dagster.engines.pipe_run import PipeRunner, plan_request
from kindling_dagster.engines.session import Session, open_session
from kindling_dagster.engines.thread import SparkThread
from kindling_dagster.errors import RunError
from kindling_dagster.project import KindlingProject
from kindling_dagster.runtime import KindlingRuntime

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Emit = Callable[[RunEvent], None]
Result = TypeVar("Result")

# How long the consumer waits for cancelled pipes; beyond the executor's own grace periods.
_CANCEL_SECONDS = 60.0
_CLOSE_SECONDS = 30.0


class InProcessEngine:
    """Runs Kindling's pipes in this process.

    The session and the app are started by the first run and kept until ``close``.

    Args:
        project: The app.
        create_session: Gives the Spark session; called on the engine's thread, once.
        storage_options: For reading tables' logs on object storage without Spark, as deltalake takes them.
        before: Called on the engine's thread before each run, once Spark and the app are up.
    """

    def __init__(
        self,
        project: KindlingProject,
        create_session: Callable[[], SparkSession],
        storage_options: Mapping[str, str] | None = None,
        before: Callable[[SparkSession, KindlingRuntime], None] = lambda _spark, _runtime: None,
    ) -> None:
        self._project = project
        self._create_session = create_session
        self._storage_options = storage_options
        self._before = before
        self._running: dict[str, _Execution] = {}
        self._thread = SparkThread(f"kindling {project.name}")
        self._session: Session | None = None
        self._runtime: KindlingRuntime | None = None

    def run(self, request: RunRequest) -> Iterator[RunEvent]:
        """Run the request; see ``Engine.run``.

        Raises:
            KindlingDagsterError: Spark or the app cannot start, or the request cannot be planned.
        """
        events: queue.SimpleQueue[RunEvent | None] = queue.SimpleQueue()
        execution = _Execution(request, self._project, events.put, self._storage_options)

        def work() -> None:
            try:
                spark, runtime = self._start(events.put)
                self._before(spark, runtime)
                execution.run(spark, runtime)
            finally:
                events.put(None)

        self._running[request.run_id] = execution
        done = self._thread.submit(work)
        try:
            while (event := events.get()) is not None:
                yield event
            done.result()
        finally:
            del self._running[request.run_id]
            if not done.done():
                execution.cancel("the run was cancelled")
                self._await_end(done)

    def cancel(self, run_id: str, reason: str) -> None:
        """Cancel a run from any thread; its events go on until all its pipes have ended.

        Nothing happens where no such run is on its way.
        """
        execution = self._running.get(run_id)
        if execution is not None:
            execution.cancel(reason)

    def between_runs(self, call: Callable[[], Result]) -> Result:
        """Call something that speaks to Spark, on the engine's thread, while no run is on its way.

        Raises:
            TimeoutError: A run that was cancelled still keeps the thread.
            Exception: Whatever the call raises.
        """
        return self._thread.submit(call).result(_CANCEL_SECONDS)

    def _await_end(self, done: Future[None]) -> None:
        try:
            done.result(_CANCEL_SECONDS)
        except FutureTimeout as error:
            raise RunError(
                f"Spark did not end within {_CANCEL_SECONDS:.0f} seconds of being cancelled.",
                "The process ends now, and Spark with it.",
            ) from error

    def close(self) -> None:
        """Close the app and stop the session if this engine started it. Can be called twice."""
        if self._runtime is None and self._session is None:
            self._thread.stop()
            return
        closing = self._thread.submit(self._close)
        # A JVM that is gone cannot be stopped in good order, and need not be.
        with suppress(FutureTimeout):
            closing.result(_CLOSE_SECONDS)
        self._thread.stop()

    def _close(self) -> None:
        runtime, self._runtime = self._runtime, None
        session, self._session = self._session, None
        try:
            if runtime is not None:
                runtime.close()
        finally:
            if session is not None:
                session.stop()

    def _start(self, emit: Emit) -> tuple[SparkSession, KindlingRuntime]:
        if self._runtime is None or self._session is None:
            started = time.monotonic()
            self._runtime = KindlingRuntime.start(self._project, lambda: self._open_session(emit).spark)
            # Another engine of this process may hold the same app already: it asks for no session then.
            self._session = self._session or self._open_session(emit)
            emit(LogLine("info", f"App {self._project.name} is up ({time.monotonic() - started:.1f} s)."))
        return self._session.spark, self._runtime

    def _open_session(self, emit: Emit) -> Session:
        before = self._session
        opened = open_session(self._create_session, emit)
        # Kept at once: it is to be stopped also where the app does not start, and it may be up from such a try.
        self._session = replace(opened, owned=opened.owned or (before is not None and before.owned))
        return self._session


class _Execution:
    """One request on its way: can be cancelled from another thread at any moment, also before it runs."""

    def __init__(
        self,
        request: RunRequest,
        project: KindlingProject,
        emit: Emit,
        storage_options: Mapping[str, str] | None,
    ) -> None:
        self._request = request
        self._storage_options = storage_options
        self._manifest = project.manifest
        # Before anything starts: what cannot be planned must not cost a session.
        self._plan = plan_request(self._manifest, request.pipe_ids)
        self._emit = emit
        self._lock = threading.Lock()
        self._orchestrator: ExecutionOrchestrator | None = None
        self._cancelled = ""

    def cancel(self, reason: str) -> None:
        """End the execution; returns at once."""
        with self._lock:
            self._cancelled = reason
            if self._orchestrator is not None:
                self._orchestrator.cancel(reason)

    def run(self, spark: SparkSession, runtime: KindlingRuntime) -> None:
        """Run the request to its end, on the calling thread."""
        with PipeRunner(
            self._request, self._manifest, spark, runtime, self._emit, self._storage_options
        ) as runner:
            orchestrator = runner.orchestrator()
            with self._lock:
                self._orchestrator = orchestrator
                if self._cancelled:
                    orchestrator.cancel(self._cancelled)
            orchestrator.execute_plan(self._plan)
