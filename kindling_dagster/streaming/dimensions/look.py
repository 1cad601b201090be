"""`look`: one look at a dimension, compared with the fingerprint that the last one has left."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from kindling_dagster.streaming.dimensions.delta import look_at_delta
from kindling_dagster.streaming.dimensions.files import look_at_files
from kindling_dagster.streaming.dimensions.fingerprint import (
    Fingerprint,
    method_text,
    schema_difference,
)
from kindling_dagster.streaming.dimensions.model import (
    DELTA_ONLY,
    FILE_FORMATS,
    METHODS,
    Dimension,
    DimensionLook,
    DimensionProblem,
)
from kindling_dagster.streaming.dimensions.problems import LocationError, problem, problem_of

AFRESH = "the fingerprint that was kept cannot be read: starting afresh"


def look(dimension: Dimension, previous: str | None = None) -> DimensionLook:
    """Look at a dimension once: what changed since the look that left ``previous``.

    Never raises: whatever goes wrong is a problem of this dimension, and the look then gives back the
    previous fingerprint. Where nothing was committed since, a Delta table costs two file marks, whatever
    its size and history. A fingerprint of another method, or one that can't be read, is no change: the
    look starts afresh.

    Args:
        dimension: What to look at, and how.
        previous: The ``fingerprint`` of the last look; None at the first.

    Example:
        >>> first = look(Dimension("ref.planes", location="lake/ref/planes"))
        >>> later = look(Dimension("ref.planes", location="lake/ref/planes"), first.fingerprint)
        >>> later.change  # None: nobody has written meanwhile
    """
    wrong = _configuration(dimension)
    if wrong is not None:
        return _failed(dimension, previous, wrong)
    known = Fingerprint.from_text(previous)
    note = AFRESH if previous is not None and known is None else ""
    if known is not None and known.method != method_text(dimension):
        note = f"the method was {known.method} and is {method_text(dimension)} now: starting afresh"
        known = None
    try:
        found = _find(dimension, known)
    except Exception as error:  # one table's trouble must not keep the others from being looked at
        return _failed(dimension, previous, problem_of(dimension, error))
    return replace(found, previous_fingerprint=previous, reason=found.reason or note)


def compare(dimension: Dimension, previous: str | None, current: str) -> DimensionLook:
    """What changed between two fingerprints, for a dimension that another process looks at.

    The stream host fingerprints in its own session what can't be read without Spark; whoever decides
    about restarts compares what it has acted on with what the host has written last.
    """
    before, after = Fingerprint.from_text(previous), Fingerprint.from_text(current)
    if after is None:
        return _failed(
            dimension,
            previous,
            problem(dimension, "error", "the fingerprint that the stream host wrote cannot be read"),
        )
    found = DimensionLook(
        dimension.entity_id,
        dimension.method,
        fingerprint=current,
        previous_fingerprint=previous,
        version=after.version,
        rows=after.rows,
    )
    if before is None or before.method != after.method:
        return replace(found, first=True, reason=AFRESH if previous is not None and before is None else "")
    if before.table != after.table:
        return replace(found, change="replaced", reason="the table was created anew")
    if before.schema != after.schema:
        difference = schema_difference(before.schema or (), after.schema or ())
        return replace(found, change="schema", schema=difference, reason=str(difference))
    if before.value != after.value:
        return replace(found, change="data", reason="rows differ")
    return found


def _find(dimension: Dimension, previous: Fingerprint | None) -> DimensionLook:
    if dimension.method == "custom":
        return _look_custom(dimension, previous)
    location = dimension.location
    if callable(location):
        try:
            location = location()
        except Exception as error:  # asks a secret store of the user's
            raise LocationError(type(error).__name__) from None
    if dimension.provider == "delta":
        return look_at_delta(dimension, location, previous)
    return look_at_files(dimension, location, previous)


def _look_custom(dimension: Dimension, previous: Fingerprint | None) -> DimensionLook:
    ask: Callable[[], object] | None = dimension.custom
    assert ask is not None
    answer = json.loads(json.dumps(ask(), sort_keys=True, default=str))
    current = Fingerprint(method_text(dimension), answer, "custom")
    changed = previous is not None and previous.value != answer
    return DimensionLook(
        dimension.entity_id,
        dimension.method,
        fingerprint=current.to_text(),
        change="data" if changed else None,
        reason="the custom method gives another answer" if changed else "",
        first=previous is None,
    )


def _configuration(dimension: Dimension) -> DimensionProblem | None:
    """What is wrong with the dimension itself."""
    method, provider = dimension.method, dimension.provider
    if method not in METHODS:
        return problem(
            dimension,
            "configuration",
            f"there is no change detection {method!r}",
            f"Use one of {', '.join(METHODS)}.",
        )
    if method == "custom":
        if dimension.custom is None:
            return problem(
                dimension, "configuration", "custom change detection has no callable", "Register it with one."
            )
        return None
    if provider not in ("delta", *FILE_FORMATS) or not dimension.location:
        what = (
            "it has no path that is known without Spark"
            if provider in ("delta", *FILE_FORMATS)
            else f"{provider} cannot be read without Spark"
        )
        return problem(dimension, "needs_spark", what)
    if method in DELTA_ONLY and provider != "delta":
        return problem(
            dimension,
            "configuration",
            f"{method} needs a Delta table, and this is {provider}",
            "Use files or hash.",
        )
    if method == "files" and provider == "delta":
        return problem(
            dimension,
            "configuration",
            "files would see every OPTIMIZE and VACUUM of a Delta table",
            "Use version.",
        )
    if method == "watermark" and len(dimension.columns) != 1:
        return problem(dimension, "configuration", "watermark needs exactly one column", "Name it.")
    return None


def _failed(dimension: Dimension, previous: str | None, wrong: DimensionProblem) -> DimensionLook:
    return DimensionLook(
        dimension.entity_id,
        dimension.method,
        fingerprint=previous,
        previous_fingerprint=previous,
        reason=wrong.message,
        problem=wrong,
    )
