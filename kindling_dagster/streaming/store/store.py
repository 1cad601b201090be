"""The stream store: what should run, what runs, who may run it, and what happened. Over SQLite or PostgreSQL."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import Table
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import SQLAlchemyError

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
from kindling_dagster.streaming.store import commands as actions
from kindling_dagster.streaming.store import documents, leases, reports, tables
from kindling_dagster.streaming.store.database import Database
from kindling_dagster.streaming.store.errors import StoreError
from kindling_dagster.streaming.store.location import redact, sqlite_path
from kindling_dagster.streaming.store.migrations import ensure, known_id, migrate
from kindling_dagster.streaming.store.postgres import PostgresDatabase
from kindling_dagster.streaming.store.sql import Scope
from kindling_dagster.streaming.store.sqlite import SqliteDatabase

DEFAULT_WAIT = 20.0
"""Seconds that a call waits for a store that is locked or not reachable."""

T = TypeVar("T")


class StreamStore:
    """A project's part of the store. Safe to share among threads; each process opens its own.

    Every method is one transaction and may raise ``StoreUnavailable`` (nothing is half written, and
    repeating the same call is safe), ``StoreReplaced`` or ``StoreCorrupted``.
    """

    def __init__(self, database: Database, scope: Scope) -> None:
        self._database = database
        self._scope = scope

    def __repr__(self) -> str:
        return f"StreamStore({self._scope.shown}, project={self._scope.project})"

    @property
    def project(self) -> str:
        """Whose part of the store this is."""
        return self._scope.project

    @property
    def identity(self) -> str:
        """Given to a store when it is made: another one means that the former was lost, and all it held."""
        return self._scope.store_id

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
        if not project:
            raise StoreError(
                "A stream store needs a project's name; it is empty.", "Give the project a name."
            )
        database = connect_database(url, wait, clock)
        database.make(lambda connection: migrate(connection, database.shown))
        store_id = database.read(lambda connection: known_id(connection, project, database.shown))
        if store_id is None:

            def prepare(connection: Connection) -> str:
                database.lock_schema(connection)
                return ensure(connection, project, database.shown)

            store_id = database.write(prepare)
        return cls(database, Scope(project, store_id, database.shown))

    def close(self) -> None:
        """Give back the connections. A closed store opens them again when it is used."""
        self._database.close()

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
        submission = uuid.uuid4().hex
        if not commands:
            return ()
        return self._database.write(
            lambda connection: actions.submit(
                connection, self._scope, commands, submission, self._database.clock()
            )
        )

    def desired(self) -> dict[str, Desired]:
        """What should be, by stream."""
        return self._database.read(lambda connection: actions.desired(connection, self._scope))

    def statuses(self) -> dict[str, StreamStatus]:
        """What was last reported, by stream."""
        return self._by_stream(tables.status, StreamStatus)

    def host(self) -> HostInfo | None:
        """Who holds, or last held, the lease; its times are in this machine's clock."""
        now, clock = self._database.now, self._database.clock
        host, unsettled = self._database.read(lambda c: leases.current(c, self._scope, now, clock))
        if unsettled:
            self._database.write(lambda connection: leases.settle(connection, self._scope, now))
        return host

    def history(self, stream_id: str | None = None, limit: int = 100) -> tuple[HistoryEntry, ...]:
        """What happened, newest first; the last 200 entries of each stream are kept."""
        return self._database.read(lambda c: reports.history(c, self._scope, stream_id, limit))

    def dead_letters(self) -> dict[str, DeadLetter]:
        """Streams that wait for a person, by stream."""
        return self._by_stream(tables.dead_letter, DeadLetter)

    def fingerprints(self) -> dict[str, str]:
        """The last known fingerprint of each watched entity."""
        return self._database.read(lambda connection: documents.fingerprints(connection, self._scope))

    def put_fingerprint(self, entity_id: str, text: str) -> None:
        """Remember an entity's fingerprint."""
        self._database.write(lambda c: documents.write_fingerprint(c, self._scope, entity_id, text))

    def document(self, kind: str, key: str) -> tuple[Any, int]:
        """A small JSON state and its version; ``(None, 0)`` where there is none."""
        return self._database.read(lambda connection: documents.read(connection, self._scope, kind, key))

    def document_version(self, kind: str, key: str) -> int:
        """A document's version alone, which tells whether it is worth reading; 0 where there is none."""
        return self._database.read(lambda connection: documents.version(connection, self._scope, kind, key))

    def put_document(self, kind: str, key: str, value: Any, expected: int) -> int:
        """Write a small JSON state if its version is still ``expected`` (0: there is none). Gives the new version.

        Raises:
            ConflictError: Another was faster.
        """
        writer = uuid.uuid4().hex
        return self._database.write(
            lambda c: documents.write(c, self._scope, kind, key, value, expected, writer)
        )

    # What the host does.

    def acquire_lease(self, host: HostInfo, ttl: float) -> Lease | None:
        """Take the project's lease for ``ttl`` seconds; None while another host's still holds.

        ``host.host_id`` must be new for each start of a host: a host that asks again, not having heard
        the answer, gets a newer token, and its older one is void. Other fields but ``token`` and the times
        of the lease are kept as given.
        """
        if not host.host_id or ttl <= 0:
            raise StoreError(
                f"A lease needs a host's id and a time to live above 0, not {host.host_id!r} and {ttl}."
            )
        asked_at = self._database.clock()
        host = replace(host, started_at=host.started_at or asked_at)
        token = self._database.write(lambda c: leases.acquire(c, self._scope, host, ttl, self._database.now))
        return None if token is None else Lease(host.host_id, token, asked_at + ttl)

    def renew(self, lease: Lease, ttl: float, state: str = "running", detail: str = "") -> Lease:
        """Hold the lease for ``ttl`` seconds from now, and say how the host is.

        Raises:
            LeaseLost: Another has taken it, or it was given back.
        """
        asked_at = self._database.clock()
        self._database.write(
            lambda c: leases.renew(c, self._scope, lease, ttl, state, detail, self._database.now)
        )
        return replace(lease, expires_at=asked_at + ttl)

    def release(self, lease: Lease) -> None:
        """Give the lease back, so that another host need not wait for its end. Nothing happens when it is lost."""
        self._database.write(lambda connection: leases.release(connection, self._scope, lease))

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
        report = reports.Report(statuses, recovery or {}, history, dead_letters, seen or {})
        self._database.write(lambda connection: reports.write(connection, self._scope, lease, report))

    def recovery_states(self) -> dict[str, RecoveryState]:
        """What recovery remembers, by stream."""
        return self._by_stream(tables.recovery, RecoveryState)

    # What the supervisor does.

    def record_launch(self, launch: HostLaunch) -> None:
        """Remember that a host was asked for; the same ``at`` again replaces the entry. The last 100 are kept."""
        self._database.write(lambda connection: documents.write_launch(connection, self._scope, launch))

    def launches(self, limit: int = 20) -> tuple[HostLaunch, ...]:
        """The last launches, newest first."""
        return self._database.read(lambda connection: documents.launches(connection, self._scope, limit))

    def _by_stream(self, table: Table, kind: type[T]) -> dict[str, T]:
        return self._database.read(lambda c: reports.by_stream(c, self._scope, table, kind))


def connect_database(url: str, wait: float, clock: Callable[[], float]) -> Database:
    """The database that a URL names; nothing is opened yet.

    Raises:
        StoreError: It is no URL, or of a database that is not supported.
    """
    if path := sqlite_path(url):
        return SqliteDatabase(path, wait, clock)
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() in ("postgresql", "postgres"):
            return PostgresDatabase(parsed.set(drivername="postgresql+psycopg"), wait, clock)
    except (SQLAlchemyError, ValueError):
        pass  # said below, without the driver's words: they quote the URL with its password
    raise StoreError(
        f"{redact(url)!r} is no place for a stream store.",
        "Use sqlite:////absolute/path.db or postgresql://user:password@host/database.",
    )
