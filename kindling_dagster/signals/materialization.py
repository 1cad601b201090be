"""Metadata of a materialization: what the pipes' commits did, when they ran, the table's totals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from dagster import (
    AssetKey,
    MetadataValue,
    TableColumn,
    TableColumnDep,
    TableColumnLineage,
    TableSchema,
)

from kindling_dagster.dag.results import PipeResult
from kindling_dagster.signals.step_record import PipeTiming
from kindling_dagster.translator import table_schema

_ROW_WORDS: Final = {
    "rows_written": "written",
    "rows_inserted": "inserted",
    "rows_updated": "updated",
    "rows_deleted": "deleted",
}
_ORIGINS: Final = 6
"""How many columns are named in a description."""
_OWN_COLUMNS: Final = "it is made of the table's own columns alone"


AssetOf = Callable[[str], "AssetKey | None"]
"""Gives an entity's asset; None for an entity that is none of the app's."""


def materialization_metadata(
    committed: Sequence[PipeResult], asset_of: AssetOf, own: AssetKey
) -> dict[str, Any]:
    """Metadata of one materialization: totals of the table, what the pipes' commits did, when they ran.

    Rows, bytes and files come from the table's log; where something is not to be had, a text says so.
    Durations are seconds; ``kindling/timings`` has ISO times in UTC by pipe.

    Args:
        committed: How the pipes ended that wrote the asset, in order.
        asset_of: Gives the asset of an entity that they read.
        own: The asset.
    """
    made_of, gaps = _column_lineage(committed, asset_of, own)
    metadata = {**_timing(committed), **_table(committed[-1].metadata), **_commits(committed)}
    if made_of:
        lineage = TableColumnLineage({column: list(deps) for column, deps in made_of.items()})
        metadata["dagster/column_lineage"] = MetadataValue.column_lineage(lineage)
    if gaps:
        metadata["kindling/column_lineage_gaps"] = MetadataValue.json(gaps)
    if "dagster/column_schema" in metadata:
        metadata["dagster/column_schema"] = _with_origins(metadata["dagster/column_schema"], made_of)
    return metadata


def _timing(committed: Sequence[PipeResult]) -> dict[str, Any]:
    timings = {result.pipe_id: asdict(PipeTiming.of(result)) for result in committed}
    metadata: dict[str, Any] = {
        "kindling/pipes": [result.pipe_id for result in committed],
        "kindling/duration_seconds": round(sum(r.duration_seconds or 0.0 for r in committed), 3),
        "kindling/durations": MetadataValue.json(
            {result.pipe_id: round(result.duration_seconds or 0.0, 3) for result in committed}
        ),
        "kindling/timings": MetadataValue.json(timings),
        "kindling/generation": max(result.generation for result in committed),
        "kindling/attempts": max(result.attempts for result in committed),
    }
    started = [result.started_at for result in committed if result.started_at is not None]
    ended = [result.ended_at for result in committed if result.ended_at is not None]
    if started and ended:
        metadata["kindling/started"] = MetadataValue.timestamp(min(started))
        metadata["kindling/ended"] = MetadataValue.timestamp(max(ended))
    return metadata


def _table(last: Mapping[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
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
        ("package", "kindling/package"),
        ("package_version", "kindling/package_version"),
    ):
        if name in last:
            metadata[key] = last[name]
    return metadata


_MadeOf = dict[str, dict[TableColumnDep, None]]


def _column_lineage(
    committed: Sequence[PipeResult], asset_of: AssetOf, own: AssetKey
) -> tuple[_MadeOf, dict[str, str]]:
    """Of which columns of other assets each column is made, and why that is not known of others.

    What is kept from the run before is no other's.
    """
    made_of: _MadeOf = {}
    gaps: dict[str, str] = {}
    for result in committed:
        traced = result.metadata.get("column_lineage") or {"columns": {}, "gaps": {}}
        for column, sources in traced["columns"].items():
            keys = ((asset_of(entity_id), name) for entity_id, name in sources)
            deps = [TableColumnDep(key, name) for key, name in keys if key is not None and key != own]
            if deps:
                made_of.setdefault(column, {}).update(dict.fromkeys(deps))
            else:
                gaps[column] = _OWN_COLUMNS
        gaps.update(traced["gaps"])
    return made_of, {column: reason for column, reason in gaps.items() if column not in made_of}


def _with_origins(schema: TableSchema, made_of: _MadeOf) -> TableSchema:
    """The schema, each column described by what it is made of: Dagster's open-source UI leaves the lineage out."""
    columns = []
    for column in schema.columns:
        deps = list(made_of.get(column.name, ()))
        if deps:
            named = [f"{dep.asset_key.to_user_string()}: {dep.column_name}" for dep in deps[:_ORIGINS]]
            more = f" and {len(deps) - _ORIGINS} more" if len(deps) > _ORIGINS else ""
            told = [column.description] if column.description else []
            text = "; ".join([*told, f"from {', '.join(named)}{more}"])
            column = TableColumn(
                column.name, column.type, text, constraints=column.constraints, tags=column.tags
            )
        columns.append(column)
    return TableSchema(columns=columns, constraints=schema.constraints)


def _commits(committed: Sequence[PipeResult]) -> dict[str, Any]:
    commits = [commit for result in committed for commit in result.metadata.get("commits", ())]
    metadata: dict[str, Any] = {f"kindling/rows_{word}": rows for word, rows in row_counts(commits).items()}
    operations = [commit["operation"] for commit in reversed(commits) if commit["operation"]]
    if operations:
        metadata["kindling/operations"] = ", ".join(dict.fromkeys(operations))
    return metadata


def row_counts(commits: Iterable[Mapping[str, Any]]) -> dict[str, int]:
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


def summary(result: PipeResult) -> str:
    """What a pipe committed and how long it took, in one line."""
    rows = row_counts(result.metadata.get("commits", ()))
    counts = [f"{count:,} rows {word}" for word, count in rows.items()]
    if "rows" in result.metadata:
        counts.append(f"{result.metadata['rows']:,} in all")
    counts.append(f"{result.duration_seconds or 0.0:.1f} s")
    if result.reason:
        counts.append(result.reason)
    return ", ".join(counts)
