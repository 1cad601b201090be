"""How an engine or a dry run comes to its Spark session, and what it tells meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kindling_dagster.engines.base import LogLine
from kindling_dagster.spark import session_is_up

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Session:
    """A session, and whether whoever asked for it started it and so has to stop it."""

    spark: SparkSession
    owned: bool

    def stop(self) -> None:
        """Stop the session if it was started here."""
        if self.owned:
            self.spark.stop()


def open_session(create: Callable[[], SparkSession], emit: Callable[[LogLine], None]) -> Session:
    """The session that is up in this process, else a new one.

    Args:
        create: Gives it.
        emit: Takes log lines.

    Raises:
        SparkSetupError: Spark does not start.
    """
    started = time.monotonic()
    owned = not session_is_up()
    if owned:
        emit(LogLine("info", "Starting Spark …"))
    spark = create()
    took = time.monotonic() - started
    emit(LogLine("info", f"Spark {spark.version} is up ({spark.sparkContext.master}, {took:.1f} s)."))
    return Session(spark, owned)
