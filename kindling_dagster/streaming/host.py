"""StreamHost: holds a project's lease and Spark session, makes actual what is desired, and ends when it must."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kindling_dagster.engines.base import LogLine, RunEvent
from kindling_dagster.engines.listening import SignalListener
from kindling_dagster.engines.masking import masked, secret_book
from kindling_dagster.jvm import DeadMansSwitch, activate_session, jvm_is_alive
from kindling_dagster.project import KindlingProject
from kindling_dagster.runtime import KindlingRuntime
from kindling_dagster.signals.dispatch import SignalDispatcher
from kindling_dagster.signals.plain import scrub_text
from kindling_dagster.signals.settings import SignalSettings
from kindling_dagster.spark import session_is_up
from kindling_dagster.streaming.config import failure_rules
from kindling_dagster.streaming.failures import FailureClassifier, jvm_is_gone
from kindling_dagster.streaming.fencing import LeaseFence
from kindling_dagster.streaming.host_lease import LeaseKeeper
from kindling_dagster.streaming.host_reports import Reporter
from kindling_dagster.streaming.host_settings import (
    HostEnd,
    HostLostError,
    HostRefusedError,
    HostSettings,
)
from kindling_dagster.streaming.hosted import HostedStreams
from kindling_dagster.streaming.identity import running_code_version, store_project
from kindling_dagster.streaming.listener import KindlingStreamingListener
from kindling_dagster.streaming.model import Desired, HostInfo
from kindling_dagster.streaming.processes import machine_id
from kindling_dagster.streaming.queries import StreamingQueryManager
from kindling_dagster.streaming.recovery import StreamingRecoveryManager
from kindling_dagster.streaming.restart_news import RESTART_SIGNALS
from kindling_dagster.streaming.restart_signals import RestartSignals
from kindling_dagster.streaming.rolling import asked_to_end
from kindling_dagster.streaming.session_looks import SessionLooks
from kindling_dagster.streaming.starter import StreamStarter
from kindling_dagster.streaming.store import StoreError, StoreUnavailable, StreamStore
from kindling_dagster.streaming.watchdog import StreamingWatchdog

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["HostEnd", "HostLostError", "HostRefusedError", "HostSettings", "StreamHost", "run_host"]

logger = logging.getLogger("kindling_dagster.streaming")

EX_FENCED: Final = 75
"""Exit code of a JVM whose host lost its lease: EX_TEMPFAIL of sysexits.h."""
_STOP_SIGNALS: Final = 5.0
_STORE_WAIT: Final = 10.0

Emit = Callable[[RunEvent], None]


def run_host(
    project: KindlingProject,
    store_url: str,
    create_session: Callable[[], SparkSession],
    run_id: str = "",
    stop: threading.Event | None = None,
    *,
    settings: HostSettings | None = None,
    overrides: Mapping[str, Any] | None = None,
    emit: Emit | None = None,
) -> HostEnd:
    """Run a project's streams until ``stop`` is set; returns when the host has drained and ended.

    Args:
        project: The app.
        store_url: The store; see ``identity.store_url``.
        create_session: Gives the Spark session; called on the host's own thread.
        run_id: The Dagster run that holds the host, if any.
        stop: Ends the host when set. An exception in the waiting (main) thread ends it too.
        settings: How it behaves.
        overrides: Over the settings of streams, as for ``stream_configs``.
        emit: Takes signals and log lines as they happen; called from several threads.

    Raises:
        HostRefusedError: Another host holds the lease and keeps it.
        HostLostError: The lease was lost, or Spark's JVM or the store ended.
        KindlingDagsterError: Spark or the app cannot start.
    """
    # A store that is locked must not hold up the renewal of the lease until it ends.
    with StreamStore.open(store_url, store_project(project), wait=_STORE_WAIT) as store:
        host = StreamHost(
            project, store, create_session, run_id=run_id, settings=settings, overrides=overrides, emit=emit
        )
        return host.run(stop)


class StreamHost:
    """One host, from the lease to its end. Spark is used on threads of its own, never on the caller's.

    Args: as for ``run_host``, with the opened store.
    """

    def __init__(
        self,
        project: KindlingProject,
        store: StreamStore,
        create_session: Callable[[], SparkSession],
        *,
        run_id: str = "",
        settings: HostSettings | None = None,
        overrides: Mapping[str, Any] | None = None,
        emit: Emit | None = None,
    ) -> None:
        self._project = project
        self._manifest = project.manifest
        self._store = store
        self._create_session = create_session
        self._run_id = run_id
        self._settings = settings or HostSettings()
        self._overrides = overrides
        self._emit: Emit = masked(emit or (lambda _: None), self._manifest.secrets)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._stop_reason = ""
        self._fence = LeaseFence()
        self._info = HostInfo(
            host_id=uuid.uuid4().hex,
            token=0,
            run_id=run_id,
            pid=os.getpid(),
            hostname=socket.gethostname(),
            machine=machine_id(),
            code_version=running_code_version(project),
            started_at=time.time(),
        )
        self._keeper = LeaseKeeper(store, self._info, self._settings.lease, self._fence, self._fenced)
        self._switch: DeadMansSwitch | None = None
        self._spark: SparkSession | None = None
        self._owns_session = False
        self._over_since = 0.0
        self._desired: Mapping[str, Desired] = {}
        self._news: RestartSignals | None = None

    def run(self, stop: threading.Event | None = None) -> HostEnd:
        """Host until ``stop`` is set, somebody asks the host to end, or it cannot go on. See ``run_host``."""
        ended: list[HostEnd | BaseException] = []

        def work() -> None:
            try:
                ended.append(self._host())
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=work, name=f"stream host {self._project.name}", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.1)
                if stop is not None and stop.is_set():
                    self.end("it was told to end")
                self._abandon_when_stuck()
        except BaseException:
            self.end("it was interrupted")
            thread.join(self._settings.drain + self._settings.close)
            raise
        outcome = ended[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _abandon_when_stuck(self) -> None:
        """Leave threads behind that hang in a JVM that neither answers nor ends, once the lease is over."""
        if not self._keeper.held or self._fence.seconds_left > 0:
            return
        # Counted from when this is seen: a process that was frozen has not had its time yet.
        now = time.monotonic()
        self._over_since = self._over_since or now
        if now - self._over_since > self._settings.drain + self._settings.close:
            raise HostLostError(
                f"The host of {self._project.name} did not end although its lease was over.",
                "Spark's JVM does not answer; end it.",
            )

    def end(self, reason: str) -> None:
        """Drain and end; returns at once. Any thread."""
        if not self._stop.is_set():
            self._stop_reason = reason
            self._stop.set()
            self._wake.set()

    # On the host's own thread

    def _host(self) -> HostEnd:
        if not self._keeper.acquire(self._settings.lease_wait, self._stop):
            return HostEnd(f"{self._stop_reason} before it had the lease")
        self._say(f"This host holds the lease of {self._project.name} (token {self._keeper.lease.token}).")
        try:
            with ExitStack() as undo:
                streams, reporter = self._start(undo)
                self._keeper.tell("running")
                try:
                    self._loop(streams, reporter)
                    return self._drain(streams, reporter)
                except Exception:
                    # Spark is stopped with the host; in a session of somebody else queries would go on.
                    if not self._owns_session:
                        streams.drain(0.0, self._settings.close)
                    raise
        except Exception as error:
            raise self._explained(error) from error
        finally:
            self._keeper.stop(release=True)

    def _start(self, undo: ExitStack) -> tuple[HostedStreams, Reporter]:
        started = time.monotonic()
        self._owns_session = not session_is_up()
        started_here: list[bool] = []

        def make_session() -> SparkSession:
            started_here.append(True)
            return self._create_session()

        runtime = KindlingRuntime.start(self._project, make_session)
        self._spark = spark = runtime.spark
        # An app that was up already in this process belongs to who started it.
        undo.callback(self._close, runtime if started_here else None)
        if self._owns_session:
            self._switch = DeadMansSwitch(spark, EX_FENCED)
            self._keeper.push_with(self._switch.push)
        settings = SignalSettings.from_config(self._manifest.settings)
        dispatcher = SignalDispatcher(settings)
        runtime.lineage.begin(self._run_id, dispatcher)
        undo.callback(dispatcher.shutdown, _STOP_SIGNALS)
        # The sensor and its runs show restarts for dimensions in Dagster; here they are for the app alone.
        hearing = SignalListener(self._emit, leave_out=RESTART_SIGNALS)
        hearing.connect(runtime.signals)
        undo.callback(hearing.close)
        classifier = FailureClassifier().extended(*failure_rules(self._manifest.settings))
        book = secret_book(self._manifest.secrets)
        common: dict[str, Any] = {"signals": runtime.signals, "settings": settings, "dispatcher": dispatcher}
        judging: dict[str, Any] = {"classifier": classifier, "mask": lambda text: scrub_text(book.mask(text))}
        before = self._store.statuses()
        manager = StreamingQueryManager(**common, **judging)
        reporter = Reporter(self._store, before, self._run_id, self._settings.report)
        streams = HostedStreams(
            self._manifest,
            StreamStarter(runtime, spark, self._store, self._fence),
            manager,
            StreamingRecoveryManager(states=self._store.recovery_states(), **common),
            reporter,
            before=before,
            check=self._check,
            wake=self._wake,
            overrides=self._overrides,
            starters=self._settings.starters,
            **judging,
        )
        undo.enter_context(
            KindlingStreamingListener(runtime.signals, streams.observe, settings=settings, session=spark)
        )
        self._news = RestartSignals(self._store, runtime.signals, settings, dispatcher)
        streams.watchdog = StreamingWatchdog(manager, on_verdict=streams.judged, **common, **judging)
        streams.watchdog.start()
        undo.callback(streams.watchdog.stop)
        looks = SessionLooks(
            self._store,
            runtime.read_entity,
            partial(activate_session, spark),
            mask=judging["mask"],
            may_write=lambda: self._fence.seconds_left > 0,
        )
        looks.start()
        undo.callback(looks.stop)
        self._say(
            f"Spark {spark.version} and {self._project.name} are up ({time.monotonic() - started:.1f} s)."
        )
        return streams, reporter

    def _loop(self, streams: HostedStreams, reporter: Reporter) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            self._check()
            self._look()
            due = streams.tick(self._desired)
            self._report(streams, reporter)
            self._tell_news()
            pause = self._settings.reconcile
            if due is not None:
                pause = min(pause, max(0.0, due - time.time()))
            if not self._stop.is_set():
                self._wake.wait(pause)

    def _look(self) -> None:
        """Read what is wanted; what was last read goes on counting while the store does not answer."""
        try:
            self._desired = self._store.desired()
            reason = asked_to_end(self._store, self._info.host_id)
        except StoreUnavailable as error:
            self._say(f"What is wanted cannot be read: {error}", "warning")
            return
        if reason is not None:
            self.end(reason)

    def _report(self, streams: HostedStreams, reporter: Reporter, *, all_numbers: bool = False) -> None:
        told = reporter.report(
            self._keeper.lease,
            streams.sights(),
            streams.changed_recovery(),
            streams.seen(),
            all_numbers=all_numbers,
        )
        if not told:
            self._say("The store does not answer; what happens is told later.", "warning")

    def _tell_news(self) -> None:
        """Tell the app what the dimension sensor has decided meanwhile."""
        if self._news is None:
            return
        try:
            self._news.tell()
        except StoreUnavailable as error:
            self._say(f"What became of dimensions is told later: {error}", "warning")

    def _drain(self, streams: HostedStreams, reporter: Reporter) -> HostEnd:
        self._say(f"Draining: {self._stop_reason}.")
        self._keeper.tell("draining", self._stop_reason)
        stopped = streams.drain(self._settings.drain, self._settings.close)
        self._report(streams, reporter, all_numbers=True)
        self._keeper.tell("draining", f"{self._stop_reason}; {stopped} streams stopped")
        return HostEnd(self._stop_reason, stopped)

    def _check(self) -> None:
        """Raise HostLostError when this host is at its end: then no stream is to blame for what it meets."""
        if not self._keeper.lost and self._fence.seconds_left <= 0:
            self._keeper.give_up("it was not renewed in time")
        if self._keeper.lost:
            raise HostLostError(f"The lease is lost: {self._keeper.lost}")
        if self._spark is not None and not jvm_is_alive(self._spark):
            raise HostLostError(_JVM_ENDED)

    def _fenced(self) -> None:
        """The lease is lost: Spark ends at once, whatever it is doing. On any thread."""
        if self._switch is not None:
            try:
                self._switch.push(0)
            except Exception as error:  # the JVM is gone already
                logger.info("Spark's JVM could not be ended: %s", type(error).__name__)
        self._wake.set()

    def _explained(self, error: Exception) -> Exception:
        """What to raise for an error that ended the host."""
        if self._keeper.lost:
            reason = f"its lease is lost: {self._keeper.lost}"
        elif jvm_is_gone(error) or (self._spark is not None and not jvm_is_alive(self._spark)):
            reason = _JVM_ENDED
        elif isinstance(error, StoreError | HostLostError):
            reason = str(error)
        else:
            return error
        self._say(f"The host ends: {reason}", "error")
        return HostLostError(
            f"The host of {self._project.name} cannot go on: {reason}.",
            "The next host goes on from the checkpoints; nothing is lost.",
        )

    def _close(self, runtime: KindlingRuntime | None) -> None:
        """Close the app, and stop the session if this host started it; with a JVM that is gone, as far as it goes."""
        self._keeper.push_with(None)
        parts: list[tuple[str, Callable[[], None]]] = [("Spark", self._stop_spark)]
        if runtime is not None:
            parts.insert(0, ("the app", runtime.close))
        for what, close in parts:
            try:
                close()
            except Exception as error:  # py4j raises many kinds
                logger.info("%s was not closed in good order: %s", what, type(error).__name__)

    def _stop_spark(self) -> None:
        if self._switch is not None:
            self._switch.disarm()
        if self._owns_session and self._spark is not None:
            self._spark.stop()

    def _say(self, message: str, level: str = "info") -> None:
        self._emit(LogLine(level, message))
        logger.log(logging.getLevelName(level.upper()), message)


_JVM_ENDED: Final = "Spark's JVM has ended"
