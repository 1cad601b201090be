"""The lineage of a row as data, and as a column of a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.columns import lineage_column
from kindling_dagster.lineage.versions import TransformVersion, TransformVersions

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import StructType


@dataclass(frozen=True)
class LineageMetadata:
    """Which version of which transform writes, when, in which run. ``timestamp`` has a time zone."""

    pipe_id: str
    package_name: str
    package_version: str
    layer: str
    timestamp: datetime
    run_id: str = ""


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass
class VersionedExecutionContext:
    """Knows the versions of an app's transforms and stamps them on frames.

    Args:
        functions: Where each pipe's function is defined: pipe id to module name and file.
        run_id: The run that writes; may be changed between runs.
        version: The version of every transform, over what its package says.
        clock: Gives the moment, with a time zone.
    """

    functions: Mapping[str, tuple[str, Path | None]]
    run_id: str = ""
    version: str = ""
    clock: Callable[[], datetime] = _now
    _versions: TransformVersions = field(init=False)

    def __post_init__(self) -> None:
        self._versions = TransformVersions(self.version)

    def version_of(self, pipe_id: str) -> TransformVersion:
        """The package and version of a pipe's function.

        Raises:
            LineageError: The pipe is not known.
        """
        if pipe_id not in self.functions:
            raise LineageError(f"There is no pipe {pipe_id} to tell the version of.")
        return self._versions.of(*self.functions[pipe_id])

    def get_lineage_metadata(self, pipe_id: str, layer: str) -> LineageMetadata:
        """The lineage of what a pipe writes now.

        Raises:
            LineageError: The pipe is not known.
        """
        found = self.version_of(pipe_id)
        return LineageMetadata(pipe_id, found.package, found.version, layer, self.clock(), self.run_id)

    def add_lineage_column(self, df: DataFrame, pipe_id: str, layer: str) -> DataFrame:
        """The frame with its layer's lineage column, batch or stream; one that is there is replaced.

        The timestamp is the moment the query runs, in a stream that of each micro-batch.

        Raises:
            LineageError: The pipe is not known, or the layer has no name.
        """
        return df.withColumn(lineage_column(layer), self._column(pipe_id))

    def _column(self, pipe_id: str) -> Column:
        from pyspark.sql.functions import current_timestamp, lit, struct

        found = self.version_of(pipe_id)
        return struct(
            lit(pipe_id).alias("pipe"),
            lit(found.package).alias("package"),
            lit(found.version).alias("version"),
            current_timestamp().alias("timestamp"),
            lit(self.run_id).alias("run_id"),
        )


def combined_lineage(layer: str) -> Column:
    """An aggregate for rows that stem from several: the oldest lineage and the set of versions.

    Returns:
        A column of type struct: ``oldest``, the lineage with the smallest timestamp, and ``versions``, a
        sorted list of text. Rows without lineage count for neither.

    Raises:
        LineageError: The layer has no name.
    """
    from pyspark.sql.functions import array_sort, col, collect_set, min_by, struct

    stamp = col(lineage_column(layer))
    return struct(
        min_by(stamp, stamp["timestamp"]).alias("oldest"),
        array_sort(collect_set(stamp["version"])).alias("versions"),
    )


def lineage_type() -> StructType:
    """Spark's type of a lineage column: ``pipe``, ``package``, ``version``, ``timestamp``, ``run_id``."""
    from pyspark.sql.types import StringType, StructField, StructType, TimestampType

    fields = [StructField(name, StringType()) for name in ("pipe", "package", "version")]
    return StructType(
        [*fields, StructField("timestamp", TimestampType()), StructField("run_id", StringType())]
    )
