"""One database, whichever it is: transactions that wait, are tried again where that is safe, and fail clearly."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from kindling_dagster.streaming.store.errors import StoreError

T = TypeVar("T")
Work = Callable[[Connection], T]
"""What is done in one transaction. It may be called again from the start, so it must be repeatable."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


@dataclass(frozen=True)
class Retry:
    """What came in between passes: try again until the limit, then raise ``error``."""

    error: StoreError


class Database(ABC):
    """Runs transactions. Subclasses know their engine, their clock and what their errors mean.

    Args:
        shown: The URL as it may be shown.
        wait: Seconds a transaction waits, over all tries, for a store that is locked or not reachable.
        clock: This machine's Unix time.
    """

    def __init__(self, shown: str, wait: float, clock: Callable[[], float]) -> None:
        self.shown = shown
        self.wait = wait
        self.clock = clock
        self._engine: Engine | None = None
        self._process = os.getpid()
        self._lock = threading.Lock()

    def read(self, work: Work[T]) -> T:
        """Run one SELECT (or several that need not agree); gives what ``work`` gives."""
        return self._run(work, writing=False)

    def write(self, work: Work[T]) -> T:
        """Run ``work`` in one transaction: all of it, or nothing."""
        return self._run(work, writing=True)

    def close(self) -> None:
        """Give back all connections; the next transaction opens new ones."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose(close=self._process == os.getpid())
            self._engine = None

    def make(self, migrate: Work[None]) -> None:  # noqa: B027 - a server's database is there already
        """Make the database itself where there is none, with the schema that ``migrate`` makes."""

    def lock_schema(self, connection: Connection) -> None:  # noqa: B027 - SQLite's writer is alone anyway
        """Within a writing transaction: wait until no other process changes the schema."""

    @abstractmethod
    def now(self, connection: Connection) -> float:
        """Unix time by the clock that decides on leases."""

    @abstractmethod
    def _create_engine(self) -> Engine:
        """A new engine; connects to nothing yet."""

    @abstractmethod
    def _transaction(self, engine: Engine, work: Work[T], writing: bool) -> T:
        """Run ``work`` once."""

    @abstractmethod
    def _translate(self, error: SQLAlchemyError) -> StoreError | Retry:
        """What an error means. Its text must hold no password."""

    def _run(self, work: Work[T], writing: bool) -> T:
        give_up = time.monotonic() + self.wait
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._transaction(self._live_engine(), work, writing)
            except SQLAlchemyError as caught:
                error = caught
            # Outside of the handler, so that it is not chained: the driver's own texts may hold what
            # ours leave out (values, passwords).
            meaning = self._translate(error)
            if isinstance(meaning, StoreError):
                raise meaning
            if time.monotonic() + pause > give_up:
                raise meaning.error
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _live_engine(self) -> Engine:
        with self._lock:
            if self._process != os.getpid():  # forked: the parent's connections are not ours to use or close
                if self._engine is not None:
                    self._engine.dispose(close=False)
                self._engine = None
                self._process = os.getpid()
            if self._engine is None:
                self._engine = self._create_engine()
            return self._engine
