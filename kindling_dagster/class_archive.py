"""An archive of Spark's classes, from which the JVM of a session on this machine starts in half the time.

Java can map the classes of an earlier process from a file instead of finding, checking and parsing them in
some hundred jars (application class data sharing, https://openjdk.org/jeps/350). A JVM that does not fit the
file, another Java or other jars, passes over it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from kindling_dagster.errors import SparkSetupError
from kindling_dagster.spark import find_java

FOLDER_VARIABLE = "KINDLING_DAGSTER_CLASSES"
"""Names the folder of archives; ``off`` has no archive made or used."""
SECONDS = 300.0
"""How long making one may take before it is given up."""

_USE = "-XX:SharedArchiveFile="
_MAKE = "-XX:ArchiveClassesAtExit="
_QUIET = "-Xlog:disable -Xlog:all=error:stderr"

# Writes, merges and reads a small table, whose classes are those of nearly every run.
_WORK = """
import sys, tempfile
from kindling_dagster.spark import build_session
spark = build_session({"spark.master": "local[1]", "spark.driver.extraJavaOptions": sys.argv[1]})
with tempfile.TemporaryDirectory() as folder:
    table = f"delta.`{folder}/table`"
    spark.range(9).selectExpr("id", "id AS value").write.format("delta").save(f"{folder}/table")
    spark.range(5, 15).selectExpr("id", "2 AS value").createOrReplaceTempView("news")
    spark.sql(
        f"MERGE INTO {table} t USING news n ON t.id = n.id WHEN MATCHED THEN UPDATE SET * "
        "WHEN NOT MATCHED THEN INSERT *"
    )
    spark.sql(f"SELECT value, count(*) FROM {table} GROUP BY value").collect()
    gateway = spark.sparkContext._gateway
    spark.stop()
# The JVM writes the archive when it ends, which is when nobody speaks to it any more.
gateway.shutdown()
gateway.proc.stdin.close()
sys.exit(gateway.proc.wait())
"""


def archive_path() -> Path | None:
    """Where the archive of this Java, Spark and Delta is, or would be; None where archives are off.

    Raises:
        SparkSetupError: No Java fits.
    """
    stated = os.environ.get(FOLDER_VARIABLE, "")
    if stated.lower() == "off":
        return None
    java = find_java()
    spec = importlib.util.find_spec("pyspark")
    parts = [str(java.home), str(java.version), spec.origin if spec else "", version("pyspark")]
    key = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(stated) if stated else Path(base) / "kindling-dagster" / "classes") / f"spark-{key}.jsa"


def archive_option(java_options: str = "") -> str:
    """The JVM's options with the archive, where there is one and they name none; else as they were."""
    if _USE in java_options or _MAKE in java_options:
        return java_options
    try:
        path = archive_path()
    except SparkSetupError:
        # No Java fits: whoever starts Spark is told.
        return java_options
    if path is None or not path.is_file():
        return java_options
    return f"{java_options} {_USE}{path}".strip()


def make_archive() -> Path | None:
    """Make the archive, unless it is there; takes about a minute and 160 MB.

    Returns:
        Where it is; None where archives are off.

    Raises:
        SparkSetupError: Spark does not start, or Java writes none.
    """
    path = archive_path()
    if path is None or path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "classes.jsa"
        done = subprocess.run(
            [sys.executable, "-c", _WORK, f"{_MAKE}{made} {_QUIET}"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise SparkSetupError(
                "Spark did not start to have its classes archived: " + done.stderr.strip()[-500:],
                f"Run without an archive ({FOLDER_VARIABLE}=off) and see what Spark says.",
            )
        if not made.is_file():
            raise SparkSetupError(
                "Java wrote no archive of Spark's classes.", f"Run without one: {FOLDER_VARIABLE}=off."
            )
        # Another process may have made one meanwhile; both are good.
        made.replace(path)
    return path
