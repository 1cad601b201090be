"""StepRecord: with what a step ends: when each pipe ran, and what its signals add up to. Free of Dagster."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any, Final

from kindling_dagster.dag.results import PipeResult
from kindling_dagster.signals.plain import scrub_data

_BAR: Final = 40
"""Characters of the time axis."""
_MAX_ROWS: Final = 100


def iso(seconds: float | None) -> str | None:
    """Unix seconds as ISO text in UTC, to the millisecond."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class PipeTiming:
    """When one pipe ran. Times are ISO text in UTC, None for a pipe that never started."""

    pipe: str
    generation: int
    status: str
    start: str | None
    end: str | None
    seconds: float | None
    attempts: int

    @staticmethod
    def of(result: PipeResult) -> PipeTiming:
        """A pipe's timing by its result."""
        seconds = result.duration_seconds
        return PipeTiming(
            pipe=result.pipe_id,
            generation=result.generation,
            status=result.status.value,
            start=iso(result.started_at),
            end=iso(result.ended_at),
            seconds=None if seconds is None else round(seconds, 3),
            attempts=result.attempts,
        )


@dataclass(frozen=True)
class StepRecord:
    """The step as data and as a drawing.

    Args:
        results: How the pipes ended, in the order they ended.
        running: Pipes that had started and not ended: the step was stopped.
        facts: What signals told of the step as a whole: ``cache`` is hits and misses by entity.
        signals: How often each signal came.
        aggregated: How many of them show only in an event that stands for several.
        dropped: How many went nowhere: a rule said so, or raised.
        errors: How many errors each signal told of.
    """

    results: Sequence[PipeResult]
    running: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    signals: Mapping[str, int] = field(default_factory=dict)
    aggregated: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """All of it, ready for JSON; parts that are empty are left out."""
        made: dict[str, Any] = {"pipes": [asdict(PipeTiming.of(result)) for result in self.results]}
        if self.running:
            made["running"] = list(self.running)
        for name in ("facts", "signals", "aggregated", "dropped", "errors"):
            value = getattr(self, name)
            if value:
                made.update(value if name == "facts" else {name: dict(sorted(value.items()))})
        return made

    def to_json(self) -> str:
        """``to_data`` as one line, its texts scrubbed of secrets."""
        return json.dumps(scrub_data(self.to_data()), separators=(",", ":"))

    def to_text(self) -> str:
        """A table with a time axis, one line for each pipe, by start."""
        timed = [result for result in self.results if result.started_at is not None]
        timed.sort(key=lambda result: result.started_at or 0.0)
        if not timed:
            return ""
        begin = timed[0].started_at or 0.0
        end = max(result.ended_at or begin for result in timed)
        rows: list[tuple[str, ...]] = [("pipe", "gen", "status", "start", "seconds", "tries", "")]
        rows += [_row(result, begin, end) for result in timed[:_MAX_ROWS]]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        if len(timed) > _MAX_ROWS:
            lines.append(f"… {len(timed) - _MAX_ROWS:,} more")
        return "\n".join(lines)


def _row(result: PipeResult, begin: float, end: float) -> tuple[str, ...]:
    start = (result.started_at or begin) - begin
    seconds = result.duration_seconds or 0.0
    scale = _BAR / (end - begin) if end > begin else 0.0
    offset = min(int(start * scale), _BAR - 1)
    bar = "█" * max(1, min(round(seconds * scale), _BAR - offset))
    return (
        result.pipe_id,
        str(result.generation),
        result.status.value,
        f"+{start:.1f}",
        f"{seconds:.1f}",
        str(result.attempts),
        " " * offset + bar,
    )
