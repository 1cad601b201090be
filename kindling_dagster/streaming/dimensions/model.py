"""Plain data of dimensions: which table is looked at and how, and what a look has found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Method = Literal["watermark", "row_count", "hash", "version", "schema", "scd2", "files", "custom"]
Change = Literal["data", "schema", "replaced"]
ProblemKind = Literal[
    "missing",
    "permission",
    "corrupt",
    "unreachable",
    "unsupported",
    "needs_spark",
    "configuration",
    "custom",
    "error",
]

METHODS: tuple[Method, ...] = (
    "watermark",
    "row_count",
    "hash",
    "version",
    "schema",
    "scd2",
    "files",
    "custom",
)
DELTA_ONLY: tuple[Method, ...] = ("watermark", "row_count", "version", "schema", "scd2")
"""Methods that ask Delta's log."""
FILE_FORMATS = ("parquet", "csv")
"""Providers whose tables are plain files, listed and read without Spark."""
KEYS_SHOWN = 20
"""How many keys of changed rows a look names, of each kind."""


@dataclass(frozen=True)
class CurrentRows:
    """How an SCD2 table says which rows are current: Kindling's bookkeeping columns.

    Args:
        current: The flag of a current row.
        effective_from: Since when a row holds.
        effective_to: Until when a row held.
    """

    current: str = "__is_current"
    effective_from: str = "__effective_from"
    effective_to: str = "__effective_to"


@dataclass(frozen=True)
class Dimension:
    """A table that is watched for changes.

    Args:
        entity_id: The entity.
        provider: What kind of table: ``delta``, ``parquet``, ``csv``, or another that needs Spark.
        location: Path or URI; or a callable that gives it, which is asked anew at each look and whose
            answer is shown nowhere. Empty where the table has no path.
        method: What counts as a change; see ``DimensionChangeDetector.register_dimension``.
        columns: The column of ``watermark``, or the chosen ones of ``hash`` and ``scd2`` (empty: all).
        keys: The business key of ``scd2``.
        current_rows: The bookkeeping columns of ``scd2``.
        storage_options: As delta-rs takes them. Values are masked in what is shown.
        custom: For ``custom``: gives anything that JSON can hold; another answer is a change.
        options: How to read files: ``delimiter``, ``quote``, ``encoding``, ``header`` of CSV.
        label: What is shown in place of a location that is asked for.
    """

    entity_id: str
    provider: str = "delta"
    location: str | Callable[[], str] = field(default="", repr=False)
    method: Method = "version"
    columns: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    current_rows: CurrentRows = CurrentRows()
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    custom: Callable[[], Any] | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=dict)
    label: str = ""

    @property
    def shown_location(self) -> str:
        """The location as it may be shown: a secret one by its label only."""
        if callable(self.location):
            return self.label or "a location that is kept secret"
        return self.location


@dataclass(frozen=True)
class DimensionProblem:
    """Why a table could not be looked at, and what to do; free of secrets."""

    kind: ProblemKind
    message: str
    suggestion: str = ""


@dataclass(frozen=True)
class ChangedKeys:
    """Business keys of current rows that are new, closed or changed: at most ``KEYS_SHOWN`` of each.

    A key is its columns' values as text, in the order of ``Dimension.keys``.
    """

    new: tuple[tuple[str, ...], ...] = ()
    closed: tuple[tuple[str, ...], ...] = ()
    changed: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class SchemaDifference:
    """Columns that came, went, or have another type, nullability or place."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [
            f"{verb} {', '.join(names)}"
            for verb, names in (("added", self.added), ("removed", self.removed), ("altered", self.altered))
            if names
        ]
        return "; ".join(parts) or "columns in another order"


@dataclass(frozen=True)
class DimensionLook:
    """What one look at a dimension has found.

    Args:
        entity_id: The dimension.
        method: The method that looked.
        fingerprint: What to hand in at the next look; keep it, also when nothing changed. With a problem
            it is the previous one, so that a change meanwhile is seen once the table can be read again.
        previous_fingerprint: What was handed in.
        change: What changed since; None when nothing did, at a first look, and with a problem.
        reason: In words: what changed, or why nothing can be said.
        first: There was no fingerprint to compare with.
        version: The table's Delta version.
        rows: Rows, where the method knows them: all, or the current ones of ``scd2``.
        commits: Data-changing commits since the last look, where the method has read them.
        operations: Their operations, in order, repeats left out.
        changed_at: When the last of them was made; for files the newest file's time.
        new_count: Keys that have a current row and had none.
        closed_count: Keys that had a current row and have none.
        changed_count: Keys whose current row has other values.
        keys: Some of those keys.
        schema: How the columns differ.
        problem: Why the table could not be looked at.
    """

    entity_id: str
    method: str
    fingerprint: str | None = None
    previous_fingerprint: str | None = None
    change: Change | None = None
    reason: str = ""
    first: bool = False
    version: int | None = None
    rows: int | None = None
    commits: int | None = None
    operations: tuple[str, ...] = ()
    changed_at: float | None = None
    new_count: int | None = None
    closed_count: int | None = None
    changed_count: int | None = None
    keys: ChangedKeys | None = None
    schema: SchemaDifference | None = None
    problem: DimensionProblem | None = None

    @property
    def changed(self) -> bool:
        """Whether anything changed since the last look."""
        return self.change is not None

    @property
    def change_id(self) -> str:
        """The same for the same change, however often it is looked at; for run keys and command ids."""
        text = json.dumps([self.entity_id, self.previous_fingerprint, self.fingerprint])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """As plain data; what is None or empty is left out."""
        return {name: value for name, value in asdict(self).items() if value not in (None, (), "")}
