"""A short way to write a table's schema."""

from __future__ import annotations

from pyspark.sql.types import (
    BooleanType,
    DataType,
    DateType,
    DoubleType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

STRING = StringType()
INT = IntegerType()
LONG = LongType()
DOUBLE = DoubleType()
BOOL = BooleanType()
DATE = DateType()
TIMESTAMP = TimestampType()


def table(**columns: DataType) -> StructType:
    """A schema of nullable columns, in the order given."""
    return StructType([StructField(name, kind, True) for name, kind in columns.items()])
