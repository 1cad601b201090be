"""The kinds of frame in which an asset may take an entity: pandas, pyarrow, polars, DuckDB. Free of Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kindling_dagster.errors import RunError
from kindling_dagster.reading import EntityReader, ReadRequest

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SPARK = "pyspark.DataFrame"
"""The kind that a Spark session gives; all others are made without one."""


def kind_of(annotation: Any) -> str:
    """The kind of frame that a type stands for (``pandas.DataFrame``); empty for other types."""
    module = str(getattr(annotation, "__module__", "")).lstrip("_").split(".")[0]
    kind = f"{module}.{getattr(annotation, '__name__', '')}"
    return kind if kind == SPARK or kind in _MAKERS else ""


def frame_kinds() -> tuple[str, ...]:
    """All kinds there are."""
    return (*_MAKERS, SPARK)


def make_frame(kind: str, reader: EntityReader, request: ReadRequest) -> Any:
    """The part of an entity as a frame of this kind (any but Spark's).

    Raises:
        RunError: The entity cannot be read so, or the library is not installed.
    """
    try:
        return _MAKERS[kind](reader, request)
    except ImportError as error:
        library = kind.split(".")[0]
        raise RunError(
            f"{reader.entity.id} is asked for as {kind}, and {library} is not installed.",
            f"Install it: pip install {library}",
        ) from error


def _pandas(reader: EntityReader, request: ReadRequest) -> pd.DataFrame:
    return reader.read(request).read_pandas()


def _arrow(reader: EntityReader, request: ReadRequest) -> pa.Table:
    return reader.read(request).read_all()


def _polars(reader: EntityReader, request: ReadRequest) -> Any:
    import polars as pl

    return pl.from_arrow(_arrow(reader, request))


def _lazy_polars(reader: EntityReader, request: ReadRequest) -> Any:
    """A lazy frame that reads when it is collected, and then only the columns that are used."""
    import polars as pl
    from polars.io.plugins import register_io_source

    schema = reader.schema(request)

    def source(
        columns: list[str] | None, predicate: Any, rows: int | None, batch_size: int | None
    ) -> Iterator[Any]:
        del batch_size  # the batches are those of the files
        wanted = request if columns is None else replace(request, columns=tuple(columns))
        for batch in reader.read(wanted):
            frame: Any = pl.from_arrow(batch)
            if rows is not None:
                frame = frame.head(rows)
                rows -= frame.height
            yield frame if predicate is None else frame.filter(predicate)
            if rows == 0:
                return

    empty: Any = pl.from_arrow(schema.empty_table())
    return register_io_source(source, schema=empty.schema)


def _duckdb(reader: EntityReader, request: ReadRequest) -> Any:
    """A relation over the rows, on a connection of its own that lives as long as it does."""
    import duckdb

    return duckdb.connect().from_arrow(_arrow(reader, request))


_MAKERS: Mapping[str, Callable[[EntityReader, ReadRequest], Any]] = {
    "pandas.DataFrame": _pandas,
    "pyarrow.Table": _arrow,
    "pyarrow.RecordBatchReader": lambda reader, request: reader.read(request),
    "polars.DataFrame": _polars,
    "polars.LazyFrame": _lazy_polars,
    "duckdb.DuckDBPyRelation": _duckdb,
}
