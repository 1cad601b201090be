"""The store in PostgreSQL: by URL, over psycopg 3; the server's clock decides on leases."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from kindling_dagster.streaming.store.database import Database, Retry, Work
from kindling_dagster.streaming.store.errors import StoreError, StoreReplaced, StoreUnavailable
from kindling_dagster.streaming.store.location import redact

T = TypeVar("T")

_SCHEMA_LOCK = 0x6B696E64
"""Number of the advisory lock under which schemas are changed."""

_LONGEST_CONNECT = 10
"""Seconds for one try to connect."""

_PASSING = ("08", "40", "57", "53300")
"""How the SQLSTATE of what passes by itself begins: connection lost, deadlock, server restarting, all slots taken."""
_LOCKED = ("55P03", "57014")
"""The server's own limits on waiting were reached: those are ours, so there is no time left to try again."""
_HOPELESS = re.compile(
    r"authentication failed|no password supplied|no pg_hba.conf|(database|role) .* does not exist",
    re.IGNORECASE,
)


class PostgresDatabase(Database):
    """A PostgreSQL database that may be shared with others: our tables' names have a prefix."""

    def __init__(self, url: URL, wait: float, clock: Callable[[], float]) -> None:
        super().__init__(redact(url.render_as_string(hide_password=False)), wait, clock)
        self._url = url

    def __repr__(self) -> str:
        return f"PostgresDatabase({self.shown})"

    def lock_schema(self, connection: Connection) -> None:
        """Wait for whoever changes the schema; ends with the transaction."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _SCHEMA_LOCK})

    def now(self, connection: Connection) -> float:
        """The server's clock, at this moment (not the transaction's start)."""
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def _create_engine(self) -> Engine:
        limits: dict[str, Any] = {
            "connect_timeout": max(2, min(_LONGEST_CONNECT, int(self.wait))),
            # A server that vanished without a word is noticed within the limit, not after two hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": int(self.wait * 1000),
            "application_name": "kindling-dagster streams",
        }
        try:
            engine = create_engine(
                self._url,
                connect_args={key: value for key, value in limits.items() if key not in self._url.query},
                pool_pre_ping=True,
                pool_size=2,
                max_overflow=8,
                pool_timeout=self.wait,
                hide_parameters=True,
            )
        except ImportError:
            raise StoreError(
                f"The stream store {self.shown} needs psycopg, which is not installed.",
                "Install kindling-dagster[postgres].",
            ) from None
        event.listen(engine, "connect", self._set_limits)
        return engine

    def _set_limits(self, connection: Any, record: object) -> None:  # noqa: ARG002 - as SQLAlchemy calls it
        milliseconds = int(self.wait * 1000)
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {milliseconds}")
            cursor.execute(f"SET statement_timeout = {milliseconds}")
            # A process frozen in the middle of a transaction must not keep the others out.
            cursor.execute(f"SET idle_in_transaction_session_timeout = {milliseconds}")
        connection.commit()

    def _transaction(self, engine: Engine, work: Work[T], writing: bool) -> T:
        if not writing:
            engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection, connection.begin():
            return work(connection)

    def _translate(self, error: SQLAlchemyError) -> StoreError | Retry:
        reason = self._reason(error)
        if isinstance(error, PoolTimeout):
            return StoreUnavailable(
                f"All connections of this process to the stream store {self.shown} were busy for "
                f"{self.wait:g} seconds.",
                "Try again; something holds the store locked, or too many threads use it.",
            )
        code = str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")
        if code in _LOCKED:
            return StoreUnavailable(
                f"The stream store {self.shown} was locked for {self.wait:g} seconds.",
                "Try again; pg_stat_activity shows who holds it, should it last.",
            )
        if code == "42P01":
            return StoreReplaced(
                f"The tables of the stream store {self.shown} were dropped while it was in use: the desired "
                "states, dead letters and history they held are lost.",
                "Open it again (new ones are made), then start the streams that should run.",
            )
        if _HOPELESS.search(reason):
            return StoreError(
                f"The stream store {self.shown} does not let us in: {reason}.",
                "Look at user, password and database in its URL.",
            )
        if code.startswith("53100"):
            return StoreUnavailable(
                f"The stream store {self.shown} could not be written, its disk is full; nothing was changed.",
                "Make room, then try again.",
            )
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        if lost or code.startswith(_PASSING) or (not code and type(error).__name__ == "OperationalError"):
            return Retry(
                StoreUnavailable(
                    f"The stream store {self.shown} did not answer within {self.wait:g} seconds: {reason}.",
                    "Look whether the server runs and can be reached, then try again.",
                )
            )
        return StoreError(f"The stream store {self.shown} refused what was asked: {reason}.")

    def _reason(self, error: SQLAlchemyError) -> str:
        """The driver's own words on one line, without any password."""
        words = " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".")
        secrets = {str(self._url.password or ""), os.environ.get("PGPASSWORD", "")}
        secrets |= {str(value) for key, value in self._url.query.items() if "pass" in key.lower()}
        for secret in sorted(secrets - {""}, key=len, reverse=True):
            words = words.replace(secret, "***")
        return redact(words)
