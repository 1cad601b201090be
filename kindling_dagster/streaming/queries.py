"""StreamingQueryManager: starts, stops and restarts the streaming queries of one Spark session, and knows their states."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Final

from kindling.signaling import SignalProvider

from kindling_dagster.signals.dispatch import SignalDispatcher
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.plain import scrub_text
from kindling_dagster.signals.settings import SignalSettings
from kindling_dagster.streaming.events import OnEvent, SparkEvent
from kindling_dagster.streaming.failures import FailureClassifier
from kindling_dagster.streaming.handles import Query, QueryBuilder, QueryHandle, started, still_active
from kindling_dagster.streaming.model import (
    StreamError,
    StreamingQueryConfig,
    StreamingQueryInfo,
    StreamMetrics,
)
from kindling_dagster.streaming.model import (
    StreamingQueryState as State,
)
from kindling_dagster.streaming.progress import idle_metrics, metrics_of
from kindling_dagster.streaming.query_signals import begun, failed, registered, restarted, stopped
from kindling_dagster.streaming.transitions import (
    UP,
    QueryBusyError,
    QueryStateError,
    QueryStopTimeoutError,
    UnknownQueryError,
    check_transition,
)

__all__ = ["STOP_SECONDS", "QueryBuilder", "QueryHandle", "StreamingQueryManager"]

STOP_SECONDS: Final = 60.0
"""How long a stop waits for the query's end unless told otherwise."""

_EARLY_EVENTS: Final = 1_000


