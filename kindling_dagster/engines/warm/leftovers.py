"""What a run leaves in a session that outlives it, taken away again before the next one.

Python's own state, such as an app's module globals, cannot be taken back: see docs/engines.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kindling_dagster.jvm import cached_rdds, sql_settings, uncache_rdd
from kindling_dagster.quoting import backticked

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from kindling_dagster.runtime import KindlingRuntime

_JOB_PROPERTIES = (
    "spark.jobGroup.id",
    "spark.job.description",
    "spark.job.tags",
    "spark.job.interruptOnCancel",
    "spark.scheduler.pool",
)


@dataclass(frozen=True)
class SessionState:
    """What a session and its app held at one moment.

    Make it on the thread that owns Spark, and ``restore`` it there.
    """

    spark: SparkSession
    runtime: KindlingRuntime
    catalog: str
    database: str
    settings: Mapping[str, str]
    views: frozenset[str]
    functions: frozenset[str]
    rdds: frozenset[int]
    streams: frozenset[str]
    receivers: Mapping[str, frozenset[int]]
    memory: Mapping[str, Mapping[str, Any]]

    @staticmethod
    def of(spark: SparkSession, runtime: KindlingRuntime) -> SessionState:
        """What they hold now."""
        return SessionState(
            spark=spark,
            runtime=runtime,
            catalog=spark.catalog.currentCatalog(),
            database=spark.catalog.currentDatabase(),
            settings=sql_settings(spark),
            views=frozenset(_temporary_views(spark)),
            functions=frozenset(_temporary_functions(spark)),
            rdds=frozenset(cached_rdds(spark)),
            streams=frozenset(query.id for query in spark.streams.active),
            receivers={name: frozenset(receivers) for name, receivers in runtime.receivers().items()},
            memory={kind: dict(frames) for kind, frames in runtime.memory_entities().items()},
        )

    def restore(self) -> list[str]:
        """Take away what came since, and put back what was changed; says what that was.

        Raises:
            Exception: Whatever Spark raises; the session should not be used any more.
        """
        spark, found = self.spark, []
        for query in spark.streams.active:
            if query.id not in self.streams:
                query.stop()
                found.append(f"stream {query.name or query.id}")
        found += self._restore_catalog()
        for name in sorted(set(_temporary_views(spark)) - self.views):
            spark.sql(f"DROP VIEW IF EXISTS {name}")
            found.append(f"view {name}")
        for name in sorted(set(_temporary_functions(spark)) - self.functions):
            spark.sql(f"DROP TEMPORARY FUNCTION IF EXISTS {backticked(name)}")
            found.append(f"function {name}")
        found += self.restore_memory()
        spark.catalog.clearCache()
        for rdd in sorted(set(cached_rdds(spark)) - self.rdds):
            uncache_rdd(spark, rdd)
            found.append(f"cached data {rdd}")
        found += self._restore_settings()
        for name in _JOB_PROPERTIES:
            spark.sparkContext.setLocalProperty(name, None)  # None removes it
        found += self.restore_receivers()
        return found

    def _restore_catalog(self) -> list[str]:
        spark = self.spark
        now = (spark.catalog.currentCatalog(), spark.catalog.currentDatabase())
        if now == (self.catalog, self.database):
            return []
        spark.catalog.setCurrentCatalog(self.catalog)
        spark.catalog.setCurrentDatabase(self.database)
        return [f"current database {'.'.join(now)}"]

    def _restore_settings(self) -> list[str]:
        found, now = [], sql_settings(self.spark)
        for name in sorted(now.keys() | self.settings.keys()):
            if now.get(name) == self.settings.get(name):
                continue
            if name in self.settings:
                self.spark.conf.set(name, self.settings[name])
            else:
                self.spark.conf.unset(name)
            found.append(f"setting {name}")
        return found

    def restore_memory(self) -> list[str]:
        """Give memory entities back what they held, since a run merges into what it finds; a part of ``restore``."""
        found = []
        for kind, frames in self.runtime.memory_entities().items():
            before = self.memory.get(kind, {})
            found += [f"memory entity {name}" for name in frames if frames[name] is not before.get(name)]
            frames.clear()
            frames.update(before)
        return found

    def restore_receivers(self) -> list[str]:
        """Take away the subscribers that came since; a part of ``restore`` that asks nothing of Spark."""
        # A run's watermarks are subscribers as well, and Kindling has to know that they are gone: it would not
        # connect them for the next run.
        self.runtime.set_watermarks(False)
        found = []
        for name, receivers in self.runtime.receivers().items():
            before = self.receivers.get(name, frozenset())
            for number, receiver in receivers.items():
                if number not in before:
                    self.runtime.signals.get_signal(name).disconnect(receiver)
                    found.append(f"subscriber of {name}")
        return found


def _temporary_views(spark: SparkSession) -> list[str]:
    """Of the session and of all sessions, quoted and with their schema where they have one."""
    shared = spark.conf.get("spark.sql.globalTempDatabase", "global_temp")
    made = []
    for row in [*spark.sql("SHOW VIEWS").collect(), *spark.sql(f"SHOW VIEWS IN {shared}").collect()]:
        if row["isTemporary"]:
            made.append(".".join(backticked(part) for part in (row["namespace"], row["viewName"]) if part))
    # The session's own are listed in both.
    return sorted(set(made))


def _temporary_functions(spark: SparkSession) -> list[str]:
    """Those without a schema; permanent ones are named with theirs."""
    rows: list[Any] = spark.sql("SHOW USER FUNCTIONS").collect()
    return [row[0] for row in rows if "." not in row[0]]
