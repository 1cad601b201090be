"""Rows already written with a dimension's old values: which can be found and written anew, and what is refused.

Pure: what can be said from the app's declarations, the changed keys and the shape of a query's plan.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kindling_dagster.errors import RunError, SelectionError
from kindling_dagster.jvm_plans import PlanNode
from kindling_dagster.locations import table_location
from kindling_dagster.manifest import EntitySpec, Manifest, PipeSpec
from kindling_dagster.streaming.dependencies import StreamDependencies
from kindling_dagster.streaming.dimensions.current_rows import changed_keys
from kindling_dagster.streaming.dimensions.registry import dimension_of
from kindling_dagster.table_checks.outcome import told_in_a_line

Key = tuple[str, ...]

MAX_KEYS: Final = 10_000
"""How many changed keys one request may have, unless it says otherwise."""
MAX_ROWS: Final = 1_000_000
"""How many rows of the output one request may write, unless it says otherwise."""

_NO_ROW_BY_ROW: Final = (
    "Aggregate",
    "Deduplicate",
    "Distinct",
    "Except",
    "GlobalLimit",
    "Intersect",
    "LocalLimit",
    "Offset",
    "Sample",
    "Tail",
    "Window",
)
"""Operations whose answer for one row depends on others; those over groups (``…MapGroups…``) besides."""


class ReprocessError(RunError):
    """Rows already written cannot be written anew as asked."""


@dataclass(frozen=True)
class ReprocessRequest:
    """Which rows of a stream's output to write anew.

    Args:
        stream: The stream: its pipe id, or the id of the entity it writes.
        dimension: The entity that changed.
        keys: Keys of its changed rows, as text; the values of one key separated by commas, as in CSV, where
            the key has several columns.
        since_version: Instead of ``keys``: all that changed since this version of its Delta table.
        columns: Where names differ, or the pipe joins by other columns than the dimension's key: column of
            the dimension → column of the stream's driving input. Empty: the key, by equal names.
        latest_by: Where several rows of the driving input became one row of the output: the column of the
            driving input whose largest value tells the last of them.
        max_keys: Refused when more have changed.
        max_rows: Refused when more rows of the output are affected.
    """

    stream: str
    dimension: str
    keys: tuple[str, ...] = ()
    since_version: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    latest_by: str = ""
    max_keys: int = MAX_KEYS
    max_rows: int = MAX_ROWS


@dataclass(frozen=True)
class ReprocessScope:
    """What a request is about, checked against the app's declarations.

    Args:
        request: The request.
        pipe: The stream's pipe.
        driving_id: Its one driving input.
        dimension: The dimension.
        output: What the stream writes.
        columns: Key column of the dimension → column of the driving input.
        named: Whether the request names those columns; else they must be seen in the pipe's joins.
        keys: The keys of the request, each with a text for each key column.
        current: The flag of current rows of an SCD2 output; empty for others.
    """

    request: ReprocessRequest
    pipe: PipeSpec
    driving_id: str
    dimension: EntitySpec
    output: EntitySpec
    columns: Mapping[str, str]
    named: bool
    keys: tuple[Key, ...] = ()
    current: str = ""

    @property
    def driving_columns(self) -> tuple[str, ...]:
        """The columns of the driving input that the dimension is joined by."""
        return tuple(self.columns.values())


@dataclass(frozen=True)
class ReprocessResult:
    """What was done, or what a dry run would have done.

    Args:
        stream_id: The stream.
        dimension_id: The dimension.
        output_id: The entity that the stream writes.
        keys: How many keys of the dimension have changed.
        rows: How many rows of the output are affected.
        written: Whether they were written anew.
        seconds: How long it took, Spark's start left out.
    """

    stream_id: str
    dimension_id: str
    output_id: str
    keys: int
    rows: int
    written: bool
    seconds: float = 0.0

    def __str__(self) -> str:
        affected = (
            f"{self.keys:,} changed keys of {self.dimension_id} are in {self.rows:,} rows of {self.output_id}"
        )
        if self.written:
            return f"{affected}: written anew by {self.stream_id} in {self.seconds:.1f} s."
        return f"{affected}. Nothing was written."


def scope_of(manifest: Manifest, request: ReprocessRequest) -> ReprocessScope:
    """What a request is about; refuses what the declarations already rule out.

    Raises:
        SelectionError: There is no such stream, or the dimension is none of its.
        ReprocessError: Which rows are affected cannot be known, or they cannot be written anew.
    """
    pipe = _pipe_of(manifest, request.stream)
    dependencies = StreamDependencies(manifest, [pipe.id]).of_stream(pipe.id)
    known = [dependency.entity_id for dependency in dependencies]
    if request.dimension not in known:
        raise SelectionError(
            f"{request.dimension} is no dimension of {pipe.id}.",
            f"Its dimensions: {', '.join(known)}." if known else "It has none.",
        )
    if bool(request.keys) == (request.since_version is not None):
        raise ReprocessError(
            f"It takes either keys of {request.dimension} or a version of it to say what changed.",
            "Give one of them.",
        )
    if len(pipe.driving_entity_ids) != 1:
        raise ReprocessError(
            f"{pipe.id} is driven by {', '.join(pipe.driving_entity_ids)}: "
            "which of their rows made a row of its output is not known.",
            "Write its output anew as a whole.",
        )
    output = manifest.entities_by_id[pipe.output_entity_id]
    _refuse_output(pipe.id, output)
    dimension = manifest.entities_by_id[request.dimension]
    columns = dict(request.columns) or {name: name for name in dimension.merge_columns}
    if not columns:
        raise ReprocessError(
            f"{dimension.id} declares no key, so nothing says which rows of {output.id} its rows are in.",
            f"Name the columns that {pipe.id} joins by.",
        )
    keys = _parsed_keys(request, list(columns))
    return ReprocessScope(
        request,
        pipe,
        pipe.driving_entity_ids[0],
        dimension,
        output,
        columns,
        named=bool(request.columns),
        keys=keys,
        current=output.tags.get("scd.current_col", "__is_current") if output.scd2 else "",
    )


def _pipe_of(manifest: Manifest, name: str) -> PipeSpec:
    streams = [pipe for pipe in manifest.pipes if pipe.streaming]
    found = [pipe for pipe in streams if pipe.id == name] or [
        pipe for pipe in streams if pipe.output_entity_id == name
    ]
    if len(found) != 1:
        raise SelectionError(
            f"{name!r} is {'several streams' if found else 'no stream'} of {manifest.app.name}.",
            f"Name one of {', '.join(pipe.id for pipe in found or streams) or 'its streams: it has none'}.",
        )
    return found[0]


def _refuse_output(stream_id: str, output: EntitySpec) -> None:
    """Refuse an output whose rows cannot be merged once more."""
    tags = output.tags
    mode = tags.get("write.mode", "").strip().lower()
    what = f"{stream_id} writes {output.id}"
    if mode == "append" or not output.merge_columns:
        raise ReprocessError(
            f"{what} by appending: what is there cannot be told from what would be written anew.",
            "Give it merge_columns, or write it anew as a whole.",
        )
    if output.provider != "delta" or output.kind != "state" or mode == "insert":
        raise ReprocessError(
            f"{what}, whose rows are never changed once they are there.", "Write it anew as a whole."
        )
    if not output.scd2:
        return
    snapshot = tags.get("scd.source_kind", "").strip().lower() == "snapshot"
    if snapshot or tags.get("scd.close_on_missing", "").strip().lower() == "true":
        raise ReprocessError(
            f"{what} from snapshots: rows that are not among those written anew would be closed.",
            "Write it anew as a whole.",
        )
    ordered = tags.get("scd.sequence_by", "").strip()
    if ordered:
        raise ReprocessError(
            f"{what} in the order of {ordered} (scd.sequence_by): the same rows once more count as late "
            "and are left out.",
            "Write it anew as a whole.",
        )


def _parsed_keys(request: ReprocessRequest, columns: Sequence[str]) -> tuple[Key, ...]:
    """The request's keys, value by value; refuses those that have another number of values than there are columns."""
    if len(columns) == 1:  # as it stands: a comma is part of it
        keys: list[Key] = [(text,) for text in request.keys]
    else:
        keys = [tuple(row) for row in csv.reader(request.keys, skipinitialspace=True)]
    wrong = next((key for key in keys if len(key) != len(columns)), None)
    if wrong is not None:
        raise ReprocessError(
            f"A key of {request.dimension} has a value for each of {', '.join(columns)}, and "
            f"{','.join(wrong)!r} has {len(wrong)}.",
            "Write the values of one key in that order, separated by commas, quoted as in CSV.",
        )
    found = tuple(dict.fromkeys(keys))
    refuse_many_keys(request, len(found))
    return found