class StreamingQueryManager(AsyncSignalEmitter):
    """Starts, stops and restarts queries, and knows the state of each.

    Safe to call from several threads. Starts and stops of one query come one after another; a call that
    hangs delays its own query only, and asking for a status never waits.

    Args:
        signals: Where the signals go; without one nothing is sent.
        settings: How signals are emitted.
        dispatcher: Delivers asynchronous signals; one of its own when None.
        classifier: Decides whether an error can heal.
        mask: Takes secrets out of an error's text.
        stop_timeout: Seconds a stop waits for the query's end, unless told otherwise.
        clock: Gives Unix seconds.

    Example:
        >>> manager = StreamingQueryManager(signals)
        >>> manager.start_query("silver.flights", lambda: frame.writeStream.start(path))
        >>> manager.get_query_status("silver.flights").state
        <StreamingQueryState.RUNNING: 'running'>
    """

    EMITS: ClassVar[list[str]] = [
        "streaming.query_registered",
        "streaming.query_started",
        "streaming.query_stopped",
        "streaming.query_restarted",
        "streaming.query_failed",
    ]
    ASYNC = True

    def __init__(
        self,
        signals: SignalProvider | None = None,
        *,
        settings: SignalSettings | None = None,
        dispatcher: SignalDispatcher | None = None,
        classifier: FailureClassifier | None = None,
        mask: Callable[[str], str] = scrub_text,
        stop_timeout: float = STOP_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._init_signal_emitter(signals, settings, dispatcher)
        self._classifier = classifier or FailureClassifier()
        self._mask = mask
        self._stop_timeout = stop_timeout
        self._clock = clock
        self._lock = threading.RLock()
        self._queries: dict[str, Query] = {}
        self._runs: dict[str, str] = {}
        self._early: list[SparkEvent] = []
        self._replay: OnEvent = self.observe

    def register_query(
        self,
        query_id: str,
        query_builder: QueryBuilder,
        config: StreamingQueryConfig | None = None,
        state: State = State.STOPPED,
    ) -> StreamingQueryInfo:
        """Make a query known without starting it.

        Args:
            query_id: The stream's id.
            query_builder: Starts it.
            config: How it is started and watched.
            state: ``STOPPED``, or what is known from before: ``FAILED``, ``WAITING``, ``DEAD_LETTER``.

        Raises:
            QueryStateError: It is known already, or the state is one of a query that is up.
        """
        if state in UP:
            raise QueryStateError(f"Stream {query_id} cannot be registered as {state.value}.", "Start it.")
        with self._lock:
            if query_id in self._queries:
                raise QueryStateError(f"Stream {query_id} is registered already.", "Start or restart it.")
            query = self._new(query_id, state)
            self._configure(query, query_builder, config)
            info = query.info
        self.emit_payload(registered(info, query.config))
        return info

    def start_query(
        self,
        query_id: str,
        query_builder: QueryBuilder | None = None,
        config: StreamingQueryConfig | None = None,
    ) -> StreamingQueryInfo:
        """Start a query that is not up.

        A builder that raises is no exception here: the query is ``FAILED`` and ``last_error`` says why,
        as when it dies later.

        Args:
            query_id: The stream's id.
            query_builder: Starts it; may be left out when it is known.
            config: How it is started and watched; as before when left out.

        Raises:
            QueryStateError: It is up, or a dead letter.
            UnknownQueryError: It is not known and no builder is given.
            QueryBusyError: Another start or stop of it hangs.
        """
        with self._lock:
            query = self._queries.get(query_id)
            if query is None:
                if query_builder is None:
                    raise _unknown(query_id)
                query = self._new(query_id, State.STOPPED)
        with self._operation(query):
            check_transition(query_id, query.info.state, State.STARTING)
            self._configure(query, query_builder, config)
            return self._start(query)

    def stop_query(
        self, query_id: str, await_termination: bool = True, timeout: float | None = None
    ) -> StreamingQueryInfo:
        """Stop a query. One that is not up stays down (it no longer waits); a dead letter stays one.

        Args:
            query_id: The stream's id.
            await_termination: Wait until it has ended; otherwise it is ``STOPPING`` and ends by itself.
            timeout: Seconds to wait at most.

        Raises:
            UnknownQueryError: It is not known.
            QueryStopTimeoutError: It has not ended in time; it stays ``STOPPING``, and may be stopped again.
            QueryBusyError: Another start or stop of it hangs.
        """
        query = self._query(query_id)
        limit = self._stop_timeout if timeout is None else timeout
        with self._operation(query, limit):
            self._begin_stop(query)
            if await_termination:
                self._await_stop(query, limit)
            return query.info

    def restart_query(
        self,
        query_id: str,
        reason: str = "",
        *,
        query_builder: QueryBuilder | None = None,
        config: StreamingQueryConfig | None = None,
    ) -> StreamingQueryInfo:
        """Stop a query if it is up, and start it again from its checkpoint.

        Args:
            query_id: The stream's id.
            reason: Stands in the signal.
            query_builder: Starts it from now on; as before when left out.
            config: How it is started and watched from now on; as before when left out.

        Raises:
            UnknownQueryError: It is not known.
            QueryStateError: It is a dead letter, which must be revived first.
            QueryStopTimeoutError: It has not ended in time; nothing was started.
            QueryBusyError: Another start or stop of it hangs.
        """
        query = self._query(query_id)
        with self._operation(query):
            if query.info.state in UP:
                self._begin_stop(query)
                self._await_stop(query, self._stop_timeout)
            check_transition(query_id, query.info.state, State.STARTING)
            self._configure(query, query_builder, config)
            info = self._start(query)
        if info.state is State.RUNNING:
            self.emit_payload(restarted(info, reason))
        return info

    def revive(self, query_id: str) -> StreamingQueryInfo:
        """Make a dead letter a stopped query, which can be started; others stay as they are."""
        query = self._query(query_id)
        with self._lock:
            if query.info.state is State.DEAD_LETTER:
                self._move(query, State.STOPPED)
            return query.info

    def mark(self, query_id: str, state: State, error: StreamError | None = None) -> StreamingQueryInfo:
        """Say what becomes of a query that is down: ``WAITING``, ``DEAD_LETTER`` or ``STOPPED``.

        Raises:
            UnknownQueryError: It is not known.
            QueryStateError: It is up, or that state may not follow.
        """
        query = self._query(query_id)
        with self._lock:
            if query.info.state is not state:
                if query.info.state in UP or state in UP:
                    raise QueryStateError(
                        f"Stream {query_id} is {query.info.state.value}; it cannot be marked {state.value}.",
                        "Start or stop it.",
                    )
                self._move(query, state)
            if error is not None:
                query.info = replace(query.info, last_error=error)
            return query.info

    def get_query_status(self, query_id: str) -> StreamingQueryInfo:
        """What is known of a query; raises UnknownQueryError. Asks Spark nothing, so it never waits."""
        return self._query(query_id).info

    def list_queries(self) -> tuple[StreamingQueryInfo, ...]:
        """All queries that are known, in the order they became so."""
        with self._lock:
            return tuple(query.info for query in self._queries.values())

    def list_active_queries(self) -> tuple[StreamingQueryInfo, ...]:
        """The queries that are starting, running or stopping."""
        return tuple(info for info in self.list_queries() if info.state in UP)

    def config(self, query_id: str) -> StreamingQueryConfig | None:
        """How a query is started and watched; None when that was never said. Raises UnknownQueryError."""
        query = self._query(query_id)
        return query.config if query.configured else None

    def handle(self, query_id: str) -> Any | None:
        """Spark's handle of a query that is up; None for any other. Raises UnknownQueryError."""
        return self._query(query_id).handle

    def forget(self, query_id: str) -> None:
        """Drop a query that is not up; nothing when it is not known.

        Raises:
            QueryStateError: It is up.
        """
        with self._lock:
            query = self._queries.get(query_id)
            if query is None:
                return
            if query.info.state in UP:
                raise QueryStateError(f"Stream {query_id} is {query.info.state.value}.", "Stop it first.")
            del self._queries[query_id]

    def replay_to(self, on_event: OnEvent) -> None:
        """Hand events that came before their builder had returned to this: to whom gives ``observe`` its events."""
        self._replay = on_event

    def observe(self, event: SparkEvent) -> str | None:
        """Take in what Spark says of a query; give the stream's id, None for a query of somebody else.

        Events of a start that is over are ignored. Events that come before the builder has returned are
        kept until it has.
        """
        with self._lock:
            query_id = self._runs.get(event.run_id)
            if query_id is None:
                starting = any(query.info.state is State.STARTING for query in self._queries.values())
                if starting and len(self._early) < _EARLY_EVENTS:
                    self._early.append(event)
                return None
            query = self._queries[query_id]
            if event.kind == "started":
                metrics = replace(query.info.metrics, last_event_at=event.at)
                query.info = replace(query.info, metrics=metrics)
            elif event.kind == "progress":
                metrics = metrics_of(event.progress, query.info.metrics, event.at)
                query.info = replace(query.info, metrics=metrics)
            elif event.kind == "idle":
                query.info = replace(query.info, metrics=idle_metrics(query.info.metrics, event.at))
        if event.kind == "terminated":
            self.query_ended(query_id, event.run_id, event.exception or None, event.error_class)
        return query_id

    def query_ended(
        self,
        query_id: str,
        spark_run_id: str,
        error: BaseException | StreamError | str | None = None,
        error_class: str = "",
    ) -> StreamingQueryInfo:
        """A query has ended by itself: ``FAILED`` with an error, ``STOPPED`` without one.

        Ignored when it is being stopped, has been seen ended already, or was started anew since.

        Args:
            query_id: The stream's id.
            spark_run_id: Spark's id of the start that ended.
            error: What it ended with.
            error_class: Spark's error class of it, where known.

        Raises:
            UnknownQueryError: It is not known.
        """
        query = self._query(query_id)
        described = None if error is None else self._describe(error, error_class)
        with self._lock:
            if query.info.spark_run_id != spark_run_id or query.info.state is not State.RUNNING:
                return query.info
            self._let_go(query)
            if described is None:
                info = self._move(query, State.STOPPED)
            else:
                info = self._move(query, State.FAILED, last_error=described)
        if described is None:
            self.emit_payload(stopped(info, self._clock()))
        else:
            self.emit_payload(failed(info, described))
        return info

    def _new(self, query_id: str, state: State) -> Query:
        query = Query(StreamingQueryInfo(query_id, state, query_name=query_id))
        self._queries[query_id] = query
        return query

    def _configure(
        self, query: Query, builder: QueryBuilder | None, config: StreamingQueryConfig | None
    ) -> None:
        query.builder = builder or query.builder
        if config is not None:
            query.config, query.configured = config, True
        root = query.config.checkpoint_root.rstrip("/")
        with self._lock:
            query_id = query.info.query_id
            query.info = replace(
                query.info,
                query_name=query.config.query_name or query_id,
                checkpoint_path=f"{root}/{query_id}" if root else "",
            )

    def _query(self, query_id: str) -> Query:
        with self._lock:
            query = self._queries.get(query_id)
        if query is None:
            raise _unknown(query_id)
        return query

    @contextmanager
    def _operation(self, query: Query, timeout: float | None = None) -> Iterator[None]:
        """One start or stop of a query at a time."""
        limit = self._stop_timeout if timeout is None else timeout
        if not query.operation.acquire(timeout=max(0.0, limit)):
            raise QueryBusyError(
                f"Stream {query.info.query_id} is {query.info.state.value} and has been for {limit:g} s.",
                "Look into Spark's log for what it waits for; restart the host if it never ends.",
            )
        try:
            yield
        finally:
            query.operation.release()

    def _start(self, query: Query) -> StreamingQueryInfo:
        now = self._clock()
        with self._lock:
            self._move(
                query,
                State.STARTING,
                start_time=now,
                spark_query_id="",
                spark_run_id="",
                restart_count=query.starts,
                metrics=StreamMetrics(),
            )
            query.starts += 1
        try:
            handle = started(query)
            spark_query_id, run_id = str(handle.id), str(handle.runId)
        except Exception as exception:  # whatever it is, it is this stream's failure
            error = self._describe(exception)
            with self._lock:
                info = self._move(query, State.FAILED, last_error=error)
                self._take_early("")
            self.emit_payload(failed(info, error))
            return info
        with self._lock:
            query.handle = handle
            self._runs[run_id] = query.info.query_id
            info = self._move(query, State.RUNNING, spark_query_id=spark_query_id, spark_run_id=run_id)
            early = self._take_early(run_id)
        self.emit_payload(begun(info))
        for event in early:
            self._replay(event)
        return query.info

    def _take_early(self, run_id: str) -> list[SparkEvent]:
        """The events of this run that came before its builder returned; nobody else's are kept for ever."""
        early = [event for event in self._early if event.run_id == run_id]
        starting = any(query.info.state is State.STARTING for query in self._queries.values())
        self._early = [event for event in self._early if starting and event.run_id != run_id]
        return early

    def _begin_stop(self, query: Query) -> None:
        with self._lock:
            state = query.info.state
            if state in (State.FAILED, State.WAITING):
                info = self._move(query, State.STOPPED)
            elif state is State.RUNNING:
                info = self._move(query, State.STOPPING)
            else:
                info = query.info
        if state in (State.FAILED, State.WAITING):
            self.emit_payload(stopped(info, self._clock()))
        stopping = info.state is State.STOPPING
        if stopping and (query.stopper is None or not query.stopper.is_alive()):
            # On its own thread: Spark's stop() waits for the query's end without a limit.
            query.stopper = threading.Thread(
                target=self._stop_in_spark, args=(query,), name=f"stop {info.query_id}", daemon=True
            )
            query.stopper.start()

    def _await_stop(self, query: Query, limit: float) -> None:
        if query.info.state is not State.STOPPING or query.stopper is None:
            return
        query.stopper.join(max(0.0, limit))
        info = query.info
        if info.state is State.STOPPING:
            why = f": {info.last_error.message}" if info.last_error and not query.stopper.is_alive() else ""
            raise QueryStopTimeoutError(
                f"Stream {info.query_id} was asked to stop and has not ended within {limit:g} s{why}.",
                "It may still write, so it is not started again; stop it once more, or end the host.",
            )

    def _stop_in_spark(self, query: Query) -> None:
        failure: Exception | None = None
        try:
            query.handle.stop()
        except Exception as exception:  # a query that has ended all the same is stopped
            failure = exception
        if failure is not None and still_active(query.handle):
            error = self._describe(failure)
            with self._lock:
                query.info = info = replace(query.info, last_error=error)
            self.emit_payload(failed(info, error))
            return
        with self._lock:
            self._let_go(query)
            info = self._move(query, State.STOPPED)
        self.emit_payload(stopped(info, self._clock()))

    def _let_go(self, query: Query) -> None:
        self._runs.pop(query.info.spark_run_id, None)
        query.handle = None

    def _move(self, query: Query, state: State, **changes: Any) -> StreamingQueryInfo:
        check_transition(query.info.query_id, query.info.state, state)
        query.info = replace(query.info, state=state, **changes)
        return query.info

    def _describe(self, error: BaseException | StreamError | str, error_class: str = "") -> StreamError:
        if isinstance(error, StreamError):
            return error
        return self._classifier.stream_error(error, self._clock(), error_class=error_class, mask=self._mask)


def _unknown(query_id: str) -> UnknownQueryError:
    return UnknownQueryError(f"There is no stream {query_id} here.", "Start it with its builder first.")
