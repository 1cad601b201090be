"""SignalDispatcher: calls subscribers from a bounded pool, in order per signal, with back-pressure."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import blinker
from kindling.signaling import Signal

from kindling_dagster.signals.pool import DaemonThreadPool
from kindling_dagster.signals.receivers import Failed, deliver
from kindling_dagster.signals.settings import Backpressure, SignalSettings

logger = logging.getLogger("kindling_dagster.signals")

SIGNAL_SECONDS: Final = 30.0
"""How long the end of an execution waits for subscribers that are behind."""

_TURN: Final = 64
"""Signals a thread delivers for one name before another name gets its turn."""
_EXIT_SECONDS: Final = 5.0
"""How long a process that ends waits for signals not yet delivered."""


class Delivery(NamedTuple):
    """One signal on its way: what ``receivers.deliver`` needs."""

    signal: Signal
    inner: blinker.Signal | None
    sender: object
    kwargs: Mapping[str, Any]
    failed: Failed


@dataclass(frozen=True)
class SignalStats:
    """What became of one signal's asynchronous emits.

    ``emitted == delivered + dropped + pending`` at any time. ``failures`` counts subscribers that raised.
    ``running_seconds`` is how long the delivery under way has taken (0 when there is none): a large one
    is a subscriber that hangs. ``stalled`` says that emits no longer wait for it.
    """

    signal: str
    emitted: int
    delivered: int
    dropped: int
    pending: int
    failures: int
    running_seconds: float
    stalled: bool


class _Lane:
    """The queue of one signal. All fields are guarded by ``changed``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.changed = threading.Condition(threading.Lock())
        self.waiting: deque[Delivery] = deque()
        self.scheduled = False
        self.stalled = False
        self.emitted = self.delivered = self.dropped = self.failures = 0
        self.running_since: float | None = None
        self.running_number = 0
        self.progress_at = time.monotonic()


