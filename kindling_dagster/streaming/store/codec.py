"""Between the stream model's dataclasses and the JSON text that the store keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import cattrs

from kindling_dagster.streaming.store.errors import StoreCorrupted, StoreError

LONGEST_TEXT = 8_000
"""Characters of one text in a reported row; Spark's error messages can hold a whole query plan."""

LARGEST_DOCUMENT = 1_000_000
"""Characters of one document as JSON."""

T = TypeVar("T")


def to_text(item: Any) -> str:
    """A dataclass of the stream model as JSON text; texts longer than ``LONGEST_TEXT`` are cut.

    Raises:
        StoreError: It holds what JSON has no word for.
    """
    plain, name = _converter.unstructure(item), type(item).__name__
    text = _dump(plain, name)
    return text if len(text) <= LONGEST_TEXT else _dump(_cut(plain), name)


def from_text(text: str, kind: type[T], row: str) -> T:
    """The dataclass again; fields that a newer version has written are passed over.

    Args:
        text: What ``to_text`` gave.
        kind: Which dataclass.
        row: Which row of the store it is from, for the error.

    Raises:
        StoreCorrupted: The text is not that.
    """
    try:
        return _converter.structure(json.loads(text), kind)
    except Exception as error:  # cattrs passes on whatever a hook raised
        raise StoreCorrupted(
            f"The store's {row} cannot be read as {kind.__name__}: {_reason(error)}.",
            "It was changed by hand or written by another version; use the version that wrote it, "
            "or delete that row.",
        ) from error


def document_text(value: Any, name: str) -> str:
    """A document as JSON text.

    Raises:
        StoreError: It is no JSON, or too large.
    """
    text = _dump(value, name)
    if len(text) > LARGEST_DOCUMENT:
        raise StoreError(
            f"The document {name} has {len(text):,} characters; the store takes {LARGEST_DOCUMENT:,}.",
            "Keep small states in the store, data in tables.",
        )
    return text


def document_value(text: str, name: str) -> Any:
    """The document again.

    Raises:
        StoreCorrupted: The text is no JSON.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise StoreCorrupted(
            f"The store's document {name} is no JSON: {error}.", "Delete that row; it is made again."
        ) from error


def _dump(value: Any, name: str) -> str:
    try:
        # ASCII: neither NUL nor half a surrogate pair, both of which PostgreSQL refuses, reaches it raw.
        return json.dumps(value, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"{name} holds what JSON cannot: {error}.", "Keep texts, numbers, lists and mappings in it."
        ) from error


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"{value[:LONGEST_TEXT]}… ({len(value) - LONGEST_TEXT:,} more characters)"
    if isinstance(value, Mapping):
        return {key: _cut(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(item) for item in value]
    return value


def _reason(error: BaseException) -> str:
    """The innermost of cattrs' nested groups says what is wrong."""
    while isinstance(nested := getattr(error, "exceptions", None), tuple | list) and nested:
        error = nested[0]
    return f"{type(error).__name__}: {error}"


_converter = cattrs.Converter()
