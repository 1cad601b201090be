"""Digests of rows: blind to order, batches and columns' order, and to nothing else."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_dagster.streaming.dimensions.rows import compare_rows, digest_rows

KINDS = {"a": pa.string(), "b": pa.int64(), "c": pa.float64()}
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "a": st.none() | st.text(alphabet="a:|1n", max_size=4) | st.sampled_from(["null", "-", ""]),
            "b": st.none() | st.integers(-3, 12),
            "c": st.none() | st.floats(allow_nan=False, width=32),
        }
    ),
    max_size=6,
)


def batches(rows: list[dict[str, Any]], names: str = "abc", size: int = 100) -> list[pa.RecordBatch]:
    schema = pa.schema([(name, KINDS[name]) for name in names])
    return pa.Table.from_pylist(rows, schema).to_batches(max_chunksize=size)


def as_multiset(rows: list[dict[str, Any]]) -> list[str]:
    # -0.0 and 0.0 are equal and print differently, as they are stored differently.
    return sorted(repr(sorted(row.items())) for row in rows)


@given(ROWS, st.randoms(use_true_random=False))
def test_order_and_batches_do_not_matter(rows: list[dict[str, Any]], random: Any) -> None:
    shuffled = random.sample(rows, len(rows))
    assert digest_rows(batches(rows)) == digest_rows(batches(shuffled, "cab", size=2))


@given(ROWS, ROWS)
def test_other_rows_have_another_digest(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    same = as_multiset(one) == as_multiset(other)
    assert (digest_rows(batches(one)) == digest_rows(batches(other))) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([{"a": "x", "b": 1}], [{"a": "x", "b": 1}, {"a": "x", "b": 1}]),
        ([{"a": "1", "b": None}], [{"a": None, "b": 1}]),
        ([{"a": "", "b": 1}], [{"a": None, "b": 1}]),
        ([{"a": "null", "b": 1}], [{"a": None, "b": 1}]),
        ([{"a": "x", "b": 1}, {"a": "y", "b": 2}], [{"a": "x", "b": 2}, {"a": "y", "b": 1}]),
    ],
)
def test_rows_that_look_alike(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert digest_rows(batches(one, "ab")) != digest_rows(batches(other, "ab"))


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (pa.struct([("x", pa.int64()), ("y", pa.string())]), {"x": 1, "y": "a"}, {"x": 1, "y": "b"}),
        (pa.list_(pa.int64()), [1, 2], [2, 1]),
        (pa.map_(pa.string(), pa.int64()), [("a", 1)], [("a", 2)]),
        (pa.binary(), b"\xff\x00", b"\xff\x01"),
        (pa.string_view(), "long enough not to be inlined 1", "long enough not to be inlined 2"),
        (pa.decimal128(20, 4), 1, 2),
        (pa.bool_(), True, False),
        (pa.date32(), 1, 2),
        (pa.timestamp("us", "UTC"), 1, 2),
        (pa.dictionary(pa.int32(), pa.string()), "a", "b"),
    ],
    ids=str,
)
def test_every_type(kind: pa.DataType, one: Any, other: Any) -> None:
    digests = {
        digest_rows([pa.record_batch({"v": pa.array(values, kind)})]).digest
        for values in ([one, None], [None, one], [other, None], [None, None])
    }
    assert len(digests) == 3


def test_no_rows() -> None:
    assert digest_rows([]) == digest_rows(batches([]))
    assert digest_rows([]).rows == 0


@given(ROWS, ROWS)
def test_compare_is_what_a_dictionary_says(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    def by_key(rows: list[dict[str, Any]]) -> dict[tuple[str, ...], list[str]]:
        found: dict[tuple[str, ...], list[str]] = {}
        for row in rows:
            key = ("null" if row["b"] is None else str(row["b"]),)
            found.setdefault(key, []).append(repr(sorted(row.items())))
        return {key: sorted(texts) for key, texts in found.items()}

    old, new = by_key(before), by_key(after)
    changes = compare_rows(batches(before), batches(after), ["b"])
    assert set(changes.new) == new.keys() - old.keys()
    assert set(changes.closed) == old.keys() - new.keys()
    assert set(changes.changed) == {key for key in new.keys() & old.keys() if new[key] != old[key]}


def test_without_keys_a_changed_row_is_closed_and_new() -> None:
    changes = compare_rows(batches([{"a": "x", "b": 1}], "ab"), batches([{"a": "y", "b": 1}], "ab"), [])
    assert (len(changes.new), len(changes.closed), len(changes.changed)) == (1, 1, 0)