def refuse_many_keys(request: ReprocessRequest, count: int) -> None:
    """Refuse more keys than the request allows; raises ReprocessError."""
    if count > request.max_keys:
        raise ReprocessError(
            f"{count:,} keys of {request.dimension} have changed, and at most {request.max_keys:,} may.",
            f"Name some of them, raise the limit, or write the output of {request.stream} anew as a whole.",
        )


def keys_of(
    scope: ReprocessScope, working_dir: Path | None, storage_options: Mapping[str, str] | None = None
) -> tuple[Key, ...]:
    """The changed keys: those of the request, or all that changed since its version, read without Spark.

    Raises:
        ReprocessError: The table or its old version cannot be read, or too many keys have changed.
    """
    request, entity = scope.request, scope.dimension
    if request.since_version is None:
        return scope.keys
    location = table_location(entity, working_dir) if entity.provider == "delta" else None
    if location is None:
        raise ReprocessError(
            f"{entity.id} is no Delta table with a path that is known without Spark, so what changed since "
            f"version {request.since_version} cannot be looked up.",
            "Name its keys.",
        )
    dimension = dimension_of(
        entity, "scd2" if entity.scd2 else "version", storage_options=storage_options or {}
    )
    try:
        changes = changed_keys(dimension, location, request.since_version, tuple(scope.columns))
    except Exception as error:  # delta-rs tells in many ways that files of an old version are gone
        raise ReprocessError(
            f"What changed in {entity.id} since version {request.since_version} cannot be read: "
            f"{told_in_a_line(error, entity)}.",
            "Give a version that its log still has, or name the keys.",
        ) from error
    found = tuple(dict.fromkeys((*changes.new, *changes.closed, *changes.changed)))
    refuse_many_keys(request, len(found))
    return found


