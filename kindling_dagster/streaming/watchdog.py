"""StreamingWatchdog: looks at each query in its own rhythm; a call that hangs marks its own query only."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, Final

from kindling.signaling import SignalProvider

from kindling_dagster.signals.dispatch import SignalDispatcher
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.payloads import Payload, StreamExceptionPayload, StreamHealthPayload
from kindling_dagster.signals.plain import scrub_text
from kindling_dagster.signals.settings import SignalSettings
from kindling_dagster.streaming.failures import FailureClassifier, jvm_is_gone
from kindling_dagster.streaming.health import LIMITS, HealthLimits, Observation, Verdict, judge
from kindling_dagster.streaming.model import (
    StreamError,
    StreamHealth,
    StreamingQueryConfig,
    StreamingQueryInfo,
    StreamingQueryState,
    StreamMetrics,
)
from kindling_dagster.streaming.probes import Probe, ProbePool
from kindling_dagster.streaming.progress import metrics_of
from kindling_dagster.streaming.queries import StreamingQueryManager
from kindling_dagster.streaming.transitions import UnknownQueryError

logger = logging.getLogger("kindling_dagster.streaming")

PROBE_THREADS: Final = 4
ANSWER_SECONDS: Final = 5.0
"""After so long without an answer a call to a query counts as hanging."""

_TICK: Final = 1.0
_WELL: Final = frozenset({StreamHealth.HEALTHY, StreamHealth.IDLE})
_DOWN: Final = frozenset(
    {StreamingQueryState.FAILED, StreamingQueryState.WAITING, StreamingQueryState.DEAD_LETTER}
)

OnVerdict = Callable[[str, Verdict], object]


@dataclass(frozen=True)
class _Look:
    """What came back from one look at a query."""

    query_id: str
    run_id: str
    observation: Observation
    ended_with: BaseException | None = None


@dataclass
class _Watch:
    """What the watchdog knows of one start of a query; only touched under ``_polling``."""

    run_id: str
    due: float
    history: deque[Observation]
    probe: Probe | None = None
    probed_at: float = 0.0
    batch_id: int | None = None
    batch_ended_at: float | None = None
    verdict: Verdict = field(default_factory=lambda: Verdict(StreamHealth.UNKNOWN, "Not looked at yet."))


class StreamingWatchdog(AsyncSignalEmitter):
    """Watches the queries of a manager from a thread of its own.

    Each running query is looked at once per poll interval: whether it is active, its status, its last
    batch, and the exception it ended with. The calls run in a small pool. One that does not answer marks
    its own query; a thread in its place serves the others. A query that is found ended is reported to
    the manager.

    Args:
        query_manager: Whose queries are watched.
        poll_interval: Seconds between two looks, for queries without a configuration of their own.
        stall_threshold: Seconds without a batch, while data waits, after which such a query is stalled.
        signals: Where the signals go; without one nothing is sent.
        settings: How signals are emitted.
        dispatcher: Delivers asynchronous signals; one of its own when None.
        on_verdict: Called when a query's health changes, on the watchdog's thread; must not take long.
        classifier: Decides whether an error can heal.
        mask: Takes secrets out of an error's text.
        limits: From when on a query counts as unhealthy.
        answer_seconds: After so long without an answer a call counts as hanging.
        clock: Gives Unix seconds.
    """

    EMITS: ClassVar[list[str]] = [
        "streaming.query_healthy",
        "streaming.query_unhealthy",
        "streaming.query_exception",
        "streaming.query_stalled",
    ]
    ASYNC = True

    def __init__(
        self,
        query_manager: StreamingQueryManager,
        poll_interval: float = 30.0,
        stall_threshold: float = 300.0,
        *,
        signals: SignalProvider | None = None,
        settings: SignalSettings | None = None,
        dispatcher: SignalDispatcher | None = None,
        on_verdict: OnVerdict | None = None,
        classifier: FailureClassifier | None = None,
        mask: Callable[[str], str] = scrub_text,
        limits: HealthLimits = LIMITS,
        answer_seconds: float = ANSWER_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._init_signal_emitter(signals, settings, dispatcher)
        self._manager = query_manager
        self._default = StreamingQueryConfig(poll_interval=poll_interval, stall_threshold=stall_threshold)
        self._on_verdict = on_verdict
        self._classifier = classifier or FailureClassifier()
        self._mask = mask
        self._limits = limits
        self._answer_seconds = answer_seconds
        self._clock = clock
        self._pool = ProbePool(PROBE_THREADS, "watchdog-probe")
        self._looks: SimpleQueue[_Look] = SimpleQueue()
        self._polling = threading.Lock()
        self._watches: dict[str, _Watch] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._wake = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start watching; a watchdog can be started once."""
        self._thread = threading.Thread(target=self._run, name="streaming-watchdog", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """Stop watching; a call that hangs is left behind. Returns whether the thread ended in time."""
        self._ended = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)
        self._pool.close()
        return self._thread is None or not self._thread.is_alive()

    def verdicts(self) -> Mapping[str, Verdict]:
        """The latest verdict on each query that is up or has failed, as a copy. Never waits."""
        return dict(self._verdicts)

    def check_now(self, timeout: float = ANSWER_SECONDS) -> Mapping[str, Verdict]:
        """Look at every running query at once, and give the verdicts.

        Args:
            timeout: Seconds to wait at most for answers; queries that have given none by then keep their
                verdict.
        """
        until = time.monotonic() + timeout
        with self._polling:
            for watch in self._watches.values():
                watch.due = 0.0
        self.poll()
        while (left := until - time.monotonic()) > 0 and self._under_way():
            try:
                look = self._looks.get(timeout=min(left, self._answer_seconds / 2 + 0.01))
            except Empty:
                self.poll()  # gives up what hangs
                continue
            with self._polling:
                self._take(look)
        self.poll()
        return self.verdicts()

    def poll(self) -> float:
        """Take in what came back, judge, and look at what is due. Gives the seconds until there is more to do."""
        now = time.monotonic()
        with self._polling:
            while True:
                try:
                    self._take(self._looks.get_nowait())
                except Empty:
                    break
            self._follow(now)
            for query_id, watch in self._watches.items():
                if watch.probe is not None:
                    self._check_hanging(query_id, watch, now)
                elif watch.due <= now:
                    self._probe(query_id, watch, now)
            due = [self._next_moment(watch) for watch in self._watches.values()]
        return max(0.0, min(due, default=now + _TICK) - now)

    def _next_moment(self, watch: _Watch) -> float:
        """When there is something to do about a query (monotonic seconds)."""
        if watch.probe is None or watch.probe.given_up:
            return watch.due
        began = watch.probe.began
        return (time.monotonic() if began is None else began) + self._answer_seconds

    def _run(self) -> None:
        while not self._ended:
            try:
                pause = self.poll()
            except Exception:  # the watch goes on whatever one round met
                logger.exception("The watchdog's round failed")
                pause = _TICK
            self._wake.wait(min(max(pause, 0.01), _TICK))
            self._wake.clear()

    def _under_way(self) -> bool:
        with self._polling:
            return any(
                watch.probe is not None and not watch.probe.given_up for watch in self._watches.values()
            )

    def _config(self, query_id: str) -> StreamingQueryConfig:
        try:
            return self._manager.config(query_id) or self._default
        except UnknownQueryError:  # forgotten meanwhile
            return self._default

    def _follow(self, now: float) -> None:
        """Watch what the manager has running; forget what is stopped; note what has failed."""
        infos = {info.query_id: info for info in self._manager.list_queries()}
        for query_id in self._watches.keys() - infos.keys():
            self._forget(query_id)
        for query_id, info in infos.items():
            watch = self._watches.get(query_id)
            if info.state is StreamingQueryState.RUNNING:
                if watch is None or watch.run_id != info.spark_run_id:
                    history: deque[Observation] = deque(maxlen=self._limits.window * 2)
                    self._watches[query_id] = _Watch(info.spark_run_id, now, history)
            elif info.state in _DOWN:
                if watch is not None:
                    self._note_failure(query_id, watch, info)
            elif info.state is StreamingQueryState.STOPPED and watch is not None:
                self._forget(query_id)

    def _note_failure(self, query_id: str, watch: _Watch, info: StreamingQueryInfo) -> None:
        watch.due = float("inf")
        error = info.last_error
        if error is not None and watch.verdict.health is not StreamHealth.EXCEPTION:
            failed = Observation(self._clock(), started_at=info.start_time, error=error, metrics=info.metrics)
            self._judge(query_id, watch, failed)

    def _forget(self, query_id: str) -> None:
        self._watches.pop(query_id, None)
        self._verdicts.pop(query_id, None)

    def _probe(self, query_id: str, watch: _Watch, now: float) -> None:
        try:
            handle, info = self._manager.handle(query_id), self._manager.get_query_status(query_id)
        except UnknownQueryError:  # forgotten meanwhile
            return
        watch.due = now + self._config(query_id).poll_interval
        if handle is not None and info.spark_run_id == watch.run_id:
            watch.probed_at = self._clock()
            watch.probe = self._pool.submit(lambda: self._look(handle, info))

    def _look(self, handle: Any, info: StreamingQueryInfo) -> None:
        """On a thread of the pool: ask Spark."""
        ended_with: BaseException | None = None
        try:
            active = bool(handle.isActive)
            ended_with = None if active else handle.exception()
            status = handle.status if active else {}
            progress = handle.lastProgress
        except Exception as exception:  # the JVM is gone, or the handle is broken: that is the finding
            if jvm_is_gone(exception):
                ended_with = exception
            observation = Observation(self._clock(), error=self._error(exception))
        else:
            at = self._clock()
            observation = Observation(
                at=at,
                started_at=info.start_time,
                active=active,
                data_available=status.get("isDataAvailable"),
                trigger_active=status.get("isTriggerActive"),
                message=str(status.get("message", "")),
                error=None if ended_with is None else self._error(ended_with),
                listening=info.metrics.last_event_at is not None,
                metrics=_newer(progress, info.metrics, at),
            )
        self._looks.put(_Look(info.query_id, info.spark_run_id, observation, ended_with))
        self._wake.set()

    def _error(self, exception: BaseException) -> StreamError:
        return self._classifier.stream_error(exception, self._clock(), mask=self._mask)

    def _take(self, look: _Look) -> None:
        watch = self._watches.get(look.query_id)
        if watch is None or watch.run_id != look.run_id:
            return  # of a start that is over
        watch.probe = None
        observation = look.observation
        batch_id = observation.metrics.batch_id
        if batch_id is not None and batch_id != watch.batch_id:
            watch.batch_id, watch.batch_ended_at = batch_id, observation.at
        self._judge(look.query_id, watch, replace(observation, batch_ended_at=watch.batch_ended_at))
        if observation.active is False or look.ended_with is not None:
            watch.due = float("inf")
            error = observation.error
            try:
                self._manager.query_ended(look.query_id, look.run_id, error)
            except UnknownQueryError:  # forgotten meanwhile
                self._forget(look.query_id)

    def _check_hanging(self, query_id: str, watch: _Watch, now: float) -> None:
        probe = watch.probe
        if probe is None or probe.began is None or probe.done:
            return
        if now - probe.began >= self._answer_seconds and (not probe.given_up or watch.due <= now):
            self._pool.give_up(probe)
            watch.due = now + self._config(query_id).poll_interval
            last = watch.history[-1] if watch.history else Observation(watch.probed_at)
            hanging = replace(last, at=self._clock(), unanswered_since=watch.probed_at, error=None)
            self._judge(query_id, watch, hanging)

    def _judge(self, query_id: str, watch: _Watch, observation: Observation) -> None:
        watch.history.append(observation)
        before = watch.verdict
        watch.verdict = judge(watch.history, self._config(query_id), observation.at, self._limits)
        self._verdicts[query_id] = watch.verdict
        if watch.verdict.health is before.health:
            return
        payload = _told(query_id, self._name(query_id), before, watch.verdict, observation)
        if payload is not None:
            self.emit_payload(payload)
        if self._on_verdict is not None:
            try:
                self._on_verdict(query_id, watch.verdict)
            except Exception:  # whoever listens must not end the watch
                logger.exception("A receiver of the watchdog's verdict on %s failed", query_id)

    def _name(self, query_id: str) -> str:
        return self._config(query_id).query_name or query_id


