"""Digests of rows that do not depend on their order, and which current rows of an SCD2 table differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kindling_dagster.streaming.dimensions.model import KEYS_SHOWN, ChangedKeys

if TYPE_CHECKING:
    import pyarrow as pa

_BYTES = 16
_MODULUS = 1 << (8 * _BYTES)


@dataclass(frozen=True)
class RowsDigest:
    """How many rows, and the sum of their digests: the same for the same rows in any order and split."""

    rows: int
    digest: str

    def to_value(self) -> dict[str, Any]:
        """As a fingerprint's value."""
        return {"rows": self.rows, "digest": self.digest}


def digest_rows(batches: Iterable[pa.RecordBatch]) -> RowsDigest:
    """The digest of all rows with all columns of the batches; the order of columns does not matter."""
    total = 0
    count = 0
    for batch in batches:
        names = sorted(batch.schema.names)
        count += batch.num_rows
        for text in _row_texts(batch, names):
            total += _digest(text)
    return RowsDigest(count, f"{total % _MODULUS:032x}")


def _digest(text: str) -> int:
    # A cryptographic digest: a plain 64-bit one would let two changes cancel out in the sum now and then.
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_BYTES).digest(), "big")


def _row_texts(batch: pa.RecordBatch, names: Sequence[str]) -> list[str]:
    """Each row as a text that no other row has."""
    import pyarrow.compute as pc

    if not names:
        return [""] * batch.num_rows
    encoded = [_column_texts(batch.column(name), name) for name in names]
    joined: list[str] = pc.binary_join_element_wise(*encoded, "|").to_pylist()
    return joined


def _column_texts(column: pa.Array, name: str) -> pa.Array:
    """A column's values with name and length before each, so that no two rows look alike when joined."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if (
        pa.types.is_nested(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or (hasattr(pa.types, "is_binary_view") and pa.types.is_binary_view(kind))
    ):
        texts = pa.array(
            [
                None if value is None else json.dumps(value, default=repr, sort_keys=True)
                for value in column.to_pylist()
            ],
            pa.string(),
        )
    else:
        texts = pc.cast(column, pa.string())
    lengths = pc.cast(pc.binary_length(texts), pa.string())
    present = pc.binary_join_element_wise(f"{len(name)}:{name}", lengths, texts, ":")
    return pc.fill_null(present, f"{len(name)}:{name}:null")


@dataclass(frozen=True)
class RowChanges:
    """Keys of current rows that are new, closed, or have other values; each in the order of its text."""

    new: tuple[tuple[str, ...], ...]
    closed: tuple[tuple[str, ...], ...]
    changed: tuple[tuple[str, ...], ...]

    def capped(self) -> ChangedKeys:
        """The first ``KEYS_SHOWN`` of each."""
        return ChangedKeys(self.new[:KEYS_SHOWN], self.closed[:KEYS_SHOWN], self.changed[:KEYS_SHOWN])

    def __str__(self) -> str:
        return f"{len(self.new)} new, {len(self.closed)} closed, {len(self.changed)} changed current rows"


def compare_rows(
    before: Iterable[pa.RecordBatch], after: Iterable[pa.RecordBatch], keys: Sequence[str]
) -> RowChanges:
    """Which keys differ between two sets of current rows.

    Without ``keys`` the whole row is the key: a changed row then shows as one closed and one new.
    """
    old = _by_key(before, keys)
    new = _by_key(after, keys)
    return RowChanges(
        new=tuple(sorted(key for key in new if key not in old)),
        closed=tuple(sorted(key for key in old if key not in new)),
        changed=tuple(sorted(key for key in new if key in old and new[key] != old[key])),
    )


def _by_key(batches: Iterable[pa.RecordBatch], keys: Sequence[str]) -> dict[tuple[str, ...], int]:
    """Key → the sum of its rows' digests (a key that is wrongly there twice counts twice)."""
    found: dict[tuple[str, ...], int] = {}
    for batch in batches:
        names = sorted(batch.schema.names)
        for key, text in zip(_keys_of(batch, keys or names), _row_texts(batch, names), strict=True):
            found[key] = (found.get(key, 0) + _digest(text)) % _MODULUS
    return found


def _keys_of(batch: pa.RecordBatch, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    columns = [batch.column(name).to_pylist() for name in names]
    for row in zip(*columns, strict=True):
        yield tuple("null" if value is None else str(value) for value in row)
