"""What a dry run gives: findings, and per pipe what was derived. Plain data, ready for JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cattrs import Converter


class FindingKind(str, Enum):
    """What is wrong."""

    MISSING_COLUMN = "missing_column"
    """A column is named that no input has."""
    WRONG_TYPE = "wrong_type"
    """Types do not fit each other inside the pipe."""
    MISSING_KEY = "missing_key"
    """The output lacks a column by which its rows are merged, ordered or replaced."""
    OUTPUT_TYPE = "output_type"
    """A column of the output has another type than the entity's."""
    OUTPUT_COLUMNS = "output_columns"
    """The output has not the columns that the entity declares, has one twice, or one too many."""
    LAYOUT_COLUMN = "layout_column"
    """A partition or cluster column is not there."""
    NO_FRAME = "no_frame"
    """The pipe gives something that is no DataFrame."""
    TIMED_OUT = "timed_out"
    """The pipe did not end within the limit, on empty frames."""
    PIPE_ERROR = "pipe_error"
    """The pipe raises something else."""


class Verdict(str, Enum):
    """How the dry run of one pipe ended."""

    OK = "ok"
    """It can run; there may be warnings."""
    BROKEN = "broken"
    """It has findings that would make it fail."""
    NOT_ANALYSED = "not_analysed"
    """Nothing can be said about it; the reason says why."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one pipe.

    ``severity`` is ``error`` (the pipe would fail, or change values it should not) or ``warning`` (it
    would run, and do something that is hardly meant). ``entity_id`` and ``column`` are empty where
    they do not apply. ``file`` and ``line`` are where in the app it arises: the innermost line of the
    app's code in the traceback, else the declaration; ``line`` is 0 when that is not known.
    """

    pipe_id: str
    kind: FindingKind
    message: str
    severity: str = "error"
    entity_id: str = ""
    column: str = ""
    file: str = ""
    line: int = 0
    suggestion: str = ""

    @property
    def where(self) -> str:
        """``file:line``; empty when not known."""
        return f"{self.file}:{self.line}" if self.file and self.line else self.file

    def __str__(self) -> str:
        at = f" ({self.where})" if self.where else ""
        return f"{self.pipe_id}{at}: {self.message} {self.suggestion}".strip()


@dataclass(frozen=True)
class PipeAnalysis:
    """What the dry run knows of one pipe.

    Args:
        pipe_id: The pipe.
        output_entity_id: What it writes.
        verdict: How its dry run ended.
        findings: What is wrong, errors first.
        reason: Why nothing can be said; empty otherwise.
        inputs: Per input entity, where its schema is from: ``live``, ``declared`` or ``derived``.
        columns: Name and type of the pipe's own output, where it gave one.
        seconds: How long it took.
    """

    pipe_id: str
    output_entity_id: str
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> PipeAnalysis:
        """The analysis that ``to_data`` described."""
        return _converter().structure(data, PipeAnalysis)

    def to_data(self) -> dict[str, Any]:
        """As JSON's types."""
        data: dict[str, Any] = _converter().unstructure(self)
        return data


@dataclass(frozen=True)
class AnalysisResult:
    """A dry run: every pipe once, in the order they were analysed."""

    pipes: tuple[PipeAnalysis, ...]

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, pipe by pipe."""
        return tuple(finding for pipe in self.pipes for finding in pipe.findings)

    @cached_property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that are errors."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def ok(self) -> bool:
        """Whether no error was found. Pipes that could not be analysed count as no error."""
        return not self.errors

    @cached_property
    def not_analysed(self) -> tuple[PipeAnalysis, ...]:
        """The pipes nothing can be said about."""
        return tuple(pipe for pipe in self.pipes if pipe.verdict is Verdict.NOT_ANALYSED)

    def summary(self) -> str:
        """One sentence for people."""
        warnings = len(self.findings) - len(self.errors)
        parts = [f"{len(self.pipes)} pipes analysed on empty frames", _count(len(self.errors), "error")]
        if warnings:
            parts.append(_count(warnings, "warning"))
        if self.not_analysed:
            parts.append(f"{len(self.not_analysed)} not analysed")
        return ", ".join(parts) + "."

    def to_data(self) -> dict[str, Any]:
        """As JSON's types."""
        return {"ok": self.ok, "pipes": [pipe.to_data() for pipe in self.pipes]}

    def to_json(self) -> str:
        """As indented JSON."""
        return json.dumps(self.to_data(), indent=1)


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


@cache
def _converter() -> Converter:
    # Here, because definitions load without it.
    from cattrs import Converter

    return Converter()
