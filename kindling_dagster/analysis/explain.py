"""From what a pipe raised on empty frames to a finding: kind, column, line, and the column that was meant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kindling_dagster.analysis.findings import Finding, FindingKind
from kindling_dagster.analysis.sinks import closest
from kindling_dagster.dag.failures import concise, describe

Columns = Mapping[str, Sequence[str]]
"""Column names by input entity."""

_MISSING = re.compile(
    r"UNRESOLVED_(USING_)?(COLUMN|FIELD|MAP_KEY)|FIELD_NOT_FOUND|cannot resolve .* given input"
)
_TYPES = re.compile(
    r"DATATYPE_MISMATCH|INCOMPATIBLE_(COLUMN|DATA|JOIN|VIEW)|CANNOT_(UP_)?CAST|CAST_WITHOUT|_TYPE_MISMATCH"
    r"|NOT_COMPARABLE|INVALID_EXTRACT|FIELD_NOT_EXTRACTABLE|NUM_COLUMNS_MISMATCH"
)
_ATTRIBUTE = re.compile(r"'DataFrame' object has no attribute '(\w+)'|Attribute `(\w+)` is not supported")


def explain(pipe_id: str, error: Exception, inputs: Columns) -> Finding:
    """What a pipe's exception says is wrong. Call it in the pipe's own thread."""
    told = describe(pipe_id, error).error
    file, line = place(told.where)
    kind, column = _kind_and_column(error, inputs)
    message, suggestion = told.message, told.suggestion
    if kind is FindingKind.MISSING_COLUMN and column:
        message = f"There is no column `{column}`: {_shown(inputs)}."
        suggestion = _meant(column, inputs, _proposals(error))
    elif kind is FindingKind.PIPE_ERROR:
        message = f"{told.type}: {message}"
    owner = _owner(column, inputs) if kind is not FindingKind.MISSING_COLUMN else ""
    if not owner and len(inputs) == 1:
        owner = next(iter(inputs))
    return Finding(
        pipe_id, kind, message, entity_id=owner, column=column, file=file, line=line, suggestion=suggestion
    )


def place(where: str) -> tuple[str, int]:
    """``file:line`` as two; an empty file when there is none."""
    file, _, line = where.rpartition(":")
    return (file, int(line)) if file and line.isdigit() else ("", 0)


def _kind_and_column(error: Exception, inputs: Columns) -> tuple[FindingKind, str]:
    condition, parameters = _condition(error)
    text = str(error)
    attribute = _ATTRIBUTE.search(text)
    if isinstance(error, AttributeError) and attribute:
        return FindingKind.MISSING_COLUMN, attribute[1] or attribute[2]
    head = condition or text.partition("\n")[0]
    if _MISSING.search(head):
        name = parameters.get("objectName") or parameters.get("fieldName") or parameters.get("colName") or ""
        # `orders`.`id`, where the first part is an alias, is about the last.
        return FindingKind.MISSING_COLUMN, name.split("`.`")[-1].strip("`")
    if _TYPES.search(head):
        return FindingKind.WRONG_TYPE, _column_in(concise(text), inputs)
    return FindingKind.PIPE_ERROR, ""


def _condition(error: Exception) -> tuple[str, Mapping[str, str]]:
    """Spark's error condition and its parameters; nothing for other errors."""
    ask = getattr(error, "getCondition", None) or getattr(error, "getErrorClass", None)
    if ask is None:
        return "", {}
    parameters: Any = error.getMessageParameters()  # type: ignore[attr-defined]  # beside getErrorClass always
    return ask() or "", dict(parameters or {})


def _column_in(text: str, inputs: Columns) -> str:
    """The first column of an input that an error's text names; empty when it names none."""
    known = {name for names in inputs.values() for name in names}
    return next((word for word in re.findall(r"\w+", text) if word in known), "")


def _owner(column: str, inputs: Columns) -> str:
    return next((entity_id for entity_id, names in inputs.items() if column in names), "") if column else ""


def _proposals(error: Exception) -> list[str]:
    """The columns Spark itself names as similar, the most similar first."""
    proposed = _condition(error)[1].get("proposal", "")
    return [name.split("`.`")[-1].strip("`") for name in proposed.split(", ") if name]


def _meant(column: str, inputs: Columns, proposals: Sequence[str]) -> str:
    # What the pipe's own code has made of the inputs is in Spark's proposals alone.
    known = {name for names in inputs.values() for name in names}
    near = closest(column, [*proposals, *known])
    if near:
        return f"Did you mean `{near}`?"
    if set(proposals) <= known:
        return ""
    return f"At that point there are {', '.join(f'`{name}`' for name in proposals)}."


def _shown(inputs: Columns, limit: int = 12) -> str:
    parts = []
    for entity_id, names in inputs.items():
        more = " …" if len(names) > limit else ""
        parts.append(f"{entity_id} has {', '.join(names[:limit])}{more}")
    return "; ".join(parts) or "the pipe has no input"
