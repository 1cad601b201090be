"""Who may run a project's streams: leases with fencing tokens, judged by one clock inside one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, Row

from kindling_dagster.streaming.model import HostInfo, Lease
from kindling_dagster.streaming.store import tables
from kindling_dagster.streaming.store.codec import from_text, to_text
from kindling_dagster.streaming.store.errors import LeaseLost
from kindling_dagster.streaming.store.sql import Scope, lock_project

Now = Callable[[Connection], float]

_project = tables.project


@dataclass(frozen=True)
class Holding:
    """The lease as the store has it. Times are of the clock that decides on leases."""

    host_id: str
    token: int
    held: bool
    ttl: float
    expires_at: float

    def ends_at(self, now: float) -> float:
        """When it ends; at the latest ``ttl`` from now.

        An end further away was written before the clock was set back. It is moved rather than taken as
        past: its host may be alive and renew it (never two at once), or dead (never locked out for long).
        """
        return min(self.expires_at, now + self.ttl)

    def free_for(self, host_id: str, now: float) -> bool:
        """Whether a host may take it: it was given back, has ended, or is that host's own."""
        return not self.held or self.host_id == host_id or self.ends_at(now) <= now


def acquire(connection: Connection, scope: Scope, host: HostInfo, ttl: float, now_of: Now) -> int | None:
    """Take the lease; gives its token, or None while another's holds."""
    row = lock_project(connection, scope)
    now = now_of(connection)  # after the lock, for which one may have waited long
    holding = _holding(row)
    if not holding.free_for(host.host_id, now):
        _move_end(connection, scope, holding, now)
        return None
    token = holding.token + 1
    _set(
        connection,
        scope,
        token=token,
        host_id=host.host_id,
        held=True,
        ttl=ttl,
        heartbeat_at=now,
        expires_at=now + ttl,
        body=to_text(replace(host, token=token)),
    )
    return token


def renew(
    connection: Connection, scope: Scope, lease: Lease, ttl: float, state: str, detail: str, now_of: Now
) -> None:
    """Hold the lease for longer, also one that has ended while nobody took it."""
    row = check(connection, scope, lease)
    now = now_of(connection)
    host = replace(_host(row), state=state, detail=detail)
    _set(connection, scope, ttl=ttl, heartbeat_at=now, expires_at=now + ttl, body=to_text(host))


def release(connection: Connection, scope: Scope, lease: Lease) -> None:
    """Give the lease back if it is still this one; ``detail`` of the last renewal stays."""
    row = lock_project(connection, scope)
    if (row.token, row.host_id) == (lease.token, lease.host_id) and row.held:
        _set(connection, scope, held=False, body=to_text(replace(_host(row), state="ended")))


def check(connection: Connection, scope: Scope, lease: Lease) -> Row[Any]:
    """Lock the project and make sure that the lease is the newest. First in each of a host's transactions.

    Raises:
        LeaseLost: It is not, or it was given back.
    """
    row = lock_project(connection, scope)
    if (row.token, row.host_id) != (lease.token, lease.host_id):
        raise LeaseLost(
            f"Host {lease.host_id} no longer holds the lease of project {scope.project}: its token is "
            f"{lease.token}, the newest is {row.token} of host {row.host_id or '(none)'}.",
            "Stop this host's streams; the other host runs them.",
        )
    if not row.held:
        raise LeaseLost(
            f"Host {lease.host_id} has given back the lease of project {scope.project}.",
            "Take a new one before writing.",
        )
    return row


def current(
    connection: Connection, scope: Scope, now_of: Now, clock: Callable[[], float]
) -> tuple[HostInfo | None, bool]:
    """Who holds or last held the lease, its times in this machine's clock; and whether to ``settle`` it."""
    row = connection.execute(select(_project).where(_project.c.project == scope.project)).one_or_none()
    if row is None or not row.token:
        return None, False
    now = now_of(connection)
    shift = clock() - now
    end = _holding(row).ends_at(now)
    host = replace(_host(row), heartbeat_at=row.heartbeat_at + shift, expires_at=end + shift)
    return host, row.held and end < row.expires_at


def settle(connection: Connection, scope: Scope, now_of: Now) -> None:
    """After the clock was set back: let the lease end ``ttl`` from now, unless its host renews it."""
    row = lock_project(connection, scope)
    _move_end(connection, scope, _holding(row), now_of(connection))


def _holding(row: Row[Any]) -> Holding:
    return Holding(row.host_id, row.token, row.held, row.ttl, row.expires_at)


def _host(row: Row[Any]) -> HostInfo:
    return from_text(row.body, HostInfo, f"host of project {row.project}")


def _move_end(connection: Connection, scope: Scope, holding: Holding, now: float) -> None:
    if holding.ends_at(now) < holding.expires_at:
        _set(connection, scope, expires_at=holding.ends_at(now))


def _set(connection: Connection, scope: Scope, **values: Any) -> None:
    connection.execute(update(_project).where(_project.c.project == scope.project).values(values))
