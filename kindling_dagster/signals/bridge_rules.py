"""Rules for batch runs: pipes, plans, reading and writing, watermarks, caching, lineage, files, services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from dagster import AssetCheckEvaluation, AssetCheckSeverity, AssetObservation

from kindling_dagster.signals.bridge_outputs import (
    AssetFacts,
    BridgeContext,
    Commit,
    Level,
    Output,
    PipeNote,
    Rule,
    StepError,
    StepFact,
    StepLog,
)
from kindling_dagster.signals.carrying import safe_metadata

if TYPE_CHECKING:
    from kindling_dagster.signals.payloads import Payload

LINEAGE_CHECK: Final = "lineage_freshness"
_SHOWN: Final = 300
"""Characters of one value in a log line."""


def told(payload: Payload) -> dict[str, Any]:
    """What a payload says, by name: its set fields and what it has beyond them."""
    said = payload.to_kwargs()
    return {name: value for name, value in said.items() if value is not None and name not in _ENVELOPE}


_ENVELOPE: Final = frozenset({"timestamp", "operation_id"})


def log(level: Level = "info", text: str = "") -> Rule:
    """A rule that writes a line to the step's log.

    Args:
        level: The line's level.
        text: The line, with the payload's fields in braces; its summary of fields when empty.
    """

    def rule(payload: Payload, context: BridgeContext) -> Iterable[Output]:  # noqa: ARG001
        said = told(payload)
        line = text.format_map(_Shown(said)) if text else f"{payload.signal}: {_listed(said)}".rstrip(": ")
        yield StepLog(line, level, said)

    return rule


class _Shown(dict[str, Any]):
    """A payload's fields in a line's text: short, and "?" for what was not sent."""

    def __missing__(self, key: str) -> str:
        return "?"


def _listed(said: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in said.items())


def _short(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def pipe_note(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """Part of the line that the step's log has for the pipe anyway; of its own if it is about several pipes."""
    said = told(payload)
    pipe_ids = [said["pipe_id"]] if "pipe_id" in said else list(said.get("pipe_ids") or ())
    if len(pipe_ids) == 1:
        reason = said.get("reason") or said.get("skip_reason")
        yield PipeNote(str(pipe_ids[0]), str(reason or ""))
    else:
        yield from log()(payload, context)


