"""A dry run from start to end: Spark and the app are started on a thread of their own, and stopped afterwards."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kindling_dagster.analysis.analyzer import AnalysisEvent, Analyzer
from kindling_dagster.analysis.findings import AnalysisResult
from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.engines.base import LogLine
from kindling_dagster.engines.session import open_session
from kindling_dagster.engines.thread import SparkThread
from kindling_dagster.errors import RunError
from kindling_dagster.project import KindlingProject
from kindling_dagster.runtime import KindlingRuntime

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DEFAULT_TIMEOUT = 60.0
"""Seconds a pipe may take on empty frames, which is a matter of building a plan."""
_CANCEL_SECONDS = 60.0


def analyze_project(
    project: KindlingProject,
    create_session: Callable[[], SparkSession],
    pipe_ids: Iterable[str] | None = None,
    *,
    timeout: float | None = DEFAULT_TIMEOUT,
    watermarks: bool = False,
) -> Generator[AnalysisEvent | AnalysisResult, None, None]:
    """Call each pipe's function on empty frames and tell what is wrong; writes nothing.

    Gives what happens as it happens, and an AnalysisResult last. Closing the iterator early cancels
    the dry run. The session is stopped at the end unless it was there before.

    Args:
        project: The app.
        create_session: Makes the Spark session; called on the thread that then owns Spark.
        pipe_ids: The pipes, in any order; all of the app when None.
        timeout: Seconds a pipe may take; None for no limit.
        watermarks: Whether the runs read only new data, by Kindling's watermarks: driving inputs then
            carry ``SourceVersion`` and ``SourceTimestamp``.

    Raises:
        PlanError: A pipe is not declared.
        CycleError: The pipes depend on each other in a circle.
        KindlingDagsterError: Spark or the app cannot start.

    Example::

        *_, result = analyze_project(KindlingProject("demo"), build_session)
        assert result.ok, result.errors
    """
    # Before anything starts: what cannot be planned must not cost a session.
    chosen = PipeGraphBuilder(project.manifest).build_graph(pipe_ids).pipe_ids
    events: queue.SimpleQueue[AnalysisEvent | AnalysisResult | None] = queue.SimpleQueue()
    session = _Session(project, create_session, _Scope(chosen, timeout, watermarks), events.put)
    thread = SparkThread(f"dry run of {project.name}")

    def work() -> None:
        try:
            session.run()
        finally:
            events.put(None)

    done = thread.submit(work)
    thread.stop()
    try:
        while (event := events.get()) is not None:
            yield event
        done.result()
    finally:
        if not done.done():
            session.cancel("the dry run was cancelled")
            _await_end(done)


def _await_end(done: Future[None]) -> None:
    try:
        done.result(_CANCEL_SECONDS)
    except FutureTimeout as error:
        raise RunError(
            f"Spark did not end within {_CANCEL_SECONDS:.0f} seconds of being cancelled.",
            "The process ends now, and Spark with it.",
        ) from error


@dataclass(frozen=True)
class _Scope:
    """What a dry run looks at, and how; see ``analyze_project``."""

    pipe_ids: tuple[str, ...]
    timeout: float | None
    watermarks: bool


class _Session:
    """The part on the Spark thread; can be cancelled from another at any moment, also before it runs."""

    def __init__(
        self,
        project: KindlingProject,
        create_session: Callable[[], SparkSession],
        scope: _Scope,
        emit: Callable[[AnalysisEvent | AnalysisResult], None],
    ) -> None:
        self._project = project
        self._create_session = create_session
        self._scope = scope
        self._emit = emit
        self._lock = threading.Lock()
        self._analyzer: Analyzer | None = None
        self._cancelled = ""

    def cancel(self, reason: str) -> None:
        """End the dry run; returns at once."""
        with self._lock:
            self._cancelled = reason
            if self._analyzer is not None:
                self._analyzer.cancel(reason)

    def run(self) -> None:
        """Start Spark and the app, analyse, and stop what was started."""
        session = open_session(self._create_session, self._emit)
        try:
            with KindlingRuntime.start(self._project, session.spark) as runtime:
                self._emit(LogLine("info", f"App {self._project.name} is up."))
                scope = self._scope
                analyzer = Analyzer(
                    self._project, runtime, session.spark, self._emit, scope.timeout, scope.watermarks
                )
                with self._lock:
                    self._analyzer = analyzer
                    if self._cancelled:
                        analyzer.cancel(self._cancelled)
                self._emit(analyzer.run(scope.pipe_ids))
        finally:
            session.stop()
