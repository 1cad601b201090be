"""The warm process: holds Spark and one app, and runs what clients ask for, one run at a time."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import psutil

from kindling_dagster import __version__
from kindling_dagster.engines.in_process import InProcessEngine
from kindling_dagster.engines.warm.channel import Channel, ChannelClosed, greet
from kindling_dagster.engines.warm.leftovers import SessionState
from kindling_dagster.engines.warm.spec import WarmPlace, WarmSpec
from kindling_dagster.engines.wire import error_to_json, event_to_json, request_from_json
from kindling_dagster.project import KindlingProject
from kindling_dagster.spark import build_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from kindling_dagster.engines.base import RunRequest
    from kindling_dagster.runtime import KindlingRuntime

logger = logging.getLogger(__name__)

LARGEST_LOG = 32 * 1024 * 1024
"""Bytes that the log may have when a run begins; a larger one begins anew."""

_LOOK_SECONDS = 1.0
_TURN_SECONDS = 0.5
# Spark keeps a thousand finished jobs, stages and queries, with their plans, for an UI; a run needs those that run.
_WITHOUT_UI = {
    "spark.ui.retainedJobs": "50",
    "spark.ui.retainedStages": "50",
    "spark.ui.retainedTasks": "1000",
    "spark.sql.ui.retainedExecutions": "50",
}


class WarmServer:
    """Serves one spec at one place; ``serve`` returns when the process should end.

    Args:
        spec: What for.
        place: Where; the caller holds its lock.
        token: What clients must know.
    """

    def __init__(self, spec: WarmSpec, place: WarmPlace, token: bytes) -> None:
        self._spec = spec
        self._place = place
        self._token = token
        self._project = KindlingProject.from_json(spec.project)
        self._engine = InProcessEngine(
            self._project, self._create_session, spec.storage_options, self._before_run
        )
        self._memory_limit = spec.memory_bytes or psutil.virtual_memory().total // 2
        self._started_at = time.time()
        self._turn = threading.Lock()
        self._state = threading.Lock()
        self._asking = 0
        self._running = ""
        self._runs = 0
        self._clean: SessionState | None = None
        self._tainted = ""
        self._last_used = time.monotonic()
        self._ending = threading.Event()

    def serve(self) -> None:
        """Take runs until it is time to end: idle, too large, told so, or not to be trusted any more."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with closing(listener):
            self._place.socket.unlink(missing_ok=True)
            listener.bind(str(self._place.socket))
            listener.listen(16)
            own = self._place.socket.stat().st_ino
            threading.Thread(target=self._accept, args=(listener,), daemon=True, name="accept").start()
            while not self._ending.wait(_LOOK_SECONDS):
                reason = self._reason_to_end(own)
                if reason and self._end_if_free(reason):
                    break
            if self._is_own(own):
                self._place.socket.unlink(missing_ok=True)
        self._engine.close()
        logger.info("Ended after %d runs.", self._runs)

    def end(self, reason: str, *, now: bool = False) -> None:
        """Take no more runs and end when the one that is on its way has; ``now`` cancels it."""
        logger.info("Ending: %s.", reason)
        with self._state:
            self._tainted = self._tainted or reason
        if now:
            self._engine.cancel(self._running, reason)

    def _reason_to_end(self, own: int) -> str:
        if self._is_to_end():
            return self._tainted
        if time.monotonic() - self._last_used > self._spec.idle_seconds:
            return f"no run for {self._spec.idle_seconds:.0f} s"
        if not self._is_own(own):
            return "its place was given to another process"
        return ""

    def _is_to_end(self) -> bool:
        if self._clean is not None and not self._tainted and not _has_jvm():
            self.end("its JVM is gone")
        return bool(self._tainted)

    def _end_if_free(self, reason: str) -> bool:
        with self._state:
            if self._asking:
                return False
            self._tainted = reason
            self._ending.set()
        logger.info("Ending: %s.", reason)
        return True

    def _is_own(self, inode: int) -> bool:
        try:
            return self._place.socket.stat().st_ino == inode
        except FileNotFoundError:
            return False

    def _accept(self, listener: socket.socket) -> None:
        while not self._ending.is_set():
            try:
                end, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(end,), daemon=True, name="client").start()

    def _converse(self, end: socket.socket) -> None:
        try:
            _require_same_user(end)
            channel = greet(end, self._token, first=True)
        except ChannelClosed as error:
            logger.warning("Refused a connection: %s", error)
            return
        with closing(channel):
            try:
                self._answer(channel, channel.receive())
            except ChannelClosed as error:
                logger.info("A client hung up: %s", error)
            except Exception as error:
                logger.exception("A client's request failed.")
                with suppress(ChannelClosed):
                    channel.send({"end": error_to_json(error)})

    def _answer(self, channel: Channel, message: Mapping[str, Any]) -> None:
        ask = message.get("ask")
        if ask == "status":
            channel.send({"status": self.status()})
        elif ask == "stop":
            self.end("it was told to", now=bool(message.get("now")))
            channel.send({"ending": True})
        elif ask == "run":
            self._run(channel, request_from_json(message.get("request") or {}), bool(message.get("wait")))
        else:
            logger.warning("Refused an unknown request.")
            channel.send({"unknown": True})

    def status(self) -> dict[str, Any]:
        """What this process is and does, as JSON; no settings."""
        return {
            "pid": os.getpid(),
            "project": self._project.name,
            "environment": self._project.environment,
            "version": __version__,
            "started_at": self._started_at,
            "runs": self._runs,
            "running": self._running,
            "idle_seconds": 0.0 if self._running else time.monotonic() - self._last_used,
            "idle_limit_seconds": self._spec.idle_seconds,
            "memory_bytes": _memory(),
            "memory_limit_bytes": self._memory_limit,
        }

    def _run(self, channel: Channel, request: RunRequest, wait: bool) -> None:
        with self._state:
            if self._tainted:
                channel.send({"ending": True})
                return
            self._asking += 1
        try:
            if self._take_turn(channel, wait):
                try:
                    if self._is_to_end():
                        # The run before this one left a session that is not to be trusted, or Spark has died since.
                        channel.send({"ending": True})
                        return
                    self._running = request.run_id
                    self._shorten_log()
                    channel.send({"accepted": True, "log": self._log_size()})
                    self._stream(channel, request)
                finally:
                    if self._running:
                        # Who asked has been told of the run's end: this costs only a run that waits.
                        self._put_back()
                        self._runs += 1
                    self._running = ""
                    self._turn.release()
        finally:
            with self._state:
                self._asking -= 1
                self._last_used = time.monotonic()
        if (memory := _memory()) > self._memory_limit:
            self.end(f"it has grown to {memory / 1e9:.1f} GB")

    def _take_turn(self, channel: Channel, wait: bool) -> bool:
        if self._turn.acquire(blocking=False):
            return True
        if not wait:
            channel.send({"busy": self._running})
            return False
        channel.send({"waiting": self._running})
        while not self._turn.acquire(timeout=_TURN_SECONDS):
            # A client that waits says nothing but that it waits no longer.
            if channel.waiting(0):
                return False
        return True

    def _stream(self, channel: Channel, request: RunRequest) -> None:
        cancelled = threading.Event()

        def listen() -> None:
            reason = "the run was cancelled"
            try:
                reason = str(channel.receive().get("cancel") or reason)
            except ChannelClosed:
                reason = "the run's process is gone"
            cancelled.set()
            self._engine.cancel(request.run_id, reason)

        listening = threading.Thread(target=listen, daemon=True, name="listen")
        listening.start()
        events = self._engine.run(request)
        try:
            for event in events:
                if cancelled.is_set():
                    # It may have come before there was anything to cancel.
                    self._engine.cancel(request.run_id, "the run was cancelled")
                channel.send({"event": event_to_json(event)})
        except ChannelClosed:
            events.close()  # type: ignore[attr-defined]  # a generator; cancels, and waits for the end
            raise
        except Exception as error:
            if self._clean is None:
                self.end("Spark or the app did not start")
            channel.send({"end": error_to_json(error)})
        else:
            channel.send({"end": None})

    def _create_session(self) -> SparkSession:
        conf = self._spec.conf
        return build_session({**_WITHOUT_UI, **conf} if conf.get("spark.ui.enabled") == "false" else conf)

    def _before_run(self, spark: SparkSession, runtime: KindlingRuntime) -> None:
        self._clean = self._clean or SessionState.of(spark, runtime)

    def _put_back(self) -> None:
        """Take away what the run has left, so that runs do not see each other.

        A session that cannot be put back is not used again.
        """
        if self._clean is None:
            return
        try:
            left = self._engine.between_runs(self._clean.restore)
        except Exception:
            logger.exception("The session could not be put back.")
            self.end("its session could not be put back")
        else:
            if left:
                logger.info("Taken away after the run: %s.", ", ".join(left))

    def _log_size(self) -> int:
        return self._place.log.stat().st_size if self._place.log.exists() else 0

    def _shorten_log(self) -> None:
        if self._log_size() > LARGEST_LOG:
            os.truncate(self._place.log, 0)


def _require_same_user(end: socket.socket) -> None:
    """Refuse other users, though the folder keeps them out already.

    Raises:
        ChannelClosed: The other end is another user's.
    """
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if user != os.getuid():
        end.close()
        raise ChannelClosed(f"user {user} is not this process's own")


def _has_jvm() -> bool:
    """Whether Spark's JVM, a child of this process, lives."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if child.name() == "java" and child.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _memory() -> int:
    """Resident bytes of this process and its children, the JVM among them."""
    process = psutil.Process()
    total = 0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += each.memory_info().rss
    return total
