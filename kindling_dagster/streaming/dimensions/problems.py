"""Why a dimension could not be looked at: exceptions of storage and formats as problems people can act on."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kindling_dagster.streaming.dimensions.log import CorruptLogError
from kindling_dagster.streaming.dimensions.model import Dimension, DimensionProblem, ProblemKind
from kindling_dagster.streaming.dimensions.values import ColumnError

_LONGEST = 400
_SHORTEST_MASKED = 4
"""Storage options below this length are flags (``true``), not secrets."""

# Storage errors come as text from the object store's client; what stands there decides, first match wins.
_SIGNS: tuple[tuple[ProblemKind, re.Pattern[str]], ...] = (
    (
        "permission",
        re.compile(
            r"permission ?denied|\b40[13]\b|forbidden|access ?denied|unauthorized|credential|Os \{ code: 13\b",
            re.I,
        ),
    ),
    ("corrupt", re.compile(r"magic bytes|corrupt", re.I)),  # "magic bytes not found" misses no file
    ("unsupported", re.compile(r"unsupported|not supported|reader feature|table feature", re.I)),
    (
        "missing",
        re.compile(
            r"no such file|not ?found|does not exist|no files in log segment|\b404\b|no such bucket", re.I
        ),
    ),
    (
        "unreachable",
        re.compile(
            r"connect|timed? ?out|\bdns\b|network|error sending request|\b50[0234]\b|unreachable|name or service",
            re.I,
        ),
    ),
    (
        "corrupt",
        re.compile(r"(json|parquet|arrow) error|invalid|malformed|expected|missing|parse|segment", re.I),
    ),
)

_SUGGESTIONS: dict[ProblemKind, str] = {
    "missing": "Create the table, or set the entity's location (tag provider.path).",
    "permission": "Let the account that Dagster's code server runs under read it, or give storage options.",
    "corrupt": "Look at the newest files of its _delta_log; RESTORE or repair the table with its writer.",
    "unreachable": "Check the network and the storage's endpoint; it is tried again at the next look.",
    "unsupported": "Its features need Spark: let the stream host fingerprint it, or choose the method custom.",
    "needs_spark": "The stream host looks at it in its session.",
    "configuration": "Correct the tags or the registration of this dimension.",
    "custom": "Correct the callable that was registered for this dimension.",
    "error": "",
}


class LocationError(Exception):
    """A secret location could not be resolved; says which type of exception did that, and nothing else."""


def problem_of(dimension: Dimension, error: BaseException) -> DimensionProblem:
    """An exception met while looking as a problem, without secrets."""
    if isinstance(error, ColumnError):
        return DimensionProblem(
            "configuration", f"{dimension.entity_id}: {error}.", _SUGGESTIONS["configuration"]
        )
    if isinstance(error, LocationError):
        what = f"its location cannot be resolved ({error})"
        return problem(
            dimension, "configuration", what, "Set the secret for the process that looks at dimensions."
        )
    if dimension.method == "custom":
        return problem(dimension, "custom", f"its custom method failed: {_cause(dimension, error)}")
    kind = _kind(error)
    return problem(dimension, kind, f"{_what(kind)}: {_cause(dimension, error)}")


def problem(dimension: Dimension, kind: ProblemKind, what: str, suggestion: str = "") -> DimensionProblem:
    """A problem in words: the dimension, where it is, and what is wrong."""
    where = f" ({dimension.shown_location})" if dimension.shown_location else ""
    return DimensionProblem(kind, f"{dimension.entity_id}{where}: {what}.", suggestion or _SUGGESTIONS[kind])


def _kind(error: BaseException) -> ProblemKind:
    if isinstance(error, PermissionError):
        return "permission"
    if isinstance(error, CorruptLogError | UnicodeDecodeError):
        return "corrupt"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "missing"
    if isinstance(error, TimeoutError | ConnectionError):
        return "unreachable"
    text = f"{type(error).__name__} {error}"
    return next((kind for kind, sign in _SIGNS if sign.search(text)), "error")


def _what(kind: ProblemKind) -> str:
    return {
        "missing": "there is no such table or file",
        "permission": "reading it is not allowed",
        "corrupt": "its log or one of its files cannot be read",
        "unreachable": "its storage cannot be reached",
        "unsupported": "it uses features that cannot be read without Spark",
    }.get(kind, "it cannot be looked at")


def _cause(dimension: Dimension, error: BaseException) -> str:
    """The exception's own words; only its type where they could hold a secret location."""
    name = type(error).__name__
    if callable(dimension.location):
        return name
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    text = re.split(r"\n\s*0: ", text)[0]  # delta-rs appends a backtrace
    text = " ".join(text.split())
    text = masked(text, dimension.storage_options.values())
    if len(text) > _LONGEST:
        text = text[:_LONGEST].rstrip() + " …"
    return f"{name}: {text.rstrip('.')}" if text else name


def masked(text: str, secrets: Iterable[str]) -> str:
    """``text`` with every storage option's value hidden."""
    for value in sorted(map(str, secrets), key=len, reverse=True):
        if len(value) >= _SHORTEST_MASKED and value.lower() not in ("true", "false"):
            text = text.replace(value, "***")
    return text
