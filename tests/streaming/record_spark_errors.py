"""Records what the installed Spark and Delta say when streams fail, for ``test_stream_failures.py``. No test itself.

``python tests/streaming/record_spark_errors.py`` puts it into ``spark_errors.json``, under Spark's version, in the
place of what was there. Takes some minutes. What only tells one machine from another is left out.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kindling_dagster.spark import build_session

RECORDED = Path(__file__).parent / "spark_errors.json"
SECONDS = 60
MOST_CHARACTERS = 4000
FRAMES = 2
"""How many lines of a Java stack are kept."""


class Scenes:
    """What is done to streams. Each method named in ``SCENES`` ends in the error that is recorded.

    Args:
        spark: The session.
        folder: Tables and checkpoints.
    """

    def __init__(self, spark: Any, folder: Path) -> None:
        self.spark = spark
        self.folder = folder
        self.table = folder / "table"
        self.out = folder / "out"
        self.checkpoint = folder / "checkpoint"
        self.put(self.table)

    def put(self, path: Path, columns: str = "id, v, s", mode: str = "append", **options: str) -> None:
        """Write two rows, of the columns or expressions named."""
        rows = self.spark.range(2).selectExpr("id", "id AS v", "concat('a', id) AS s", "id AS more")
        rows.selectExpr(*columns.split(", ")).write.format("delta").mode(mode).options(**options).save(
            str(path)
        )

    def read(self) -> Any:
        """The table as a stream."""
        return self.spark.readStream.format("delta").load(str(self.table))

    def start(self, frame: Any = None, batch: Callable[[Any, int], Any] | None = None) -> Any:
        """A query of the table, appended to the other one, unless told otherwise."""
        writer = (self.read() if frame is None else frame).writeStream
        writer = writer.option("checkpointLocation", str(self.checkpoint))
        if batch is not None:
            return writer.outputMode("update").foreachBatch(batch).start()
        return writer.format("delta").start(str(self.out))

    def run(self, frame: Any = None, batch: Callable[[Any, int], Any] | None = None) -> None:
        """A query until it has read all there is, or has failed."""
        query = self.start(frame, batch)
        try:
            query.processAllAvailable()
        finally:
            query.stop()

    def after(self, change: Callable[[], object]) -> None:
        """A query whose table changes once it has read all."""
        query = self.start()
        try:
            query.processAllAvailable()
            change()
            query.processAllAvailable()
            query.awaitTermination(SECONDS)
        finally:
            query.stop()

    def failing(self, act: Callable[[], object]) -> None:
        """Do what fails, to go on from there."""
        try:
            act()
        except Exception:
            return
        raise AssertionError("this was to fail")

    def forget(self) -> None:
        """Have Delta know nothing of the tables that it has read."""
        self.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()

    def sql(self, statement: str) -> None:
        """A statement about the table."""
        self.spark.sql(statement.format(table=f"delta.`{self.table}`"))

    def overwrite(self, columns: str) -> None:
        """The table with other columns."""
        self.put(self.table, columns, "overwrite", overwriteSchema="true")

    def merge(self, batch: Any, _: int) -> None:
        """As a pipe merges, with each key twice."""
        from delta.tables import DeltaTable

        target = DeltaTable.forPath(self.spark, str(self.table)).alias("t")
        double = batch.union(batch).alias("s")
        target.merge(double, "t.id = s.id").whenMatchedUpdateAll().execute()

    def made_anew(self) -> None:
        self.run()
        shutil.rmtree(self.table)
        self.forget()
        self.put(self.table)
        self.run()

    def folder_removed(self) -> None:
        def remove() -> None:
            shutil.rmtree(self.table)
            self.forget()

        self.after(remove)

    def file_missing(self) -> None:
        for file in self.table.glob("*.parquet"):
            file.unlink()
        self.run()

    def output_takes_no_column(self) -> None:
        self.run()
        self.put(self.table, "id, v, s, more", mergeSchema="true")
        self.run()

    def second_start(self, columns: str) -> None:
        self.failing(lambda: self.after(partial(self.overwrite, columns)))
        self.run()

    def second_source(self) -> None:
        self.run()
        self.put(self.folder / "other")
        other = self.spark.readStream.format("delta").load(str(self.folder / "other"))
        self.run(self.read().union(other))

    def offsets_damaged(self) -> None:
        self.run()
        shutil.rmtree(self.checkpoint / "commits")
        (self.checkpoint / "offsets" / ".0.crc").unlink(missing_ok=True)
        (self.checkpoint / "offsets" / "0").write_text("garbage")
        self.run()

    def grouping_changed(self) -> None:
        for column in ("v", "s"):
            self.run(self.read().groupBy(column).count(), lambda batch, _: batch.collect())
            self.put(self.table)

    def udf_raises(self) -> None:
        from pyspark.sql.functions import udf

        @udf("long")
        def boom(_: int) -> int:
            raise RuntimeError("udf broke")

        self.run(self.read().withColumn("id", boom("id")))


def _raise(error: BaseException) -> None:
    raise error


SCENES: dict[str, Callable[[Scenes], object]] = {
    "columns added": lambda at: at.after(lambda: at.put(at.table, "id, v, s, more", mergeSchema="true")),
    "output cannot take new column": Scenes.output_takes_no_column,
    "column type changed": lambda at: at.after(lambda: at.overwrite("id, s AS v, s")),
    "column type changed, second start": lambda at: at.second_start("id, s AS v, s"),
    "column dropped, second start": lambda at: at.second_start("id, v"),
    "foreachBatch raises": lambda at: at.run(batch=lambda *_: _raise(ValueError("poison row 17"))),
    "foreachBatch names no column": lambda at: at.run(batch=lambda batch, _: batch.select("nope").collect()),
    "foreachBatch reads a missing table": lambda at: at.run(
        batch=lambda *_: at.spark.read.format("delta").load(str(at.folder / "nowhere"))
    ),
    "merge with double keys": lambda at: at.run(batch=at.merge),
    "UDF raises": Scenes.udf_raises,
    "value cannot be cast": lambda at: at.run(at.read().selectExpr("cast(s AS int) AS id")),
    "query names no column": lambda at: at.run(at.read().select("nope")),
    "source table without a version": lambda at: (
        (at.folder / "empty").mkdir(),
        at.spark.readStream.format("delta").load(str(at.folder / "empty")),
    ),
    "source folder missing": lambda at: at.spark.readStream.format("text").load(str(at.folder / "nowhere")),
    "source row updated": lambda at: at.after(lambda: at.sql("UPDATE {table} SET v = 7 WHERE id = 1")),
    "source rows deleted": lambda at: at.after(lambda: at.sql("DELETE FROM {table}")),
    "source made anew": Scenes.made_anew,
    "data file missing": Scenes.file_missing,
    "source folder removed while running": Scenes.folder_removed,
    "output has other types": lambda at: (at.put(at.out, "array(id) AS id, v, s"), at.run()),
    "second source added": Scenes.second_source,
    "offset file damaged": Scenes.offsets_damaged,
    "grouping changed": Scenes.grouping_changed,
    "memory ran out": lambda at: at.run(batch=lambda *_: _raise(MemoryError())),
}


class Events:
    """What Spark's event tells of the end of a query that failed, the last one."""

    def __init__(self, spark: Any) -> None:
        from pyspark.sql.streaming import StreamingQueryListener

        self.last: Any = None
        self.failed = threading.Event()
        heard = self

        class Listener(StreamingQueryListener):
            def onQueryStarted(self, event: Any) -> None:
                """Not of interest."""

            def onQueryProgress(self, event: Any) -> None:
                """Not of interest."""

            def onQueryIdle(self, event: Any) -> None:
                """Not of interest."""

            def onQueryTerminated(self, event: Any) -> None:
                # A scene can begin with queries that end well.
                if event.exception:
                    heard.last = event
                    heard.failed.set()

        spark.streams.addListener(Listener())


