"""The failure of a step: one table of what went wrong, the errors by signal, and the same as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dagster import Failure, MetadataValue, TableColumn, TableRecord, TableSchema

from kindling_dagster.dag.results import PipeResult
from kindling_dagster.signals.plain import plain, scrub_text

if TYPE_CHECKING:
    from kindling_dagster.signals.collector import CollectedError, ErrorCollector
    from kindling_dagster.signals.step_record import StepRecord

COLUMNS: Final = ("pipe", "status", "error", "message", "where", "suggestion")
_MESSAGE: Final = 500
_TRACEBACK: Final = 6_000
_ROWS: Final = 200


@dataclass(frozen=True)
class FailureRow:
    """One thing that went wrong: a pipe that did not succeed, or an error that only a signal told of."""

    pipe: str
    status: str
    error: str = ""
    message: str = ""
    where: str = ""
    suggestion: str = ""

    @staticmethod
    def of(result: PipeResult) -> FailureRow:
        """A pipe's row; for one that never ran, the message says why."""
        error = result.error
        status = result.status.value.replace("_", " ")
        if error is None:
            return FailureRow(result.pipe_id, status, message=result.reason or result.cause).scrubbed()
        return FailureRow(
            result.pipe_id, status, error.type, error.message, error.where, error.suggestion
        ).scrubbed()

    @staticmethod
    def told(error: CollectedError) -> FailureRow:
        """The row of an error that signals told of."""
        status = f"told by {', '.join(error.signals)}"
        return FailureRow(
            error.subject or "run", status, error.error_type, error.message, error.where, error.suggestion
        ).scrubbed()

    def scrubbed(self) -> FailureRow:
        """The row without secrets."""
        return FailureRow(*(scrub_text(getattr(self, name)) for name in COLUMNS))

    def line(self) -> str:
        """The row as text; the suggestion in a line of its own."""
        what = f"{self.error}: {self.message}" if self.error else self.message
        where = f" ({self.where})" if self.where else ""
        advice = f"\n    → {self.suggestion}" if self.suggestion else ""
        return f"  {self.pipe}: {self.status}, {what}{where}{advice}"


def step_failure(
    bad: Sequence[PipeResult],
    total: int,
    errors: ErrorCollector | None = None,
    record: StepRecord | None = None,
) -> Failure:
    """The failure of a step in which pipes did not succeed.

    Args:
        bad: The pipes that did not succeed.
        total: How many pipes the step had.
        errors: What signals told of.
        record: The step's timings and counts.
    """
    own = [result for result in bad if result.error is not None]
    caused = [result for result in bad if result.error is None]
    rows = [FailureRow.of(result) for result in (*own, *caused)]
    rows += [FailureRow.told(error) for error in _others(errors, own)]
    lines = [f"{len(bad)} of {total} pipes did not succeed.", *(row.line() for row in rows[:_ROWS])]
    if len(rows) > _ROWS:
        lines.append(f"  … {len(rows) - _ROWS} more")
    metadata: dict[str, Any] = {
        "pipes": _table(rows),
        "kindling/failures": MetadataValue.json([_data(result) for result in bad]),
    }
    if errors is not None and errors.by_signal:
        metadata["errors by signal"] = MetadataValue.json(dict(errors.by_signal))
        metadata["kindling/errors"] = MetadataValue.json([_told(error) for error in errors.errors[:_ROWS]])
        if errors.not_kept:
            metadata["kindling/errors_not_kept"] = errors.not_kept
    if record is not None:
        metadata["kindling/step"] = MetadataValue.json(plain(record.to_data()))
    traces = _traces(own)
    if traces:
        metadata["tracebacks"] = MetadataValue.md(traces)
    return Failure(description="\n".join(lines), metadata=metadata)


def _others(errors: ErrorCollector | None, own: Sequence[PipeResult]) -> list[CollectedError]:
    """Errors that signals told of and that no pipe's own error is already."""
    if errors is None:
        return []
    pipes = {result.pipe_id for result in own}
    texts = {scrub_text(result.error.message) for result in own if result.error}
    return [error for error in errors.errors if not _is_known(error, pipes, texts)]


# The end of a run or of a stage because of its pipes is no error of its own.
_SUMMARIES: Final = frozenset(
    {"orchestrator.execution_failed", "datapipes.run_failed", "stage.execute_failed"}
)


def _is_known(error: CollectedError, pipes: set[str], texts: set[str]) -> bool:
    if error.subject in pipes or set(error.signals) <= _SUMMARIES:
        return True
    # A pipe's message is the short form of what its signals say.
    return any(text and (text in error.message or error.message in text) for text in texts)


def _table(rows: Sequence[FailureRow]) -> Any:
    return MetadataValue.table(
        schema=TableSchema(columns=[TableColumn(name) for name in COLUMNS]),
        records=[
            TableRecord({name: str(getattr(row, name))[:_MESSAGE] for name in COLUMNS})
            for row in rows[:_ROWS]
        ],
    )


def _data(result: PipeResult) -> Any:
    error = result.error
    names = ("type", "message", "suggestion", "where")
    return plain(
        {
            "pipe": result.pipe_id,
            "status": result.status.value,
            "cause": result.cause,
            "reason": result.reason,
            "attempts": result.attempts,
            "error": error and {name: getattr(error, name) for name in names},
        }
    )


def _told(error: CollectedError) -> Any:
    return plain(
        {
            "subject": error.subject,
            "type": error.error_type,
            "message": error.message[:_MESSAGE],
            "suggestion": error.suggestion,
            "where": error.where,
            "count": error.count,
            "signals": error.signals,
        }
    )


def _traces(own: Sequence[PipeResult]) -> str:
    return "\n\n".join(
        f"### {result.pipe_id}\n```\n{scrub_text(result.error.traceback)[-_TRACEBACK:]}\n```"
        for result in own
        if result.error and result.error.traceback
    )
