"""Fingerprints: the text in which a look leaves what the next one compares with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kindling_dagster.streaming.dimensions.model import Dimension, SchemaDifference

FINGERPRINT_VERSION = 1
"""Raised when an older reader could misread a newer text; a look then starts afresh."""


@dataclass(frozen=True)
class CommitMark:
    """The newest commit's file in the log, as it was: tells a table that was replaced or put back.

    ``size`` and ``modified`` answer without reading; ``digest`` (of its text) decides when they differ.
    """

    size: int = -1
    modified: float = 0.0
    digest: str = ""


@dataclass(frozen=True)
class Fingerprint:
    """What is remembered of a table.

    Args:
        method: The method and its columns, as text: another one can't be compared with this.
        value: The method's own answer: a count, a maximum, a digest; compared as it is.
        kind: Where the value comes from: ``delta``, ``files``, ``custom`` or ``session``.
        table: The Delta table's id.
        version: The Delta version that was looked at.
        commit: That version's commit.
        schema: Each column as ``name: type``, ``!`` behind a column that can't be null; None where unknown.
        rows: Rows, where known.
    """

    method: str
    value: Any = None
    kind: str = "delta"
    table: str = ""
    version: int | None = None
    commit: CommitMark = CommitMark()
    schema: tuple[str, ...] | None = None
    rows: int | None = None

    def to_text(self) -> str:
        """As JSON on one line; equal texts mean equal fingerprints."""
        return json.dumps(
            {"v": FINGERPRINT_VERSION, **asdict(self)},
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        )

    @staticmethod
    def from_text(text: str | None) -> Fingerprint | None:
        """What ``to_text`` gave; None for anything else, also for a text of a newer version."""
        try:
            data = json.loads(text or "")
            if data.pop("v") != FINGERPRINT_VERSION:
                return None
            commit = CommitMark(**data.pop("commit"))
            schema = data.pop("schema")
            read = Fingerprint(commit=commit, schema=None if schema is None else tuple(schema), **data)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return read if isinstance(read.method, str) and isinstance(read.version, int | None) else None


def method_text(dimension: Dimension) -> str:
    """A dimension's method with all that decides about its answer; chosen columns and keys have no order."""
    columns = ",".join(sorted(dimension.columns))
    text = f"{dimension.method}({columns})" if columns else str(dimension.method)
    if dimension.method == "scd2" and dimension.keys:
        text += f" by {','.join(dimension.keys)}"
    return text


def session_key(entity_id: str) -> str:
    """The key under which a host keeps the fingerprint it made in its session.

    The entity's own id is for the fingerprint that was last acted on: two keys, so that no change between is lost.
    """
    return f"{entity_id}@session"


def schema_columns(fields: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The columns of Spark's JSON fields; comments and other metadata left out."""
    return tuple(
        f"{column['name']}: {_type_text(column['type'])}{'' if column.get('nullable', True) else '!'}"
        for column in fields
    )


def _type_text(kind: Any) -> str:
    if isinstance(kind, str):
        return kind
    if kind.get("type") == "struct":
        return f"struct<{', '.join(schema_columns(kind['fields']))}>"
    if kind.get("type") == "array":
        required = "" if kind.get("containsNull", True) else "!"
        return f"array<{_type_text(kind['elementType'])}{required}>"
    if kind.get("type") == "map":
        required = "" if kind.get("valueContainsNull", True) else "!"
        return f"map<{_type_text(kind['keyType'])}, {_type_text(kind['valueType'])}{required}>"
    return json.dumps(kind, sort_keys=True)


def chosen(schema: tuple[str, ...], columns: Iterable[str]) -> tuple[str, ...]:
    """Those of a schema's columns that are chosen; all when none are."""
    wanted = set(columns)
    return tuple(entry for entry in schema if column_name(entry) in wanted) if wanted else schema


def column_name(entry: str) -> str:
    """The name in a schema's entry."""
    return entry.split(": ", 1)[0]


def schema_difference(before: Iterable[str], after: Iterable[str]) -> SchemaDifference:
    """How two schemas differ."""
    old = {column_name(entry): entry for entry in before}
    new = {column_name(entry): entry for entry in after}
    return SchemaDifference(
        added=tuple(entry for name, entry in new.items() if name not in old),
        removed=tuple(entry for name, entry in old.items() if name not in new),
        altered=tuple(f"{old[name]} → {new[name]}" for name in new if name in old and old[name] != new[name]),
    )


def digest_of(data: bytes) -> str:
    """A digest short enough to keep and long enough to trust."""
    return hashlib.sha256(data).hexdigest()[:32]