def refuse_columns(scope: ReprocessScope, driving: Sequence[str]) -> None:
    """Refuse where the driving input lacks a column that affected rows are found by.

    Raises:
        ReprocessError: Names the column, and what to do.
    """
    absent = [name for name in scope.driving_columns if name not in driving]
    if absent:
        raise ReprocessError(
            f"{scope.driving_id}, which drives {scope.pipe.id}, has no column {', '.join(absent)}, so which of "
            f"its rows the changed keys of {scope.dimension.id} are in is not known. It has {', '.join(driving)}.",
            f"Name the columns that {scope.pipe.id} joins by.",
        )
    absent = [name for name in scope.output.merge_columns if name not in driving]
    if absent:
        raise ReprocessError(
            f"{scope.driving_id} has no column {', '.join(absent)}, which is in the key of {scope.output.id}: "
            "which of its rows made which row there is not known.",
            f"Write {scope.output.id} anew as a whole.",
        )
    latest = scope.request.latest_by
    if latest and latest not in driving:
        raise ReprocessError(
            f"{scope.driving_id} has no column {latest} to tell the last row by.",
            f"It has {', '.join(driving)}.",
        )


def refuse_counts(scope: ReprocessScope, rows: int, driving_rows: int) -> None:
    """Refuse more rows than the request allows, and several that would become one.

    Args:
        scope: What is asked for.
        rows: Affected rows of the output.
        driving_rows: Rows of the driving input that made them.

    Raises:
        ReprocessError: They cannot be written anew.
    """
    limit = scope.request.max_rows
    if rows > limit:
        raise ReprocessError(
            f"{rows:,} rows of {scope.output.id} are affected, and at most {limit:,} may be.",
            "Name fewer keys, raise the limit, or write it anew as a whole.",
        )
    if driving_rows > rows:
        raise ReprocessError(
            f"{driving_rows:,} rows of {scope.driving_id} made {rows:,} rows of {scope.output.id}: "
            "which of them was the last is not known.",
            f"Name the column of {scope.driving_id} that tells (latest_by).",
        )


def refuse_plan(scope: ReprocessScope, nodes: Sequence[PlanNode]) -> None:
    """Refuse a pipe that does not work row by row, or does not join by the columns that are assumed.

    Args:
        scope: What is asked for.
        nodes: What the pipe has put on top of its driving input; none when it is not in its result at all.

    Raises:
        ReprocessError: Says why.
    """
    pipe_id = scope.pipe.id
    grouping = next((node.name for node in nodes if _needs_others(node.name)), "")
    if grouping:
        raise ReprocessError(
            f"{pipe_id} does not work row by row ({grouping}): some rows alone would give other values.",
            f"Write {scope.output.id} anew as a whole.",
        )
    if not nodes:
        raise ReprocessError(
            f"The rows of {scope.driving_id} cannot be followed through {pipe_id}.",
            f"Write {scope.output.id} anew as a whole.",
        )
    if scope.named:
        return
    joins = [node.condition for node in nodes if node.condition]
    unseen = [name for name in scope.driving_columns if not any(_mentions(text, name) for text in joins)]
    if unseen:
        raise ReprocessError(
            f"{pipe_id} has no join by {', '.join(unseen)}, the key of {scope.dimension.id}, so the affected rows "
            f"of {scope.driving_id} are not known.",
            "Name the columns that it joins by.",
        )


def _needs_others(name: str) -> bool:
    return name in _NO_ROW_BY_ROW or "MapGroups" in name or "CoGroup" in name


def _mentions(condition: str, column: str) -> bool:
    """Whether a condition, as Spark writes it, has the column; ``item#12`` is one."""
    return re.search(rf"(?<![\w.]){re.escape(column)}#\d+", condition, re.IGNORECASE) is not None
