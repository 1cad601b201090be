"""From what happens in a run to what Dagster shows: the only code that makes Dagster events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetKey,
    Failure,
    MaterializeResult,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
)

from kindling_dagster.dag.results import PipeResult, PipeStatus
from kindling_dagster.engines.base import LogLine, PipeFinished, PipeStarted, RunEvent
from kindling_dagster.translator import table_schema

_ROW_WORDS = {
    "rows_written": "written",
    "rows_inserted": "inserted",
    "rows_updated": "updated",
    "rows_deleted": "deleted",
}


@dataclass(frozen=True)
class StepAsset:
    """An asset of the step that runs: its key, its entity, and the pipes that write it, in order."""

    key: AssetKey
    entity_id: str
    pipe_ids: tuple[str, ...]


@dataclass
class StepReporter:
    """Turns a step's run events into log lines, materializations and, in the end, one failure.

    Args:
        context: The step's context; only used on the thread that calls ``handle``.
        assets: The step's assets.
    """

    context: AssetExecutionContext
    assets: Sequence[StepAsset]
    results: dict[str, PipeResult] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_pipe = {pipe_id: asset for asset in self.assets for pipe_id in asset.pipe_ids}

    def handle(self, event: RunEvent) -> Iterator[MaterializeResult[Any]]:
        """Report one event; gives the materialization of an asset whose last pipe has just ended well."""
        match event:
            case LogLine(level, message):
                getattr(self.context.log, level)(message)
            case PipeStarted(pipe_id, attempt, _):
                again = f" (attempt {attempt})" if attempt > 1 else ""
                self.context.log.info(f"{self._position()} {pipe_id} started{again}")
            case PipeFinished(result):
                self.results[result.pipe_id] = result
                self._log_result(result)
                yield from self._materialize(self._by_pipe[result.pipe_id])
            case _:
                pass

    def finish(self) -> None:
        """End the step.

        Raises:
            Failure: Some pipe did not succeed; names each, with its error and what to do.
        """
        bad = [result for result in self.results.values() if not result.status.ok]
        if bad:
            raise step_failure(bad, len(self._by_pipe))

    def _position(self) -> str:
        return f"[{len(self.results) + 1}/{len(self._by_pipe)}]"

    def _log_result(self, result: PipeResult) -> None:
        done = f"[{len(self.results)}/{len(self._by_pipe)}]"
        if result.status is PipeStatus.SUCCEEDED:
            self.context.log.info(f"{done} {result.pipe_id} committed: {_summary(result)}")
        elif result.status is PipeStatus.SKIPPED:
            self.context.log.info(f"{done} {result.pipe_id} skipped: {result.reason or 'no new data'}")
        elif result.error is not None:
            advice = f" → {result.error.suggestion}" if result.error.suggestion else ""
            self.context.log.error(
                f"{done} {result.pipe_id} {result.status.value}: {result.error.type}: "
                f"{result.error.message}{advice}"
            )
        else:
            self.context.log.warning(f"{done} {result.pipe_id} {result.status.value}: {result.reason}")

    def _materialize(self, asset: StepAsset) -> Iterator[MaterializeResult[Any]]:
        """The asset's materialization, once all of its pipes have ended well and one has committed."""
        results = [self.results[pipe_id] for pipe_id in asset.pipe_ids if pipe_id in self.results]
        if len(results) < len(asset.pipe_ids):
            return
        committed = [result for result in results if result.status is PipeStatus.SUCCEEDED]
        if committed and all(result.status.ok for result in results):
            yield MaterializeResult(asset_key=asset.key, metadata=materialization_metadata(committed))


