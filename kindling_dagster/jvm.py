"""Reaches into Spark's JVM where PySpark offers no public way. Needs a classic session, not Spark Connect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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


def activate_session(spark: SparkSession) -> None:
    """Make a session the calling thread's active one, as it is on the thread that built it.

    Kindling and pipes ask for ``SparkSession.getActiveSession()``. PySpark's own way to set it,
    ``createDataFrame``, plans a query each time.
    """
    # Its name differs between Spark 3.5 and 4.
    name = spark._jsparkSession.getClass().getName()
    getattr(spark._jvm, name).setActiveSession(spark._jsparkSession)


def qualified_path(spark: SparkSession, path: str) -> str:
    """A path with its file system and all its folders, as the session resolves it.

    Spark keeps checkpoints through another interface than tables, whose relative paths count from where the
    JVM was started.
    """
    hadoop_path = spark._jvm.org.apache.hadoop.fs.Path(path)
    files = hadoop_path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    return str(files.makeQualified(hadoop_path).toString())


def read_text(spark: SparkSession, path: str) -> str | None:
    """A small text file, through Spark's own file systems; None when it is not there."""
    hadoop_path = spark._jvm.org.apache.hadoop.fs.Path(path)
    files = hadoop_path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    if not files.exists(hadoop_path):
        return None
    stream = files.open(hadoop_path)
    try:
        return str(spark._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
    finally:
        stream.close()


def jvm_is_alive(spark: SparkSession) -> bool:
    """Whether the JVM answers."""
    from py4j.protocol import Py4JError

    try:
        spark._jvm.java.lang.System.nanoTime()
    except (Py4JError, OSError):
        return False
    return True


class DeadMansSwitch:
    """Ends Spark's JVM unless it is pushed again in time.

    A JVM goes on writing when only its Python process is frozen, so the end of a host's lease must be
    watched from within. What is scheduled there is Java's own ``Runtime.halt``, bound to its argument: a
    shutdown in good order would wait for the very queries that must write nothing more.

    Args:
        spark: The session.
        exit_code: The JVM's exit code.
    """

    def __init__(self, spark: SparkSession, exit_code: int) -> None:
        jvm = spark._jvm
        lang, invoke = jvm.java.lang, jvm.java.lang.invoke
        load = lang.Class.forName
        void = lang.Void.TYPE
        halt = invoke.MethodHandles.publicLookup().bind(
            lang.Runtime.getRuntime(),
            "halt",
            invoke.MethodType.methodType(void, lang.Integer.TYPE),
        )
        arguments = spark.sparkContext._gateway.new_array(lang.Object, 1)
        arguments[0] = exit_code
        bound = invoke.MethodHandles.insertArguments(halt, 0, arguments)
        self._task = invoke.MethodHandleProxies.asInterfaceInstance(load("java.lang.Runnable"), bound)
        self._timer = jvm.java.util.concurrent.ScheduledThreadPoolExecutor(1)
        self._timer.setRemoveOnCancelPolicy(True)
        self._unit = jvm.java.util.concurrent.TimeUnit.MILLISECONDS
        self._pending: Any = None

    def push(self, seconds: float) -> None:
        """The JVM ends in ``seconds``, unless this is called again before."""
        before = self._pending
        self._pending = self._timer.schedule(self._task, int(seconds * 1000), self._unit)
        if before is not None:
            before.cancel(False)

    def disarm(self) -> None:
        """The JVM goes on; the switch cannot be pushed again."""
        self._timer.shutdownNow()


def default_filesystem(spark: SparkSession) -> str:
    """The URI that paths without a scheme count from: ``file:///``, or a cluster's ``hdfs://…``."""
    return str(spark.sparkContext._jsc.hadoopConfiguration().get("fs.defaultFS", "file:///"))


def qualified(spark: SparkSession, path: str) -> str:
    """``path`` as Spark reads it, with scheme and host, and absolute."""
    made = spark._jvm.org.apache.hadoop.fs.Path(path)
    files = made.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    return str(files.makeQualified(made).toString())


def sql_settings(spark: SparkSession) -> dict[str, str]:
    """The settings that were made in the session, by name; ``SET`` gives them with secrets blotted out."""
    return dict(spark._jsparkSession.sessionState().conf().settings())


# Delta's name for what it keeps of a table's state (Snapshot.scala); it lets go of it with the next version.
_DELTA_STATE = "Delta Table State"


def cached_rdds(spark: SparkSession) -> list[int]:
    """The numbers of the RDDs that are marked as cached, whoever keeps them but Delta."""
    kept = spark.sparkContext._jsc.getPersistentRDDs()
    return [int(number) for number in kept if not str(kept[number].name() or "").startswith(_DELTA_STATE)]


def uncache_rdd(spark: SparkSession, number: int) -> None:
    """Let go of what one of them holds; nothing happens where it is gone."""
    rdd = spark.sparkContext._jsc.getPersistentRDDs().get(number)
    if rdd is not None:
        rdd.unpersist()
