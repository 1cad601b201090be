"""Fingerprints of what only a Spark session can read: made by the stream host, compared by whoever decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kindling_dagster.quoting import backticked
from kindling_dagster.streaming.dimensions.fingerprint import Fingerprint, method_text, schema_columns
from kindling_dagster.streaming.dimensions.model import Dimension
from kindling_dagster.streaming.dimensions.values import ColumnError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_ROWS, _SUM, _LOW = "rows", "sum", "low"


def fingerprint_in_session(dimension: Dimension, frame: DataFrame) -> str:
    """The fingerprint of a dimension by reading its rows with Spark: one job that reads it as a whole.

    Whatever the method, contents decide, in the chosen columns or in all: what can't be read without Spark
    has no log to ask. Write the text to the store under ``session_key``, and see with ``compare`` what changed.

    Args:
        dimension: The dimension, such as one whose look has the problem ``needs_spark``.
        frame: Its rows as Kindling reads the entity.

    Raises:
        ColumnError: A chosen column is not there.
    """
    from pyspark.sql import functions as sql

    missing = [name for name in dimension.columns if name not in frame.columns]
    if missing:
        raise ColumnError(f"there is no column {', '.join(missing)}; there are {', '.join(frame.columns)}")
    names = sorted(dimension.columns or frame.columns)
    # As JSON, since Spark hashes no maps; with nulls kept, since they are values too. Two hashes of a row
    # are summed, so that neither the order of rows counts nor one collision hides a change.
    row = sql.to_json(
        sql.struct(*[sql.col(backticked(name)) for name in names]), {"ignoreNullFields": "false"}
    )
    wide = "decimal(38,0)"
    answer = frame.agg(
        sql.count(sql.lit(1)).alias(_ROWS),
        sql.sum(sql.xxhash64(row).cast(wide)).alias(_SUM),
        sql.sum(sql.xxhash64(sql.lit("kindling-dagster"), row).cast(wide)).alias(_LOW),
    ).collect()[0]
    rows = int(answer[_ROWS])
    value = {"rows": rows, "digest": f"{answer[_SUM]}/{answer[_LOW]}"}
    schema = schema_columns(frame.schema.jsonValue()["fields"])
    return Fingerprint(method_text(dimension), value, "session", schema=schema, rows=rows).to_text()