def materialization_metadata(committed: Sequence[PipeResult]) -> dict[str, Any]:
    """Metadata of one materialization: totals of the table, what the pipes' commits did, time taken.

    Rows, bytes and files come from the table's log; where something is not to be had, a text says so.
    """
    last = committed[-1].metadata
    metadata: dict[str, Any] = {
        "kindling/pipes": [result.pipe_id for result in committed],
        "kindling/duration_seconds": round(sum(r.duration_seconds or 0.0 for r in committed), 3),
        "kindling/durations": MetadataValue.json(
            {result.pipe_id: round(result.duration_seconds or 0.0, 3) for result in committed}
        ),
    }
    if any(result.attempts > 1 for result in committed):
        metadata["kindling/attempts"] = max(result.attempts for result in committed)
    if "rows" in last:
        metadata["dagster/row_count"] = last["rows"]
    if last.get("schema"):
        metadata["dagster/column_schema"] = table_schema(last["schema"])
    if "uri" in last:
        metadata["dagster/uri"] = last["uri"]
    for name, key in (
        ("version", "kindling/delta_version"),
        ("bytes", "kindling/size_bytes"),
        ("files", "kindling/files"),
        ("unavailable", "kindling/unavailable"),
    ):
        if name in last:
            metadata[key] = last[name]
    commits = [commit for result in committed for commit in result.metadata.get("commits", ())]
    for word, rows in _row_counts(commits).items():
        metadata[f"kindling/rows_{word}"] = rows
    operations = [commit["operation"] for commit in reversed(commits) if commit["operation"]]
    if operations:
        metadata["kindling/operations"] = ", ".join(dict.fromkeys(operations))
    return metadata


def _row_counts(commits: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Rows that commits wrote, inserted, updated, deleted; what their operations do not tell is left out."""
    counts: dict[str, int] = {}
    for commit in commits:
        for name, word in _ROW_WORDS.items():
            if name in commit["metrics"]:
                counts[word] = counts.get(word, 0) + commit["metrics"][name]
    if "inserted" in counts and not counts.get("written"):
        # The commit that only creates the table a merge then fills.
        counts.pop("written", None)
    return counts


def _summary(result: PipeResult) -> str:
    rows = _row_counts(result.metadata.get("commits", ()))
    counts = [f"{count:,} rows {word}" for word, count in rows.items()]
    if "rows" in result.metadata:
        counts.append(f"{result.metadata['rows']:,} in all")
    counts.append(f"{result.duration_seconds or 0.0:.1f} s")
    if result.reason:
        counts.append(result.reason)
    return ", ".join(counts)


def step_failure(bad: Sequence[PipeResult], total: int) -> Failure:
    """The failure of a step in which pipes did not succeed: one line and one table row for each."""
    own = [result for result in bad if result.error is not None]
    caused = [result for result in bad if result.error is None]
    lines = [f"{len(bad)} of {total} pipes did not succeed."]
    lines += [_failure_line(result) for result in own]
    lines += [f"  {r.pipe_id}: {r.status.value.replace('_', ' ')}, {r.reason or r.cause}" for r in caused]
    metadata: dict[str, Any] = {
        "pipes": _failure_table([*own, *caused]),
        "kindling/failures": MetadataValue.json([_failure_data(result) for result in bad]),
    }
    traces = [
        f"### {r.pipe_id}\n```\n{r.error.traceback[-6000:]}\n```"
        for r in own
        if r.error and r.error.traceback
    ]
    if traces:
        metadata["tracebacks"] = MetadataValue.md("\n\n".join(traces))
    return Failure(description="\n".join(lines), metadata=metadata)


def _failure_line(result: PipeResult) -> str:
    assert result.error is not None
    error = result.error
    where = f" ({error.where})" if error.where else ""
    advice = f"\n    → {error.suggestion}" if error.suggestion else ""
    return (
        f"  {result.pipe_id}: {result.status.value.replace('_', ' ')}, {error.type}: "
        f"{error.message}{where}{advice}"
    )


def _failure_table(results: Sequence[PipeResult]) -> Any:
    columns = ["pipe", "status", "error", "message", "where", "suggestion"]
    return MetadataValue.table(
        schema=TableSchema(columns=[TableColumn(name) for name in columns]),
        records=[
            TableRecord(
                {
                    "pipe": result.pipe_id,
                    "status": result.status.value,
                    "error": result.error.type if result.error else "",
                    "message": (result.error.message if result.error else result.reason)[:500],
                    "where": result.error.where if result.error else "",
                    "suggestion": result.error.suggestion if result.error else "",
                }
            )
            for result in results
        ],
    )


def _failure_data(result: PipeResult) -> Mapping[str, Any]:
    return {
        "pipe": result.pipe_id,
        "status": result.status.value,
        "cause": result.cause,
        "reason": result.reason,
        "attempts": result.attempts,
        "error": None
        if result.error is None
        else {
            "type": result.error.type,
            "message": result.error.message,
            "suggestion": result.error.suggestion,
            "where": result.error.where,
        },
    }
