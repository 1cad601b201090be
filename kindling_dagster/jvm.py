"""Reaches into Spark's JVM where PySpark offers no public way. Needs a classic session, not Spark Connect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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
