"""What a write refuses, and what schema it leaves, as tables of cases; no Spark session."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql.types import (
    ArrayType,
    DateType,
    DecimalType,
    DoubleType,
    IntegerType,
    LongType,
    MapType,
    NullType,
    ShortType,
    StringType,
    StructField,
    StructType,
    TimestampType,
    VarcharType,
)

from kindling_dagster.analysis.sinks import Sink, conflicts, mismatches, schema_after

TYPES = {
    "smallint": ShortType(), "int": IntegerType(), "bigint": LongType(), "double": DoubleType(),
    "string": StringType(), "date": DateType(), "timestamp": TimestampType(), "void": NullType(),
    "varchar": VarcharType(9), "decimal(10,2)": DecimalType(10, 2), "decimal(12,2)": DecimalType(12, 2),
}  # fmt: skip


def schema(**columns: Any) -> StructType:
    return StructType([StructField(n, TYPES[t] if isinstance(t, str) else t) for n, t in columns.items()])


KEYED = schema(id="bigint", item="string")


def told(sink: Sink, output: StructType) -> list[tuple[str, str, str]]:
    return [(each.kind.value, each.severity, each.column) for each in mismatches(sink, output)]


# What Delta 3.3 was seen to do: a plain write takes the table's own types alone, a MERGE casts.
@pytest.mark.parametrize(
    ("wanted", "given_type", "write", "merge"),
    [
        ("bigint", "bigint", None, None),
        ("int", "smallint", None, None),
        ("string", "varchar", None, None),
        ("bigint", "void", None, None),
        ("bigint", "int", "error", "warning"),
        ("int", "bigint", "error", "error"),
        ("string", "date", "error", "warning"),
        ("double", "int", "error", "warning"),
        ("double", "bigint", "error", "error"),
        ("bigint", "double", "error", "error"),
        ("bigint", "string", "error", "error"),
        ("timestamp", "date", "error", "warning"),
        ("date", "timestamp", "error", "error"),
        ("date", "int", "error", "error"),
        ("decimal(12,2)", "decimal(10,2)", "error", "warning"),
        ("decimal(10,2)", "decimal(12,2)", "error", "error"),
        ("decimal(12,2)", "int", "error", "warning"),
        ("decimal(10,2)", "int", "error", "error"),
        ("bigint", "decimal(10,2)", "error", "error"),
    ],
)
def test_types(wanted: str, given_type: str, write: str | None, merge: str | None) -> None:
    table, output = schema(id="bigint", v=wanted), schema(id="bigint", v=given_type)
    for sink, severity in (
        (Sink("e", "append", table=table), write),
        (Sink("e", "merge", declared=table, keys=("id",)), write),  # the first write makes the table
        (Sink("e", "merge", table=table, keys=("id",)), merge),
        (Sink("e", "scd2", declared=table, keys=("id",)), merge),
    ):
        assert told(sink, output) == ([("output_type", severity, "v")] if severity else []), sink


@pytest.mark.parametrize(
    ("sink", "output", "expected"),
    [
        (Sink("e", "merge", keys=("ID",)), KEYED, []),
        (Sink("e", "append", keys=("code",)), KEYED, []),
        (Sink("e", "merge", keys=("code",)), KEYED, [("missing_key", "error", "code")]),
        (Sink("e", "scd2", keys=("id",), sequence="at"), KEYED, [("missing_key", "error", "at")]),
        (Sink("e", "replace_slices", slice_keys=("day",)), KEYED, [("missing_key", "error", "day")]),
        (Sink("e", "append", partitions=("day",)), KEYED, [("layout_column", "error", "day")]),
        (Sink("e", "scd2", partitions=("now",), minted=("now",)), KEYED, []),
        (Sink("e", "merge", table=schema(day="date"), clusters=("day", "item.x")), KEYED, []),
        (Sink("e", "append", clusters=("day",)), KEYED, [("layout_column", "error", "day")]),
        (Sink("e", "append", declared=schema(id="bigint", x="int")), KEYED, [("output_columns", "warning", "x")]),
        (Sink("e", "scd2", declared=schema(id="bigint", x="int"), minted=("x",)), KEYED, []),
        # Drift matters against a table only, and not where the table is replaced.
        (Sink("e", "append", declared=schema(id="bigint"), drift="fail"), KEYED, []),
        (Sink("e", "append", table=schema(id="bigint"), drift="fail"), KEYED, [("output_columns", "error", "item")]),
        (Sink("e", "merge", table=schema(id="bigint"), drift="warn"), KEYED, [("output_columns", "warning", "item")]),
        (Sink("e", "replace", table=schema(id="bigint"), drift="fail"), KEYED, []),
        (Sink("e", "merge", table=schema(id="int"), drift="fail"), schema(id="smallint"), []),
        (Sink("e", "merge", table=schema(v="string"), drift="fail"), schema(v="date"), [("output_type", "error", "v")]),
        # A replaced table and other providers take anything; the declaration still holds.
        (Sink("e", "replace", table=schema(id="int")), KEYED, []),
        (Sink("e", "replace", table=KEYED, declared=schema(id="int")), KEYED, [("output_type", "error", "id")]),
        (Sink("e", "merge", strict=False, declared=schema(id="int")), KEYED, [("output_type", "error", "id")]),
        # The table agrees with the output: only the declaration is behind.
        (Sink("e", "append", table=KEYED, declared=schema(id="int")), KEYED, [("output_type", "warning", "id")]),
        (Sink("e", "append"), StructType([*KEYED.fields, StructField("ID", LongType())]),
         [("output_columns", "error", "ID")]),
    ],
)  # fmt: skip
def test_columns(sink: Sink, output: StructType, expected: list[tuple[str, str, str]]) -> None:
    assert told(sink, output) == expected


def test_nested_columns_are_compared_by_name() -> None:
    wanted = schema(
        s=schema(a="int", b="string"), l=ArrayType(schema(c="date")), m=MapType(StringType(), LongType())
    )
    given_ = schema(
        s=schema(b="date", new="int"), l=ArrayType(schema(c="string")), m=MapType(StringType(), DateType())
    )
    assert list(conflicts(wanted, given_)) == [
        ("s.b", "string", "date"), ("l.element.c", "date", "string"), ("m.value", "bigint", "date"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sink", "expected"),
    [
        (Sink("e", "merge"), "id item"),
        (Sink("e", "merge", declared=schema(id="int", old="int")), "id old item"),
        (Sink("e", "append", table=schema(old="int"), declared=schema(x="int")), "old id item"),
        (Sink("e", "replace", table=schema(old="int")), "id item"),
        (Sink("e", "replace", declared=schema(old="int")), "old id item"),
        (Sink("e", "replace", strict=False, declared=schema(old="int")), "id item"),
        (Sink("e", "merge", strict=False, declared=schema(old="int")), "id item"),
        (Sink("e", "merge", strict=False, table=schema(old="int")), "old id item"),
        (Sink("e", "replace_slices", table=schema(old="int")), "old id item"),
    ],
)
def test_what_the_next_reader_finds(sink: Sink, expected: str) -> None:
    assert schema_after(sink, KEYED).names == expected.split()


columns = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(sorted(TYPES)), min_size=1).map(
    lambda chosen: schema(**chosen)
)


@given(table=columns, output=columns, mode=st.sampled_from(["append", "merge", "scd2", "replace_slices"]))
def test_a_table_keeps_its_columns_and_gains_the_outputs(
    table: StructType, output: StructType, mode: str
) -> None:
    after = schema_after(Sink("e", mode, table=table), output)
    assert after.fields[: len(table.fields)] == table.fields
    assert set(after.names) == set(table.names) | set(output.names)
    again = Sink("e", mode, table=after, drift="fail")
    assert told(again, after) == []  # what it is now, it takes without a word