def failure(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """Gathered for the step's failure, and told of the asset that was to be written."""
    yield StepError()
    said = told(payload)
    pipes = (said.get(name) for name in ("pipe_id", "reader_id"))
    entities = (said.get(name) for name in ("output_entity_id", "entity_id"))
    keys = (*map(context.output_of, pipes), *map(context.asset_of, entities))
    key = next((key for key in keys if key is not None), None)
    if key is not None:
        text = getattr(payload, "error_text", "") or said.get("error") or "?"
        error_type = said.get("error_type")
        yield AssetFacts(key, {"kindling/error": _short(f"{error_type}: {text}" if error_type else text)})


def retrying(payload: Payload, context: BridgeContext) -> Iterable[Output]:  # noqa: ARG001
    """A warning: the error may well heal."""
    said = _Shown(told(payload))
    yield StepLog(
        "{pipe_id} failed in attempt {attempt} of {max_attempts} and is tried again in "
        "{interval_seconds} s: {error_type}: {error}".format_map(said),
        "warning",
        said,
    )


def plan_generated(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """The plan as a table, and its warnings."""
    said = told(payload)
    details = said.get("metadata") or {}
    head = (
        f"Plan ({said.get('strategy', '?')}): {said.get('pipe_count', '?')} pipes in "
        f"{said.get('generation_count', '?')} generations, up to {said.get('max_parallelism', '?')} at once"
    )
    generations = details.get("generations") or [said.get("pipe_ids") or []]
    yield StepLog("\n".join([head, *_plan_lines(generations, context)]), "info", said)
    for warning in details.get("warnings") or ():
        yield StepLog(str(warning), "warning")
    yield StepFact("strategy", said.get("strategy"))


def _plan_lines(generations: Iterable[Iterable[str]], context: BridgeContext) -> list[str]:
    rows = [("generation", "pipe", "writes")]
    for number, pipes in enumerate(generations):
        for pipe_id in pipes:
            pipe = context.manifest.pipes_by_id.get(pipe_id)
            rows.append((str(number), pipe_id, pipe.output_entity_id if pipe else ""))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def generation_started(payload: Payload, context: BridgeContext) -> Iterable[Output]:  # noqa: ARG001
    """Which pipes may run now."""
    said = told(payload)
    pipes = ", ".join(said.get("pipe_ids") or ())
    yield StepLog(f"Generation {said.get('generation', '?')} begins: {_short(pipes)}", "info", said)


def generation_completed(payload: Payload, context: BridgeContext) -> Iterable[Output]:  # noqa: ARG001
    """How many pipes ended in which way, and how long it took."""
    said = told(payload)
    yield StepLog(f"Generation {said.get('generation', '?')} ended: {_counts(said)}", "info", said)


def execution_ended(payload: Payload, context: BridgeContext) -> Iterable[Output]:  # noqa: ARG001
    """Counts of the whole, and what caching gave."""
    said = told(payload)
    verb = "was cancelled" if payload.signal.endswith("_cancelled") else "ended"
    reason = f" ({said['reason']})" if said.get("reason") else ""
    level: Level = "warning" if verb == "was cancelled" else "info"
    yield StepLog(f"Execution {verb}{reason}: {_counts(said)}", level, said)
    if said.get("cache_metrics"):
        yield StepFact("cache", said["cache_metrics"])


def execution_failed(payload: Payload, context: BridgeContext) -> Iterable[Output]:  # noqa: ARG001
    """The end of all, when pipes failed; the pipes' own errors tell more."""
    yield StepError()
    metrics = told(payload).get("cache_metrics")
    if metrics:
        yield StepFact("cache", metrics)


def _counts(said: Mapping[str, Any]) -> str:
    words = {"success": "committed", "failed": "failed", "skipped": "skipped", "cancelled": "cancelled"}
    parts = [f"{said[f'{name}_count']} {word}" for name, word in words.items() if said.get(f"{name}_count")]
    return f"{', '.join(parts) or 'nothing ran'} in {_seconds(said.get('duration_seconds'))}"


def _seconds(value: Any) -> str:
    return f"{value:.1f} s" if isinstance(value, int | float) else "? s"


def committed(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """The entity's materialization."""
    said = told(payload)
    key = context.asset_of(said.get("output_entity_id")) or context.output_of(said.get("pipe_id"))
    if key is not None:
        written = {said.get("pipe_id", "?"): _rounded(said.get("duration_seconds"))}
        yield Commit(key, {"kindling/persist_seconds": written})
    else:
        yield from log()(payload, context)


def _rounded(value: Any) -> float | None:
    return round(float(value), 3) if isinstance(value, int | float) else None


def entity_access(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """How often and how long a provider read or wrote the table."""
    said = told(payload)
    key = context.asset_of(said.get("entity_id"))
    if key is None:
        return
    before, _, verb = payload.signal.rpartition(".")[2].partition("_")
    if before != "after":  # the other half says all that this one does
        yield AssetFacts(key, quiet=True)
        return
    totals = {f"kindling/{verb}_count": 1.0}
    seconds = _rounded(said.get("duration_seconds"))
    if seconds is not None:
        totals[f"kindling/{verb}_seconds"] = seconds
    yield AssetFacts(key, totals=totals, quiet=verb == "read")


def entity_registered(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """An SCD2 entity's companion is worth knowing; that an entity is declared, its asset says itself."""
    said = told(payload)
    key = context.asset_of(said.get("entity_id"))
    if key is not None:
        companion = said.get("companion_entity_id")
        yield AssetFacts(key, {"kindling/companion": companion} if companion else {}, quiet=True)


def resolved(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """Which pipes read the entity, and whether only what is new."""
    said = told(payload)
    key = context.asset_of(said.get("entity_id"))
    if key is None:
        return
    if payload.signal.endswith(".after_read"):
        how = "new data" if said.get("used_watermark") else "all"
        yield AssetFacts(key, {"kindling/read_by": {str(said.get("pipe_id", "?")): how}}, quiet=True)
    else:
        yield AssetFacts(key, quiet=True)


_WATERMARK_PARTS: Final[Mapping[str, Mapping[str, str]]] = {
    "watermark_found": {"cursor": "from"},
    "after_save": {"cursor": "to"},
    "watermark_saved": {"cursor": "to"},
    "after_read_changes": {
        "cursor": "from",
        "new_cursor": "to",
        "has_data": "new_data",
        "is_initial_load": "initial",
    },
    "no_new_data": {"cursor": "from"},
}


def watermark(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """From where to where the pipe read each of its sources: metadata of what the pipe writes."""
    said = told(payload)
    reader = said.get("pipe_id") or said.get("reader_id")
    source = said.get("source_entity_id") or said.get("entity_id")
    key = context.output_of(reader) or context.asset_of(source)
    if key is None:
        return
    event = payload.signal.rpartition(".")[2]
    parts = {
        word: said[name]
        for name, word in _WATERMARK_PARTS.get(event, {}).items()
        if said.get(name) is not None
    }
    if event == "watermark_missing":
        parts = {"from": "the beginning"}
    elif event == "no_new_data":
        parts["new_data"] = False
    facts = {"kindling/watermarks": {str(reader): {str(source): parts}}} if parts else {}
    yield AssetFacts(key, facts, quiet=not parts)


def cache(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """What caching the entity would give, or gave."""
    said = told(payload)
    key = context.asset_of(said.get("entity_id"))
    if key is None:
        return
    words = {
        "hit_count": "hits",
        "miss_count": "misses",
        "consumer_pipes": "readers",
        "cache_level": "level",
        "estimated_bytes": "bytes",
        "auto_cache": "cached",
        "auto_cached": "cached",
    }
    facts = {word: said[name] for name, word in words.items() if name in said}
    # That something could be cached and is not, is advice: no event of its own.
    yield AssetFacts(key, {"kindling/cache": facts}, quiet=said.get("auto_cache") is False)


def lineage(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """Which version of the package wrote the rows."""
    said = told(payload)
    key = context.asset_of(said.get("entity_id")) or context.output_of(said.get("pipe_id"))
    if key is None:
        return
    words = ("package_name", "package_version", "previous_version", "column")
    facts = {f"kindling/lineage_{word}": said[word] for word in words if word in said}
    yield AssetFacts(key, facts, needs_commit=True)


def lineage_audit(payload: Payload, context: BridgeContext) -> Iterable[Output]:
    """A check: were all rows written by versions that are still allowed?"""
    said = told(payload)
    key = context.asset_of(said.get("entity_id"))
    if key is None:
        return
    stale = said.get("stale_row_count", said.get("stale_file_count")) or 0
    metadata = {f"kindling/{name}": value for name, value in said.items() if name != "entity_id"}
    description = f"{stale:,} stale" if stale else "Everything was written by versions that are allowed."
    yield AssetObservation(key, description="Lineage was audited", metadata=safe_metadata(metadata))
    yield AssetCheckEvaluation(
        asset_key=key,
        check_name=LINEAGE_CHECK,
        passed=not stale,
        severity=AssetCheckSeverity.WARN,
        description=description,
        metadata=safe_metadata(metadata),
    )
