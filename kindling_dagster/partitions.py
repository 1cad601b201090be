"""Partitions: from what the app's tags declare to Dagster's partitions, and from a run's to Kindling's entity_tags."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetExecutionContext,
    AssetSpec,
    DailyPartitionsDefinition,
    DynamicPartitionsDefinition,
    HourlyPartitionsDefinition,
    MetadataValue,
    MonthlyPartitionsDefinition,
    PartitionsDefinition,
    StaticPartitionsDefinition,
    TimeWindowPartitionsDefinition,
    WeeklyPartitionsDefinition,
)

from kindling_dagster.errors import DeclarationError, RunError
from kindling_dagster.manifest import EntitySpec, Manifest, PipeSpec
from kindling_dagster.windows import WINDOW_TAG, Window

if TYPE_CHECKING:
    from kindling_dagster.translator import AssetData

PARTITIONS_TAG = "kindling-dagster/partitions"
"""Tag of a step: by entity, the columns that tell the partitions of what its pipes read."""
COLUMN_METADATA = "kindling/partition_column"
"""Metadata of a partitioned asset: the column of its own table that tells a row's partition."""
WINDOW_METADATA = "kindling/window"

_TAG = "dagster/partitions"
_COLUMN_TAG = "dagster/partition_column"
_BY_TIME: Mapping[str, Any] = {
    "hourly": HourlyPartitionsDefinition,
    "daily": DailyPartitionsDefinition,
    "weekly": WeeklyPartitionsDefinition,
    "monthly": MonthlyPartitionsDefinition,
}


def declared_partitions(entity: EntitySpec) -> PartitionsDefinition[str] | None:
    """The partitions that an entity's tags declare; None where they declare none.

    ``dagster/partitions`` is ``hourly``, ``daily``, ``weekly`` or ``monthly`` (with ``dagster/partitions.start``,
    and ``.end`` and ``.timezone`` if wanted), or ``static`` (with ``dagster/partitions.keys``, by commas).

    Raises:
        DeclarationError: The tags do not go together.
    """
    kind = entity.tags.get(_TAG, "").strip().lower()
    if not kind:
        return None
    if kind == "static":
        keys = [key.strip() for key in entity.tags.get(f"{_TAG}.keys", "").split(",") if key.strip()]
        if not keys:
            raise DeclarationError(
                f"{entity.id} is tagged {_TAG}: static, and no partition is named.",
                f"Name them in its tag {_TAG}.keys, by commas.",
            )
        return StaticPartitionsDefinition(keys)
    if kind not in _BY_TIME:
        raise DeclarationError(
            f"{entity.id} is tagged {_TAG}: {kind}.", f"Use one of {', '.join([*_BY_TIME, 'static'])}."
        )
    start = entity.tags.get(f"{_TAG}.start", "")
    if not start:
        raise DeclarationError(
            f"{entity.id} is tagged {_TAG}: {kind}, and nothing says when its partitions begin.",
            f"Set its tag {_TAG}.start, such as 2024-01-01.",
        )
    options = {
        name: value
        for name, tag in (("end_date", "end"), ("timezone", "timezone"))
        if (value := entity.tags.get(f"{_TAG}.{tag}"))
    }
    try:
        made: PartitionsDefinition[str] = _BY_TIME[kind](start_date=start, **options)
    except Exception as error:  # of several kinds: the date, the time zone
        raise DeclarationError(
            f"The partitions of {entity.id} ({kind}, from {start}) cannot be made: {error}",
            f"Look at its tags {_TAG}.start, .end and .timezone.",
        ) from error
    return made


def declared_columns(entity: EntitySpec, pipes: Sequence[PipeSpec]) -> dict[str, str]:
    """By input, the column that tells the partition: of what drives the pipes, the one that is tagged."""
    column = entity.tags.get(_COLUMN_TAG, "")
    if not column:
        return {}
    return {id_: column for pipe in pipes for id_ in pipe.driving_entity_ids if id_ != entity.id}


