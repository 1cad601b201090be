"""What the stream store takes on SQLite and PostgreSQL, beside the same SQL sent bare by the driver alone."""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import event

from benchmarks.harness import Case
from kindling_dagster.streaming.model import (
    Command,
    HistoryEntry,
    HostInfo,
    Lease,
    StreamingQueryState,
    StreamMetrics,
    StreamStatus,
)
from kindling_dagster.streaming.store import StreamStore, default_store_url
from tests.postgres_server import missing, postgres_server

OPERATIONS = 40
"""Of one kind in one measurement."""
STREAMS = 20
ROUNDS = 5

Statement = tuple[str, Any, bool]
Bare = Callable[[Sequence[Sequence[Statement]]], None]
"""Sends operations, each in one transaction where it writes."""


@dataclass
class Project:
    """One project in the store, and the running numbers that make its operations differ."""

    store: StreamStore
    lease: Lease
    number: int = 0
    sent: list[Statement] = field(default_factory=list)

    def report(self) -> None:
        """Three streams' statuses and one entry of history: a busy second of a host."""
        self.number += 1
        metrics = StreamMetrics(self.number, 1_000, 1_000_000, 500.0, 500.0, 1.5, 10_000, 3)
        statuses = [
            StreamStatus(f"stream-{n}", StreamingQueryState.RUNNING, metrics=metrics) for n in range(3)
        ]
        self.store.report(
            self.lease, statuses, history=[HistoryEntry("stream-0", "restarted", float(self.number))]
        )

    def renew(self) -> None:
        """One heartbeat."""
        self.store.renew(self.lease, 3600)

    def submit(self) -> None:
        """One command."""
        self.number += 1
        self.store.submit([Command(f"command-{self.number}", "restart", "stream-0")])

    def desired(self) -> None:
        """What each second begins with: one read."""
        self.store.desired()


def open_project(url: str, name: str) -> Project:
    """A project with some streams."""
    store = StreamStore.open(url, name)
    lease = store.acquire_lease(HostInfo("host", 0), 3600)
    assert lease is not None
    store.submit([Command(f"{name}-{n}", "start", f"stream-{n}") for n in range(STREAMS)])
    return Project(store, lease)


def record(url: str, operation: str, count: int) -> list[list[Statement]]:
    """The SQL of operations, as the driver got it, made out to the project ``bare``."""
    project = open_project(url, "recorded")
    engine = project.store._database._live_engine()
    sent: list[Statement] = []

    def note(_c: object, _k: object, sql: str, parameters: Any, _x: object, many: bool) -> None:
        if "pg_catalog" not in sql:
            sent.append((sql, _renamed(parameters), many))

    event.listen(engine, "before_cursor_execute", note)
    operations = []
    for _ in range(count):
        sent.clear()
        getattr(project, operation)()
        operations.append([statement for statement in sent if not statement[0].startswith("BEGIN")])
    project.store.close()
    return operations


def _renamed(parameters: Any) -> Any:
    if isinstance(parameters, dict):
        return {key: _renamed(value) for key, value in parameters.items()}
    if isinstance(parameters, list | tuple):
        return type(parameters)(_renamed(value) for value in parameters)
    return "bare" if parameters == "recorded" else parameters


def bare_sqlite(path: Path) -> Bare:
    """By the standard library's driver, with the store's settings."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")

    def send(operations: Sequence[Sequence[Statement]]) -> None:
        for statements in operations:
            writing = len(statements) > 1
            if writing:
                connection.execute("BEGIN IMMEDIATE")
            for sql, parameters, many in statements:
                cursor = (connection.executemany if many else connection.execute)(sql, parameters)
                if sql.startswith("SELECT"):
                    cursor.fetchall()
            if writing:
                connection.execute("COMMIT")

    return send


def bare_postgres(url: str) -> Bare:
    """By psycopg, on one connection that is kept."""
    import psycopg

    connection = psycopg.connect(url, autocommit=True)

    def send(operations: Sequence[Sequence[Statement]]) -> None:
        cursor = connection.cursor()
        for statements in operations:
            if len(statements) == 1:
                cursor.execute(statements[0][0], statements[0][1])
                cursor.fetchall()
                continue
            with connection.transaction():
                for sql, parameters, many in statements:
                    (cursor.executemany if many else cursor.execute)(sql, parameters)
                    if sql.startswith("SELECT"):
                        cursor.fetchall()

    return send


def compare(kind: str, url: str, driver: str, bare: Bare, operation: str) -> Case:
    """Operations per second of one kind; the ratio is the share of the bare rate that is left."""
    ours = open_project(url, "ours")
    recorded = record(url, operation, OPERATIONS * (ROUNDS + 1))

    def rate(run: Callable[[], object]) -> float:
        started = time.perf_counter()
        run()
        return OPERATIONS / (time.perf_counter() - started)

    def measure_ours() -> float:
        return rate(lambda: [getattr(ours, operation)() for _ in range(OPERATIONS)])

    def measure_bare() -> float:
        chunk = [recorded.pop() for _ in range(OPERATIONS)]
        return rate(lambda: bare(chunk))

    return Case(
        name=f"{kind}, {operation}",
        ours=measure_ours,
        other=measure_bare,
        other_name=driver,
        runs=ROUNDS,
        units="operations/s",
        teardown=ours.store.close,
    )


OPERATION_NAMES = ("report", "renew", "submit", "desired")


def cases() -> Iterator[Case]:
    """Each kind of operation on each database."""
    with tempfile.TemporaryDirectory() as folder:
        url = default_store_url(folder)
        open_project(url, "bare").store.close()
        bare = bare_sqlite(next(Path(folder).glob("*.db")))
        for operation in OPERATION_NAMES:
            yield compare("SQLite", url, "sqlite3", bare, operation)
    if reason := missing():
        print(f"streams_store on PostgreSQL is left out: {reason}", file=sys.stderr)
        return
    with postgres_server() as server:
        open_project(server.url(), "bare").store.close()
        bare = bare_postgres(server.url())
        for operation in OPERATION_NAMES:
            yield compare("PostgreSQL", server.url(), "psycopg", bare, operation)
