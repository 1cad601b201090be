"""Rewrites chosen files of a Delta table so that nobody who follows the table sees a change of data.

``OPTIMIZE`` does this to pack files, and Delta's own transactions let anybody do it; its Python interface has
no way to them: an ``UPDATE`` is a change of data, at which every stream that reads the table stops, and an
overwrite without change of data goes by whole partitions. So this reaches into the JVM, for four calls:
open the log, start a transaction, write files in it, commit. Delta checks for conflicts as for any writer.
Needs a classic session, not Spark Connect.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_ACTIONS: Final = "org.apache.spark.sql.delta"


class FileRewrite:
    """One transaction that puts new files in the place of some of a table's files.

    Args:
        spark: The session.
        path: The table's path or URI.
    """

    def __init__(self, spark: SparkSession, path: str) -> None:
        self._spark = spark
        self._path = path
        self._jvm: Any = spark._jvm
        delta: Any = self._jvm.org.apache.spark.sql.delta
        self._action = delta.actions.Action
        self._transaction = delta.DeltaLog.forTable(spark._jsparkSession, path).startTransaction()
        self._files = {str(file.path()): file for file in self._list(self._transaction.filterFiles())}

    @property
    def version(self) -> int:
        """The table's version that the transaction starts from."""
        return int(self._transaction.readVersion())

    @property
    def files(self) -> tuple[str, ...]:
        """The table's files as its log names them."""
        return tuple(self._files)

    def rows_of(self, files: Collection[str]) -> DataFrame:
        """The live rows of these files."""
        from pyspark.sql.functions import col

        # Names are unique within a table; how a whole path is written differs between log and reader.
        names = [name.rsplit("/", 1)[-1] for name in files]
        table = self._spark.read.format("delta").option("versionAsOf", self.version).load(self._path)
        return table.where(col("_metadata.file_name").isin(names))

    def commit(self, files: Collection[str], rows: DataFrame) -> int:
        """Put files with ``rows`` in the place of ``files``.

        Returns:
            The new version of the table.

        Raises:
            Py4JJavaError: Another writer changed these files in the meantime, or the write failed; nothing
                is committed then.
        """
        written = [self._unchanging(file) for file in self._list(self._transaction.writeFiles(rows._jdf))]
        now = int(time.time() * 1000)
        removed = [self._files[name].removeWithTimestamp(now, False) for name in files]
        actions = self._jvm.java.util.ArrayList()
        for action in (*written, *removed):
            actions.add(action)
        sequence = self._jvm.scala.collection.JavaConverters.asScalaBuffer(actions).toSeq()
        return int(self._transaction.commit(sequence, self._operation()))

    def _unchanging(self, action: Any) -> Any:
        """The same action, marked as no change of data. By its JSON: a case class has no setters."""
        said = json.loads(action.json())
        next(iter(said.values()))["dataChange"] = False
        return self._action.fromJson(json.dumps(said))

    def _operation(self) -> Any:
        # A Scala object: its one instance is a static field, which py4j reaches by reflection alone.
        loader = self._jvm.java.lang.Thread.currentThread().getContextClassLoader()
        holder = self._jvm.java.lang.Class.forName(f"{_ACTIONS}.DeltaOperations$ManualUpdate$", True, loader)
        return holder.getField("MODULE$").get(None)

    def _list(self, sequence: Any) -> list[Any]:
        return list(self._jvm.scala.collection.JavaConverters.seqAsJavaList(sequence))