def own_column(entity: EntitySpec) -> str:
    """The column of the entity's own table that tells the partition; empty when nothing says which.

    Where no tag does, a derived entity that is replaced by the values of one column goes by that one.
    """
    replaced = _replace_keys(entity)
    return entity.tags.get(_COLUMN_TAG, "") or (replaced[0] if len(replaced) == 1 else "")


def _replace_keys(entity: EntitySpec) -> list[str]:
    """The columns by whose values a derived entity is replaced, slice by slice."""
    stated = entity.tags.get("derived.replace_keys", "") if entity.kind == "derived" else ""
    return [key.strip() for key in stated.split(",") if key.strip()]


def check_partitions(
    data: AssetData, partitions: PartitionsDefinition[str], columns: Mapping[str, str]
) -> None:
    """Refuse partitions that would not hold what they promise: that a run writes its own, and no others.

    Raises:
        DeclarationError: Says why, and what to do.
    """
    entity = data.entity
    for problem, advice in _kind_problem(partitions), _read_problem(data, columns), _write_problem(entity):
        if problem:
            raise DeclarationError(f"{entity.id} cannot have partitions: {problem}.", advice)


def _kind_problem(partitions: PartitionsDefinition[str]) -> tuple[str, str]:
    known = TimeWindowPartitionsDefinition | StaticPartitionsDefinition | DynamicPartitionsDefinition
    if isinstance(partitions, known):
        return "", ""
    return (
        f"{type(partitions).__name__} does not say which rows belong to a partition",
        "Use partitions by time, static or dynamic ones.",
    )


def _read_problem(data: AssetData, columns: Mapping[str, str]) -> tuple[str, str]:
    inputs = {id_ for pipe in data.pipes for id_ in pipe.input_entity_ids}
    unknown = sorted(set(columns) - inputs)
    if unknown:
        return (
            f"its pipes do not read {', '.join(unknown)}",
            "Name inputs of its pipes in get_partition_columns.",
        )
    if any(pipe.streaming for pipe in data.pipes) or not data.pipes:
        return "no batch pipe writes it", "Partition what batch pipes write."
    for pipe in data.pipes:
        if not any(id_ in columns or _has_window(data.manifest, id_) for id_ in pipe.input_entity_ids):
            return (
                f"no column tells which rows {pipe.id} reads for one",
                f"Set the entity's tag {_COLUMN_TAG}, or override get_partition_columns.",
            )
    return "", ""


def _has_window(manifest: Manifest, entity_id: str) -> bool:
    """Whether the entity's provider takes a window of time itself."""
    entity = manifest.entities_by_id.get(entity_id)
    return entity is not None and entity.provider == "adx-api"


def _write_problem(entity: EntitySpec) -> tuple[str, str]:
    if entity.provider != "delta":
        return f"a run would replace all of it ({entity.provider})", "Keep it in Delta."
    if entity.kind == "derived":
        if own_column(entity) not in _replace_keys(entity):
            return (
                "it is derived, and a run would replace more than its partition",
                f"Have derived.replace_keys name the column of the tag {_COLUMN_TAG}.",
            )
        return "", ""
    if entity.scd2:
        return (
            "it keeps history (SCD2) in the order in which rows arrive, which a backfill does not keep",
            "Leave it unpartitioned, or partition what it is made of.",
        )
    if not entity.merge_columns:
        return "a run that is repeated would append its rows again", "Declare merge_columns, or derive it."
    return "", ""