def stall_error(verdict: Verdict, at: float) -> StreamError:
    """A stall as an error, for recovery: it heals by a new start, if by anything."""
    return StreamError(
        type="StreamStalled",
        message=verdict.reason,
        at=at,
        kind="transient",
        suggestion="See in Spark's log what the query waits for: storage that does not answer, a lock, or "
        "executors that are not there.",
    )


def _newer(progress: Mapping[str, Any] | None, heard: StreamMetrics, at: float) -> StreamMetrics:
    """The metrics of Spark's last report, or what its events said if that is as new."""
    if not progress:
        return heard
    asked = metrics_of(progress, StreamMetrics(), at)
    if asked.batch_id is None or (heard.batch_id is not None and heard.batch_id >= asked.batch_id):
        return heard
    return replace(
        asked,
        rows_total=heard.rows_total,
        last_progress_at=heard.last_progress_at,
        last_event_at=heard.last_event_at,
    )


def _told(
    query_id: str, name: str, before: Verdict, verdict: Verdict, observation: Observation
) -> Payload | None:
    """The signal that tells of a change of health; None where it is none to people."""
    health = verdict.health
    if health is StreamHealth.UNKNOWN or (health in _WELL and before.health in _WELL):
        return None
    checked = datetime.fromtimestamp(observation.at, timezone.utc)
    error = observation.error
    if health is StreamHealth.EXCEPTION:
        return StreamExceptionPayload(
            signal="streaming.query_exception",
            query_id=query_id,
            query_name=name,
            health_status=health.value,
            check_time=checked,
            exception=error.message if error else verdict.reason,
            error_type=error.type if error else None,
            suggestion=(error.suggestion if error else None) or None,
        )
    payload = StreamHealthPayload(
        signal=f"streaming.query_{'healthy' if health in _WELL else health.value}",
        query_id=query_id,
        query_name=name,
        health_status=health.value,
        check_time=checked,
        metrics=asdict(observation.metrics),
        reason=verdict.reason,
    )
    if health is StreamHealth.STALLED:
        since = observation.metrics.last_progress_at or observation.batch_ended_at
        if since is not None:
            payload.last_progress_time = datetime.fromtimestamp(since, timezone.utc)
            payload.seconds_since_progress = max(0.0, observation.at - since)
    return payload