def chain(error: BaseException) -> list[dict[str, str]]:
    """The error and its causes, as data."""
    links = []
    each: Any = error
    while isinstance(each, BaseException):
        named = {
            key: (getattr(each, method, None) or (lambda: None))() or ""
            for key, method in (("condition", "getErrorClass"), ("sqlstate", "getSqlState"))
        }
        links.append({"type": type(each).__name__, "text": str(each), **named})
        each = getattr(each, "cause", None) or getattr(each, "_cause", None)
    return links


def shortened(text: str, folder: Path) -> str:
    """The text without what is of this machine alone, and without most of Java's stacks."""
    text = text.replace(str(folder), "/lake").replace(__file__, "/app/pipes/stream.py")
    text = re.sub(r"/[^\s\"']*/site-packages/", "/app/site-packages/", text)
    text = re.sub(r"/[^\s\"']*/spark-[0-9a-f-]{36}/userFiles-[0-9a-f-]{36}/", "/app/", text)
    text = re.sub(r"\([\w.-]+ executor driver\)", "(10.0.0.1 executor driver)", text)
    stack = re.compile(rf"((?:\n\tat [^\n]*){{{FRAMES}}})(?:\n\tat [^\n]*)+")
    return stack.sub(r"\1", text)[:MOST_CHARACTERS]


def main() -> int:
    """Record all; the exit code is 1 where a scene did not end in an error."""
    spark = build_session(
        {
            "spark.master": "local[2]",
            "spark.sql.shuffle.partitions": "2",
            "spark.ui.enabled": "false",
            "spark.sql.ansi.enabled": "true",
        }
    )
    found: dict[str, Any] = {}
    events = Events(spark)
    for name, scene in SCENES.items():
        with tempfile.TemporaryDirectory(prefix="scene-") as name_of:
            folder = Path(name_of)
            events.failed.clear()
            try:
                scene(Scenes(spark, folder))
            except Exception as error:
                links = [{**link, "text": shortened(link["text"], folder)} for link in chain(error)]
                found[name] = {"exceptions": links}
            else:
                print(f"no error: {name}", file=sys.stderr)
                continue
            if len(links) > 1 and links[0]["type"] == "StreamingQueryException":
                events.failed.wait(SECONDS)
                found[name]["event"] = {
                    "exception": shortened(events.last.exception, folder),
                    "error_class": events.last.errorClassOnException or "",
                }
        print(f"{name}: {links[-1]['type']} {links[-1]['condition']}", file=sys.stderr, flush=True)
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    recorded[".".join(spark.version.split(".")[:2])] = found
    RECORDED.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    spark.stop()
    return 0 if found.keys() == SCENES.keys() else 1


if __name__ == "__main__":
    sys.exit(main())