def partitions_tag(
    specs: Mapping[str, AssetSpec], columns: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """The tag that tells a step the columns of its partitioned assets; none where there are none.

    Args:
        specs: By entity.
        columns: By entity, the columns that tell the partitions of what its pipes read.
    """
    said = {id_: dict(columns[id_]) for id_, spec in specs.items() if spec.partitions_def is not None}
    return {PARTITIONS_TAG: json.dumps(said)} if said else {}


@dataclass(frozen=True)
class StepPartitions:
    """What a step's run of some partitions means to Kindling.

    Args:
        context: The step's.
        manifest: What the app declares.
    """

    context: AssetExecutionContext
    manifest: Manifest

    def entity_tags(self, written: Mapping[str, AssetSpec]) -> dict[str, dict[str, str]]:
        """Kindling's per-run tags: a window for each partitioned entity that is written, by its id.

        Where a provider takes a window itself (Azure Data Explorer: ``provider.start`` and ``provider.end``),
        it gets that one.

        Raises:
            RunError: A pipe outside the partition would read the same narrowed source.
        """
        columns = json.loads(self.context.op_def.tags.get(PARTITIONS_TAG, "{}"))
        tags: dict[str, dict[str, str]] = {}
        for id_, spec in written.items():
            if id_ not in columns or spec.partitions_def is None:
                continue
            window = window_of(spec.partitions_def, self.context.partition_keys)
            tags[id_] = {WINDOW_TAG: replace(window, columns=columns[id_]).to_json()}
        for source in self._windowed_sources(tags):
            readers = [
                pipe
                for pipe in self.manifest.pipes
                if pipe.output_entity_id in written and source in pipe.input_entity_ids
            ]
            windows = {tags.get(pipe.output_entity_id, {}).get(WINDOW_TAG, "") for pipe in readers}
            bounds = {(w.start, w.end) if w else None for w in map(_window_or_none, windows)}
            if len(bounds) > 1 or None in bounds:
                raise RunError(
                    f"{source} takes one window in a run, and {', '.join(p.id for p in readers)} need different ones.",
                    "Run the partitioned assets without the others.",
                )
            [(start, end)] = [bound for bound in bounds if bound is not None]
            if not start:
                raise RunError(f"{source} takes windows of time alone.", "Partition by time, or by a column.")
            tags[source] = {"provider.start": start, "provider.end": end}
        return tags

    def _windowed_sources(self, tags: Mapping[str, Mapping[str, str]]) -> list[str]:
        read = [
            (id_, Window.from_json(tags[pipe.output_entity_id][WINDOW_TAG]))
            for pipe in self.manifest.pipes
            if pipe.output_entity_id in tags
            for id_ in pipe.input_entity_ids
        ]
        found = (id_ for id_, window in read if _has_window(self.manifest, id_) and id_ not in window.columns)
        return list(dict.fromkeys(found))


def window_of(partitions: PartitionsDefinition[str], keys: Sequence[str]) -> Window:
    """The window of some partitions, in order; those by time follow one another."""
    if isinstance(partitions, TimeWindowPartitionsDefinition):
        first, last = (partitions.time_window_for_partition_key(key) for key in (keys[0], keys[-1]))
        return Window(start=first.start.isoformat(), end=last.end.isoformat(), timezone=partitions.timezone)
    return Window(keys=tuple(keys))


def windows_over(partitions: PartitionsDefinition[str], keys: Sequence[str]) -> tuple[Window, ...]:
    """The windows of any partitions, which need not follow one another; one that holds no row for none at all."""
    if not keys or not isinstance(partitions, TimeWindowPartitionsDefinition):
        return (Window(keys=tuple(keys)),)
    spans: list[tuple[datetime, datetime]] = []
    for start, end in sorted((w.start, w.end) for w in map(partitions.time_window_for_partition_key, keys)):
        if spans and spans[-1][1] == start:
            start, _ = spans.pop()
        spans.append((start, end))
    return tuple(
        Window(start=start.isoformat(), end=end.isoformat(), timezone=partitions.timezone)
        for start, end in spans
    )


def window_metadata(window: Window, keys: Sequence[str]) -> dict[str, MetadataValue[Any]]:
    """What a materialization tells of the partitions it is of."""
    said = {name: value for name, value in asdict(window).items() if value}
    return {WINDOW_METADATA: MetadataValue.json({**said, "partitions": list(keys)})}


def _window_or_none(text: str) -> Window | None:
    return Window.from_json(text) if text else None
