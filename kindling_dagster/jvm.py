"""Reaches into Spark's JVM where PySpark offers no public way. Needs a classic session, not Spark Connect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_OFTEN_ASKED: Final = (
    "py4j.reflection.TypeUtil",
    "org.apache.spark.util.Utils",
    "org.apache.log4j.MDC",
    "org.apache.log4j.LogManager",
    "com.microsoft.spark.metricevents.ComponentSparkEvent",
)


def remember_classes(spark: SparkSession) -> None:
    """Look up once what PySpark, Delta and Kindling look up by name for every error and span.

    py4j asks the JVM for each part of a dotted name, and the JVM searches all its jars for a class of that
    name. Kindling reads its settings through ``spark.conf``, where an unset one is an error, and translating
    an error looks up a class for each of twelve kinds: a quarter of the time of a run of small pipes. A name
    that is an attribute is not asked for again.
    """
    for name in _OFTEN_ASKED:
        holder = spark._jvm
        for part in name.split("."):
            found = getattr(holder, part)
            setattr(holder, part, found)
            holder = found


def set_local_working_dir(spark: SparkSession, directory: Path) -> Callable[[], None]:
    """Make relative local paths count from ``directory`` in the session's driver.

    Changing the process's own directory does not move a JVM that is already up, and an app's relative
    paths must mean the same in both.

    Returns:
        Puts the old directory back; harmless when the session has been stopped meanwhile.
    """
    hadoop = spark._jvm.org.apache.hadoop.fs
    local = hadoop.FileSystem.getLocal(spark.sparkContext._jsc.hadoopConfiguration())
    before = local.getWorkingDirectory()
    local.setWorkingDirectory(hadoop.Path(str(directory)))
    return lambda: local.setWorkingDirectory(before)
