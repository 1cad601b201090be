"""The end of a host's right to write, by clocks that go on while the process is frozen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from kindling_dagster.errors import RunError


class HostFencedError(RunError):
    """A host may no longer write: its lease is over, or another host has taken it."""


def awake_and_asleep_seconds() -> float:
    """Seconds on a clock that never goes back and, where the system has one, goes on while it sleeps."""
    return time.clock_gettime(_BOOT_CLOCK) if _BOOT_CLOCK is not None else time.monotonic()


_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", None)


class LeaseFence:
    """Until when this host may write.

    A lease is dated from before it was asked for, so that this process never believes in it longer
    than the store does. Safe to use from any thread; ``check`` costs a microsecond.

    Args:
        clock: Seconds; must go on while the process is stopped.
    """

    def __init__(self, clock: Callable[[], float] = awake_and_asleep_seconds) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until = clock()
        self._lost = ""

    def now(self) -> float:
        """Seconds on the fence's clock, to date a request for the lease."""
        return self._clock()

    def extend(self, asked_at: float, ttl: float) -> None:
        """The lease was granted for ``ttl`` seconds by a request made at ``asked_at``."""
        with self._lock:
            self._until = max(self._until, asked_at + ttl)

    def close(self, reason: str) -> None:
        """The lease is over, for ever."""
        with self._lock:
            self._lost = self._lost or reason

    @property
    def seconds_left(self) -> float:
        """Seconds for which this host may still write; 0 when it may not."""
        with self._lock:
            return 0.0 if self._lost else max(0.0, self._until - self._clock())

    def check(self, stream_id: str) -> None:
        """Raise HostFencedError when this host may no longer write what ``stream_id`` has read."""
        if self.seconds_left <= 0:
            raise HostFencedError(
                f"Stream {stream_id} must not write: this host's lease is over"
                f"{f' ({self._lost})' if self._lost else ''}, and another host may run the stream by now.",
                "Nothing is lost: the batch is written by the host that holds the lease.",
            )
