"""Writes the files of a batch through Kindling's own file ingestion, in Spark. Free of Dagster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kindling_dagster.engines.thread import SparkThread
from kindling_dagster.ingestion.batches import Batch, Batches
from kindling_dagster.project import KindlingProject
from kindling_dagster.runtime import KindlingRuntime
from kindling_dagster.spark import session_is_up

# Delta's own settings for idempotent writes: a version that an application has committed is not written again.
_APP_ID = "spark.databricks.delta.write.txnAppId"
_VERSION = "spark.databricks.delta.write.txnVersion"


def write_batches(
    project: KindlingProject,
    batches: Batches,
    todo: Sequence[Batch],
    create_session: Callable[[], Any],
) -> None:
    """Write batches, one after another, on a thread that owns Spark.

    The session and the app are those of the process, if it has them, else they are started, and ended after.

    Raises:
        KindlingDagsterError: Spark or the app cannot start.
        Exception: Whatever Kindling raises on a file; the batch remains to be taken up again.
    """
    thread = SparkThread(f"kindling ingestion {project.name}")
    try:
        thread.submit(lambda: _write_all(project, batches, todo, create_session)).result()
    finally:
        thread.stop()


def _write_all(
    project: KindlingProject, batches: Batches, todo: Sequence[Batch], create_session: Callable[[], Any]
) -> None:
    app_was_up, spark_was_up = KindlingRuntime.is_up(), session_is_up()
    runtime = None
    try:
        runtime = KindlingRuntime.start(project, create_session)
        for batch in todo:
            batches.run(batch, _Writer(runtime.spark))
    finally:
        if runtime is not None and not app_was_up:
            runtime.close()
        if not spark_was_up and session_is_up():
            create_session().stop()


class _Writer:
    """Writes a directory under a transaction's application id and version."""

    def __init__(self, spark: Any) -> None:
        self._spark = spark

    def __call__(self, directory: Path, app_id: str, version: int) -> None:
        from kindling.file_ingestion import ParallelizingFileIngestionProcessor
        from kindling.injection import get_kindling_service

        self._spark.conf.set(_APP_ID, app_id)
        self._spark.conf.set(_VERSION, str(version))
        try:
            # Without a move path: the files are where they stay already.
            get_kindling_service(ParallelizingFileIngestionProcessor).process_path(str(directory))
        finally:
            self._spark.conf.unset(_APP_ID)
            self._spark.conf.unset(_VERSION)
