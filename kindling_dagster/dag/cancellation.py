"""Ending a pipe's Spark work, and barring a cancelled pipe from writing. Only this file touches pyspark's inner parts."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from kindling_dagster.dag.pipe_thread import PipeInterrupt
from kindling_dagster.errors import PipeCancelledError, SparkSetupError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Canceller(Protocol):
    """How the executor ends what a pipe has running outside its Python thread."""

    def scope(self, pipe_id: str) -> AbstractContextManager[None]:
        """Entered in the pipe's thread around the pipe's code."""

    def cancel(self, pipe_id: str) -> None:
        """End what the pipe has running. Called again and again until the pipe's thread has ended."""

    def interrupt(self, pipe_id: str) -> None:
        """End what ``cancel`` could not end within the grace period. May be called again and again."""

    def committed(self, pipe_id: str) -> bool:
        """Whether the pipe is known to have written; must not block."""


class NoCanceller:
    """For pipes that run nothing outside their Python code."""

    def scope(self, pipe_id: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Nothing to set up."""
        return nullcontext()

    def cancel(self, pipe_id: str) -> None:
        """Nothing to end."""

    def interrupt(self, pipe_id: str) -> None:
        """Nothing to end."""

    def committed(self, pipe_id: str) -> bool:  # noqa: ARG002
        """Not known."""
        return False


class WriteGate:
    """Bars cancelled pipes from writing, through Kindling's ``persist.before_persist``.

    A receiver of that signal that raises is Kindling's supported write gate: the write does not
    happen and ``persist.persist_failed`` follows. The gate goes by the thread, not by the pipe's id
    alone: a pipe that wakes up late is barred, while the same pipe in a later run is not.
    """

    def __init__(self) -> None:
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._barred: set[str] = set()
        self._wrote: set[str] = set()
        self._inside: dict[str, int] = {}
        self._disconnects: list[Callable[[], None]] = []
        self._closing = False

    @contextmanager
    def scope(self, pipe_id: str) -> Iterator[None]:
        """Around a pipe's code, in its thread."""
        with self._lock:
            self._inside[pipe_id] = self._inside.get(pipe_id, 0) + 1
        self._thread.pipe_id = pipe_id
        try:
            yield
        finally:
            self._thread.pipe_id = None
            with self._lock:
                self._inside[pipe_id] -= 1
            self._disconnect_when_empty()

    def bar(self, pipe_id: str) -> None:
        """From now on the pipe cannot start a write. Any thread."""
        with self._lock:
            self._barred.add(pipe_id)

    def wrote(self, pipe_id: str) -> bool:
        """Whether the pipe has completed a write through Kindling."""
        return pipe_id in self._wrote

    def connect(self, signals: Any) -> None:
        """Listen to a Kindling SignalProvider's persist signals."""
        for name, receiver in (
            ("persist.before_persist", self.before_persist),
            ("persist.after_persist", self.after_persist),
        ):
            signal = signals.create_signal(name)
            signal.connect(receiver, weak=False)
            self._disconnects.append(partial(signal.disconnect, receiver))

    def close(self) -> None:
        """Stop listening: now, or when the last pipe that is still inside (a stuck one) has left."""
        self._closing = True
        self._disconnect_when_empty()

    def _disconnect_when_empty(self) -> None:
        with self._lock:
            if not self._closing or any(self._inside.values()):
                return
            disconnects, self._disconnects = self._disconnects, []
        for disconnect in disconnects:
            disconnect()

    def before_persist(self, sender: Any, **payload: Any) -> None:  # noqa: ARG002
        """Receiver: raises PipeCancelledError in a thread whose pipe is barred."""
        pipe_id = getattr(self._thread, "pipe_id", None)
        if pipe_id is not None and pipe_id in self._barred:
            entity = payload.get("output_entity_id", "its output")
            raise PipeCancelledError(f"Pipe {pipe_id} was cancelled before it wrote {entity}.")

    def after_persist(self, sender: Any, **payload: Any) -> None:  # noqa: ARG002
        """Receiver: notes that this thread's pipe has written."""
        pipe_id = getattr(self._thread, "pipe_id", None)
        if pipe_id is not None:
            self._wrote.add(pipe_id)


class SparkCanceller:
    """Ends a pipe's Spark jobs: each pipe's jobs carry a group and a tag of their own.

    The group is what Spark's UI and status tracker show. The tag stays on the jobs of a pipe that
    sets a job group itself. JVM threads started on behalf of the pipe (broadcasts, Delta's pools)
    inherit both. Spark's ``cancelJobGroup`` ends the jobs that are active at that moment only, so
    the executor repeats ``cancel`` until the pipe's thread has ended.

    Args:
        spark: A classic session (not Spark Connect).
        run_id: Part of the group's name, which is ``kindling-dagster/<run>/<pipe>#<token>``; the
            token keeps a second execution of the same run apart from the first.
        gate: Bars cancelled pipes from writing.

    Raises:
        SparkSetupError: The session is Connect's, or pyspark's pinned-thread mode is off.
    """

    def __init__(self, spark: SparkSession, run_id: str, gate: WriteGate | None = None) -> None:
        if not hasattr(spark, "_jsparkSession"):
            raise SparkSetupError(
                "Pipes cannot be cancelled in a Spark Connect session.", "Use a classic Spark session."
            )
        _require_pinned_threads(spark)
        self.gate = gate or WriteGate()
        self._spark = spark
        self._context = spark.sparkContext
        self._run_id = run_id
        self._token = uuid.uuid4().hex[:8]
        self._pools: set[int] = set()
        self._pools_lock = threading.Lock()
        self._jvm_threads: dict[str, Any] = {}
        self._jvm_thread_class = spark._jvm.java.lang.Thread
        # Its name differs between Spark 3.5 and 4. The public call that makes a session a thread's
        # active one, createDataFrame, plans a query each time: some 90 ms per pipe.
        self._session_class = getattr(spark._jvm, spark._jsparkSession.getClass().getName())

    def group(self, pipe_id: str) -> str:
        """The job group of a pipe."""
        return f"kindling-dagster/{self._run_id}/{pipe_id}#{self._token}"

    def _tag(self, pipe_id: str) -> str:
        return self.group(pipe_id).replace(",", "_")  # a tag must not contain a comma

    @contextmanager
    def scope(self, pipe_id: str) -> Iterator[None]:
        """Around a pipe's code, in its thread: its Spark jobs can be cancelled, its writes barred.

        Also makes the session this thread's active one, as it is on the thread that built it:
        Kindling and pipes ask for ``SparkSession.getActiveSession()``.
        """
        context, interrupted = self._context, False
        with self.gate.scope(pipe_id), self._pool() as pool:
            self._jvm_threads[pipe_id] = self._jvm_thread_class.currentThread()
            self._session_class.setActiveSession(self._spark._jsparkSession)
            context.setJobGroup(self.group(pipe_id), f"Kindling pipe {pipe_id}", interruptOnCancel=True)
            context.addJobTag(self._tag(pipe_id))
            context.setLocalProperty("spark.scheduler.pool", pool)
            try:
                yield
            except PipeInterrupt:
                # It may have landed inside a call to the JVM, whose reply then waits for the next
                # one: no more calls from this thread. What it still starts stays in the group.
                interrupted = True
                raise
            finally:
                del self._jvm_threads[pipe_id]
                if not interrupted:
                    self._leave_group(pipe_id)

    @contextmanager
    def _pool(self) -> Iterator[str]:
        """A scheduler pool that no other running pipe has: within one pool jobs queue, even with FAIR.

        Numbered, not named after the pipe: Spark warns of each new pool.
        """
        with self._pools_lock:
            number = next(number for number in count(1) if number not in self._pools)
            self._pools.add(number)
        try:
            yield f"kindling-dagster-{number}"
        finally:
            with self._pools_lock:
                self._pools.remove(number)

    def _leave_group(self, pipe_id: str) -> None:
        for name in ("spark.jobGroup.id", "spark.job.description", "spark.job.interruptOnCancel"):
            self._context.setLocalProperty(name, None)
        self._context.setLocalProperty("spark.scheduler.pool", None)
        self._context.removeJobTag(self._tag(pipe_id))

    def cancel(self, pipe_id: str) -> None:
        """Bar the pipe from writing and end the jobs it has running; any thread."""
        self.gate.bar(pipe_id)
        self._context.cancelJobGroup(self.group(pipe_id))
        self._context.cancelJobsWithTag(self._tag(pipe_id))

    def interrupt(self, pipe_id: str) -> None:
        """Interrupt the JVM side of the pipe's thread, where it waits for something that is no Spark job."""
        jvm_thread = self._jvm_threads.get(pipe_id)
        if jvm_thread is not None:
            jvm_thread.interrupt()

    def committed(self, pipe_id: str) -> bool:
        """Whether the pipe has completed a write through Kindling."""
        return self.gate.wrote(pipe_id)

    def active_jobs(self, pipe_id: str) -> list[int]:
        """Ids of the pipe's Spark jobs that are running now."""
        tracker = self._context.statusTracker()
        running = set(tracker.getActiveJobsIds())
        return sorted(job for job in tracker.getJobIdsForGroup(self.group(pipe_id)) if job in running)


def _require_pinned_threads(spark: SparkSession) -> None:
    """Each Python thread must have its own JVM thread, or job groups of pipes would mix."""
    name, seen = "kindling-dagster.pinned", []
    spark.sparkContext.setLocalProperty(name, "yes")
    probe = threading.Thread(target=lambda: seen.append(spark.sparkContext.getLocalProperty(name)))
    probe.start()
    probe.join()
    spark.sparkContext.setLocalProperty(name, None)
    if seen != [None]:
        raise SparkSetupError(
            "pyspark's pinned-thread mode is off, so one pipe's Spark jobs cannot be told from another's.",
            "Remove PYSPARK_PIN_THREAD=false from the environment.",
        )