class SignalDispatcher:
    """Delivers signals from a bounded pool of threads.

    Signals of one name are delivered one after another, in the order they were emitted; those of
    different names side by side. Emitters of one session should share a dispatcher.

    Args:
        settings: Pool size, queue capacity, back-pressure.
        executor: Another pool to use, for example a ThreadPoolExecutor; it is not shut down by this.
    """

    def __init__(self, settings: SignalSettings | None = None, executor: Executor | None = None) -> None:
        self._settings = settings or SignalSettings()
        self._executor = executor or DaemonThreadPool(self._settings.max_workers, "kindling-signals")
        self._owns_executor = executor is None
        self._lanes: dict[str, _Lane] = {}
        self._lanes_lock = threading.Lock()
        self._here = threading.local()
        self._closed = False
        # The pool's threads end with the process; what still waits then must not be lost.
        self._at_exit = partial(_shutdown_at_exit, weakref.ref(self))
        atexit.register(self._at_exit)

    def submit(self, name: str, delivery: Delivery) -> None:
        """Have a signal delivered; waits only when its queue is full and the policy is ``block``.

        After ``shutdown`` the subscribers are called at once, by the calling thread.
        """
        if self._closed:
            deliver(*delivery)
            return
        lane = self._lane(name)
        with lane.changed:
            self._make_space(lane)
            lane.waiting.append(delivery)
            lane.emitted += 1
            if lane.scheduled:
                return
            lane.scheduled = True
            lane.progress_at = time.monotonic()
        self._schedule(lane)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything emitted before this call is delivered (or dropped).

        Args:
            timeout: Seconds; None waits for ever.

        Returns:
            Whether it is. False at once when a subscriber asks: it would wait for itself.
        """
        if self._is_delivering():
            return False
        deadline = None if timeout is None else time.monotonic() + timeout
        for lane in list(self._lanes.values()):
            with lane.changed:
                target = lane.emitted
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not lane.changed.wait_for(partial(_is_through, lane, target), left):
                    return False
        return True

    def shutdown(self, timeout: float | None = None) -> bool:
        """Deliver what waits, then let the threads go. Can be called twice.

        Args:
            timeout: Seconds to wait; None waits for ever. Threads of a subscriber that hangs are left
                behind; they do not keep the process alive.

        Returns:
            Whether everything was delivered.
        """
        self._closed = True
        atexit.unregister(self._at_exit)
        done = self.flush(timeout)
        if self._owns_executor:
            self._executor.shutdown(wait=done and not self._is_delivering())
        if not done:
            hanging = [row.signal for row in self.stats() if row.pending]
            logger.warning("Signals were not delivered, a subscriber hangs or is slow: %s", hanging)
        return done

    def stats(self) -> tuple[SignalStats, ...]:
        """What became of the signals emitted through this dispatcher, by name."""
        return tuple(_stats(self._lanes[name]) for name in sorted(self._lanes))

    def _is_delivering(self) -> bool:
        return bool(getattr(self._here, "delivering", False))

    def _lane(self, name: str) -> _Lane:
        lane = self._lanes.get(name)
        if lane is None:
            with self._lanes_lock:
                lane = self._lanes.setdefault(name, _Lane(name))
        return lane

    def _make_space(self, lane: _Lane) -> None:
        """Wait or drop until one more fits. Holds ``lane.changed``."""
        capacity = self._settings.capacity
        if len(lane.waiting) < capacity:
            return
        if self._settings.backpressure is Backpressure.BLOCK:
            if self._is_delivering():
                return  # a subscriber that emits must not wait for threads it is one of: over capacity, not lost
            while len(lane.waiting) >= capacity:
                patience = lane.progress_at + self._settings.stall_after - time.monotonic()
                if patience <= 0:
                    break
                lane.changed.wait(patience)
            else:
                return
            if not lane.stalled:
                lane.stalled = True
                logger.warning(
                    "Subscribers of %s have made no progress for %s s; its oldest signals are dropped until "
                    "they do.",
                    lane.name,
                    self._settings.stall_after,
                )
        while len(lane.waiting) >= capacity:
            lane.waiting.popleft()
            lane.dropped += 1

    def _schedule(self, lane: _Lane) -> None:
        try:
            self._executor.submit(self._drain, lane)
        except RuntimeError:
            # Shut down between the check and here: this thread delivers, so that nothing is lost.
            self._drain(lane, turn=None)

    def _drain(self, lane: _Lane, turn: int | None = _TURN) -> None:
        outer = self._is_delivering()
        self._here.delivering = True
        try:
            done = 0
            while self._deliver_next(lane):
                done += 1
                if turn is not None and done >= turn:
                    self._schedule(lane)
                    return
        finally:
            self._here.delivering = outer

    def _deliver_next(self, lane: _Lane) -> bool:
        with lane.changed:
            if not lane.waiting:
                lane.scheduled = False
                return False
            delivery = lane.waiting.popleft()
            lane.running_number = lane.emitted - len(lane.waiting)
            lane.running_since = time.monotonic()
        failed = partial(_count_failure, lane, delivery.failed)
        try:
            deliver(*delivery[:-1], failed)
        except BaseException as error:  # SystemExit from a subscriber must not end the lane
            failed(None, error)
        finally:
            with lane.changed:
                lane.delivered += 1
                lane.running_since = None
                lane.progress_at = time.monotonic()
                lane.stalled = False
                lane.changed.notify_all()
        return True


def _count_failure(lane: _Lane, failed: Failed, receiver: Any, error: BaseException) -> None:
    with lane.changed:
        lane.failures += 1
    failed(receiver, error)


def _is_through(lane: _Lane, target: int) -> bool:
    """Whether the lane's first ``target`` signals are done. They leave the queue oldest first."""
    if lane.running_since is not None and lane.running_number <= target:
        return False
    return lane.emitted - len(lane.waiting) >= target


def _stats(lane: _Lane) -> SignalStats:
    with lane.changed:
        since = lane.running_since
        return SignalStats(
            signal=lane.name,
            emitted=lane.emitted,
            delivered=lane.delivered,
            dropped=lane.dropped,
            pending=lane.emitted - lane.delivered - lane.dropped,
            failures=lane.failures,
            running_seconds=0.0 if since is None else time.monotonic() - since,
            stalled=lane.stalled,
        )


def _shutdown_at_exit(dispatcher: weakref.ref[SignalDispatcher]) -> None:
    alive = dispatcher()
    if alive is not None:
        alive.shutdown(_EXIT_SECONDS)
