"""The stream store: what should run, what runs, who may run it, and what happened. Over SQLite or PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from kindling_dagster.streaming.model import (
    Command,
    DeadLetter,
    Desired,
    HistoryEntry,
    HostInfo,
    HostLaunch,
    Lease,
    RecoveryState,
    StreamStatus,
)

DEFAULT_WAIT = 20.0


class StreamStore:
    """A project's part of the store. Safe to share among threads; each process opens its own.

    Every method is one transaction and may raise ``StoreUnavailable`` (nothing is half written, and
    repeating the same call is safe), ``StoreReplaced`` or ``StoreCorrupted``.
    """

    @classmethod
    def open(
        cls,
        url: str,
        project: str,
        *,
        wait: float = DEFAULT_WAIT,
        clock: Callable[[], float] = time.time,
    ) -> StreamStore:
        """Open the store, creating or migrating it where needed.

        Args:
            url: ``sqlite:///…`` or ``postgresql://…``; the folder of a SQLite file is made.
            project: Whose part of the store; several projects may share one.
            wait: Seconds that a call waits for a store that is locked or not reachable.
            clock: This machine's Unix time. Leases on PostgreSQL go by the server's clock instead.

        Raises:
            StoreUnavailable: It cannot be reached.
            StoreVersionError: A newer version of this package has written it.
            StoreCorrupted: The file is no store, or a damaged one.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Give back the connections. A closed store opens them again when it is used."""

    def __enter__(self) -> StreamStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What clients do: people, sensors, the command line.

    def submit(self, commands: Sequence[Command]) -> tuple[str, ...]:
        """Obey commands, all or none; each id once for ever. Gives the ids that took effect by this call.

        ``start`` and ``stop`` set what is desired; ``restart`` also raises the generation; ``revive``
        also forgets the dead letter and the recovery state.
        """
        raise NotImplementedError

    def desired(self) -> dict[str, Desired]:
        """What should be, by stream."""
        raise NotImplementedError

    def statuses(self) -> dict[str, StreamStatus]:
        """What was last reported, by stream."""
        raise NotImplementedError

    def host(self) -> HostInfo | None:
        """Who holds, or last held, the lease; its times are in this machine's clock."""
        raise NotImplementedError

    def history(self, stream_id: str | None = None, limit: int = 100) -> tuple[HistoryEntry, ...]:
        """What happened, newest first; the last 200 entries of each stream are kept."""
        raise NotImplementedError

    def dead_letters(self) -> dict[str, DeadLetter]:
        """Streams that wait for a person, by stream."""
        raise NotImplementedError

    def fingerprints(self) -> dict[str, str]:
        """The last known fingerprint of each watched entity."""
        raise NotImplementedError

    def put_fingerprint(self, entity_id: str, text: str) -> None:
        """Remember an entity's fingerprint."""
        raise NotImplementedError

    def document(self, kind: str, key: str) -> tuple[Any, int]:
        """A small JSON state and its version; ``(None, 0)`` where there is none."""
        raise NotImplementedError

    def put_document(self, kind: str, key: str, value: Any, expected: int) -> int:
        """Write a small JSON state if its version is still ``expected`` (0: there is none). Gives the new version.

        Raises:
            ConflictError: Another was faster.
        """
        raise NotImplementedError

    # What the host does.

    def acquire_lease(self, host: HostInfo, ttl: float) -> Lease | None:
        """Take the project's lease for ``ttl`` seconds; None while another host's still holds.

        ``host.host_id`` must be new for each start of a host: a host that asks again, not having heard
        the answer, gets a newer token, and its older one is void. Other fields but ``token`` and the times
        of the lease are kept as given.
        """
        raise NotImplementedError

    def renew(self, lease: Lease, ttl: float, state: str = "running", detail: str = "") -> Lease:
        """Hold the lease for ``ttl`` seconds from now, and say how the host is.

        Raises:
            LeaseLost: Another has taken it, or it was given back.
        """
        raise NotImplementedError

    def release(self, lease: Lease) -> None:
        """Give the lease back, so that another host need not wait for its end. Nothing happens when it is lost."""
        raise NotImplementedError

    def report(
        self,
        lease: Lease,
        statuses: Sequence[StreamStatus] = (),
        recovery: Mapping[str, RecoveryState] | None = None,
        history: Sequence[HistoryEntry] = (),
        dead_letters: Sequence[DeadLetter] = (),
        seen: Mapping[str, int] | None = None,
    ) -> None:
        """Write what the host saw, all or nothing, if its token is still the newest.

        Args:
            lease: The right to write.
            statuses: Of the streams that changed.
            recovery: Of the streams that changed.
            history: In order; an entry that is there already (a repeated report) is not written twice.
            dead_letters: New ones; only ``revive`` removes them.
            seen: By stream, the generation of ``Desired`` that all this is about. Recovery states and dead
                letters of a stream that was revived at a later generation are not written: the person's
                word stands. Streams left out are written.

        Raises:
            LeaseLost: A newer host holds the lease, or it was given back.
        """
        raise NotImplementedError

    def recovery_states(self) -> dict[str, RecoveryState]:
        """What recovery remembers, by stream."""
        raise NotImplementedError

    # What the supervisor does.

    def record_launch(self, launch: HostLaunch) -> None:
        """Remember that a host was asked for; the same ``at`` again replaces the entry. The last 100 are kept."""
        raise NotImplementedError

    def launches(self, limit: int = 20) -> tuple[HostLaunch, ...]:
        """The last launches, newest first."""
        raise NotImplementedError
