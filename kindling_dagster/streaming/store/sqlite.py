"""The store in a SQLite file: write-ahead log, one writer at a time, and a file that may vanish or break."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from kindling_dagster.streaming.store.database import Database, Retry, Work
from kindling_dagster.streaming.store.errors import (
    StoreCorrupted,
    StoreError,
    StoreReplaced,
    StoreUnavailable,
)

T = TypeVar("T")

_SMALLEST_FILE = 512
"""Bytes of SQLite's smallest page. A store is put in place whole, so a smaller file is a damaged one."""

_ENDINGS = ("", "-wal", "-shm", "-journal")
"""Of the files that make up a SQLite database."""

_WRITING = "kindling_writing"
_BROKEN = re.compile(r"malformed|not a database|file is encrypted", re.IGNORECASE)


class SqliteDatabase(Database):
    """A file on this machine's disk (SQLite's write-ahead log does not work over a network's file system)."""

    def __init__(self, path: Path, wait: float, clock: Callable[[], float]) -> None:
        super().__init__(str(path), wait, clock)
        self.path = path
        self._anchor: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def make(self, migrate: Work[None]) -> None:
        """Put a new store in place where there is no file."""
        if self.path.exists():
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._making_alone():
                if not self.path.exists():
                    self._put_in_place(migrate)
        except (OSError, sqlite3.Error, SQLAlchemyError) as error:
            raise StoreUnavailable(
                f"The stream store {self.path} cannot be made: {getattr(error, 'orig', error)}.",
                "Give it a folder on a local disk that this user may write, or use PostgreSQL.",
            ) from error

    def _put_in_place(self, migrate: Work[None]) -> None:
        # Made under another name, then moved: nobody ever sees one half made.
        making = self.path.with_name(f".{self.path.name}.new")
        for ending in _ENDINGS:
            Path(f"{making}{ending}").unlink(missing_ok=True)
        _fill(making, migrate)
        for ending in _ENDINGS:
            # What is left of a deleted store: SQLite would replay its log into the new one.
            Path(f"{self.path}{ending}").unlink(missing_ok=True)
        making.rename(self.path)

    @contextmanager
    def _making_alone(self) -> Iterator[None]:
        give_up = time.monotonic() + self.wait
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up:
                        raise
                    time.sleep(0.02)
            yield

    def now(self, connection: Connection) -> float:  # noqa: ARG002 - the machine's clock is all there is
        """This machine's clock."""
        return self.clock()

    def close(self) -> None:
        """Give back all connections."""
        super().close()
        if self._anchor is not None and self._process == os.getpid():
            self._anchor.close()
        self._anchor = None

    def _create_engine(self) -> Engine:
        found = self._look()
        if self._identity is not None and found != self._identity:
            raise self._replaced()
        try:
            # Kept open as long as the engine, so that the file's number is not given to another file.
            self._anchor = self._connect()
            self._anchor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.Error as error:
            raise self._meaning(error) from None
        self._identity = found
        engine = create_engine(
            "sqlite://",
            creator=self._connect,
            poolclass=QueuePool,
            pool_timeout=self.wait,
            hide_parameters=True,
        )
        event.listen(engine, "begin", _begin)
        return engine

    def _connect(self) -> sqlite3.Connection:
        # rw, not rwc: a store that was deleted must not come back empty under somebody's hands.
        address = f"file:{quote(str(self.path))}?mode=rw"
        connection = sqlite3.connect(
            address, uri=True, timeout=self.wait, isolation_level=None, check_same_thread=False
        )
        # FULL: a command that was accepted outlives a power cut.
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _transaction(self, engine: Engine, work: Work[T], writing: bool) -> T:
        self._check_in_place()
        with engine.connect() as connection:
            if writing:
                connection = connection.execution_options(**{_WRITING: True})
            with connection.begin():
                result = work(connection)
        if writing:
            self._check_in_place()  # deleted in between: what was just written is gone with the file
        return result

    def _look(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            raise self._replaced() from None
        if found.st_size < _SMALLEST_FILE:
            raise self._corrupted(f"it has {found.st_size} bytes")
        return found.st_dev, found.st_ino

    def _check_in_place(self) -> None:
        if self._look() != self._identity:
            raise self._replaced()

    def _translate(self, error: SQLAlchemyError) -> StoreError | Retry:
        self._check_in_place()  # a file that is gone explains whatever SQLite makes of it
        meaning = self._meaning(error)
        # SQLite itself waits for a lock, but for some moments (recovery, the last one closing) at which it does not.
        return Retry(meaning) if isinstance(meaning, StoreUnavailable) and "locked" in str(error) else meaning

    def _meaning(self, error: Exception) -> StoreError:
        text = str(getattr(error, "orig", None) or error)
        if isinstance(error, PoolTimeout):
            return StoreUnavailable(
                f"All connections of this process to the stream store {self.path} were busy for "
                f"{self.wait:g} seconds.",
                "Try again; something holds the store locked, or too many threads use it.",
            )
        if "locked" in text:
            return StoreUnavailable(
                f"The stream store {self.path} was locked by another process for {self.wait:g} seconds.",
                "Try again; `fuser` with the file's name shows who has it open, should it last.",
            )
        if "is full" in text:
            return StoreUnavailable(
                f"The stream store {self.path} could not be written, its disk is full; nothing was changed.",
                "Make room, then try again.",
            )
        if _BROKEN.search(text):
            return self._corrupted(text)
        if "no such table" in text:
            return self._replaced()
        if re.search("I/O error|unable to open|readonly|permission", text):
            return StoreUnavailable(
                f"The stream store {self.path} cannot be used: {text}.",
                "Look whether its disk is there and this user may read and write the file and its folder.",
            )
        return StoreError(f"The stream store {self.path} refused what was asked: {text}.")

    def _replaced(self) -> StoreReplaced:
        return StoreReplaced(
            f"The stream store {self.path} was deleted or replaced while it was in use: the desired states, "
            "dead letters and history it held are lost.",
            "Open it again (a new one is made), then start the streams that should run.",
        )

    def _corrupted(self, reason: str) -> StoreCorrupted:
        return StoreCorrupted(
            f"The stream store {self.path} is damaged: {reason}.",
            f"Stop the stream host, move {self.path.name} with its -wal and -shm files away, and bring back a "
            f"backup or what `sqlite3 {self.path.name} .recover` gives; without one a new store is made, in "
            "which no stream is started.",
        )


def _fill(path: Path, migrate: Work[None]) -> None:
    raw = sqlite3.connect(path, isolation_level=None)
    try:
        raw.execute("PRAGMA journal_mode=WAL")
    finally:
        raw.close()
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None))
    event.listen(engine, "begin", _begin)
    try:
        with engine.connect() as connection:
            writing = connection.execution_options(**{_WRITING: True})
            with writing.begin():
                migrate(writing)
    finally:
        engine.dispose()  # the last connection's close moves the log's content into the file


def _begin(connection: Connection) -> None:
    # IMMEDIATE: the writer waits for its turn before it reads, so what it has read is not outdated.
    # Reads are single statements and need no transaction.
    if connection.get_execution_options().get(_WRITING):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
