"""A host's lease: taken, held by a thread of its own, and given back; losing it ends the right to write at once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from kindling_dagster.streaming.fencing import LeaseFence
from kindling_dagster.streaming.host_settings import HostLostError, HostRefusedError
from kindling_dagster.streaming.model import HostInfo, Lease
from kindling_dagster.streaming.processes import process_gone
from kindling_dagster.streaming.store import StoreError, StoreUnavailable, StreamStore

logger = logging.getLogger("kindling_dagster.streaming")

RENEWALS: Final = 9
"""How often a lease is renewed in the time it holds: several may fail before it ends."""
_ASK_AGAIN: Final = 1.0

Push = Callable[[float], None]


class LeaseKeeper:
    """Takes the lease and renews it until ``stop``.

    Args:
        store: The project's store.
        host: Who asks.
        ttl: Seconds that a lease holds.
        fence: What ends the right to write; kept in step with the lease.
        on_lost: Called once, on the keeper's thread, when the lease is lost.
    """

    def __init__(
        self,
        store: StreamStore,
        host: HostInfo,
        ttl: float,
        fence: LeaseFence,
        on_lost: Callable[[], None],
    ) -> None:
        self._store = store
        self._host = host
        self._ttl = ttl
        self._fence = fence
        self._on_lost = on_lost
        self._lease: Lease | None = None
        self._state = ("starting", "")
        self._push: Push | None = None
        self._pushing = threading.Lock()
        self._wake = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None
        self.lost = ""
        """Why the lease is lost; empty while it is not."""

    @property
    def lease(self) -> Lease:
        """The lease as last renewed."""
        if self._lease is None:
            raise HostLostError("This host has no lease.", "Take one first.")
        return self._lease

    def acquire(self, wait: float, stop: threading.Event) -> bool:
        """Take the lease and start to renew it. False when ``stop`` was set meanwhile.

        The lease of a process of this machine that has died is taken without waiting for its end.

        Raises:
            HostRefusedError: Another host holds it for longer than ``wait`` seconds.
            StoreError: The store cannot be used.
        """
        until = time.monotonic() + wait
        while not stop.is_set():
            self._release_for_the_dead()
            asked_at = self._fence.now()
            self._lease = self._store.acquire_lease(self._host, self._ttl)
            if self._lease is not None:
                self._fence.extend(asked_at, self._ttl)
                self._thread = threading.Thread(target=self._run, name="stream host lease", daemon=True)
                self._thread.start()
                return True
            if time.monotonic() >= until:
                raise HostRefusedError(
                    f"The streams are run by another host: {self._holder()}.",
                    "Stop that one first, or wait until its lease ends if it is gone.",
                )
            stop.wait(_ASK_AGAIN)
        return False

    def tell(self, state: str, detail: str = "") -> None:
        """Say how the host is from now on, and let it be known at once."""
        self._state = (state, detail)
        self._wake.set()

    @property
    def held(self) -> bool:
        """Whether this host has had the lease."""
        return self._lease is not None

    def push_with(self, push: Push | None) -> None:
        """From now on, call ``push`` with the seconds left at each renewal: what ends Spark's JVM when none comes."""
        with self._pushing:
            self._push = push
            if push is not None:
                push(self._fence.seconds_left)

    def stop(self, release: bool) -> None:
        """Stop renewing; give the lease back, so that the next host need not wait."""
        self._ended = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(self._ttl)
        self._fence.close("the host has ended")
        if release and self._lease is not None and not self.lost:
            try:
                self._store.release(self._lease)
            except StoreError as error:
                logger.warning("The lease was not given back, and ends by itself: %s", error)

    def _run(self) -> None:
        while not self._ended and not self.lost:
            self._wake.wait(self._ttl / RENEWALS)
            self._wake.clear()
            if not self._ended:
                self._renew()

    def _renew(self) -> None:
        asked_at = self._fence.now()
        try:
            self._lease = self._store.renew(self.lease, self._ttl, *self._state)
        except StoreUnavailable as error:
            logger.warning("The lease was not renewed (%.0f s left): %s", self._fence.seconds_left, error)
            if self._fence.seconds_left <= 0:
                self.give_up(f"the store did not answer for {self._ttl:.0f} s, as long as a lease holds")
            return
        except Exception as error:  # taken by another, the store gone or damaged: all end the right to write
            self.give_up(str(error))
            return
        self._fence.extend(asked_at, self._ttl)
        try:
            with self._pushing:
                if self._push is not None:
                    self._push(self._fence.seconds_left)
        except Exception as error:  # py4j raises many kinds
            self.give_up(f"Spark's JVM does not answer ({type(error).__name__})")

    def give_up(self, reason: str) -> None:
        """The lease counts as lost; the right to write ends."""
        if not self.lost:
            self.lost = reason
            self._fence.close(reason)
            self._on_lost()

    def _release_for_the_dead(self) -> None:
        holder = self._store.host()
        if holder is not None and holder.alive() and process_gone(holder):
            self._store.release(Lease(holder.host_id, holder.token, holder.expires_at))

    def _holder(self) -> str:
        holder = self._store.host()
        if holder is None:
            return "unknown"
        run = f", run {holder.run_id}" if holder.run_id else ""
        return f"process {holder.pid} on {holder.hostname}{run}"
