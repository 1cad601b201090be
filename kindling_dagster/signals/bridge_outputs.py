"""What a bridge rule may give beside Dagster's own events, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

from dagster import AssetCheckEvaluation, AssetKey, AssetMaterialization, AssetObservation

from kindling_dagster.manifest import Manifest

if TYPE_CHECKING:
    from kindling_dagster.signals.payloads import Payload

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True)
class StepLog:
    """A line in the step's log. ``data`` reaches user-defined Dagster loggers as the record's ``kindling``."""

    message: str
    level: Level = "info"
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PipeNote:
    """Joins the line that the step's log has for the pipe's end; a line of its own if that was written already."""

    pipe_id: str
    note: str = ""


@dataclass(frozen=True)
class AssetFacts:
    """Metadata of an asset, for its next event.

    That is its materialization when it still comes in this step, else an observation when the step ends.

    Args:
        key: The asset.
        metadata: Later facts win; mappings are merged key by key.
        totals: Numbers that add up.
        needs_commit: Only for a materialization: without one the facts are not true.
        quiet: Not worth an observation of an asset that was materialized in this step.
    """

    key: AssetKey
    metadata: Mapping[str, Any] = field(default_factory=dict)
    totals: Mapping[str, float] = field(default_factory=dict)
    needs_commit: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Commit:
    """A table was written: part of the asset's MaterializeResult in the step that has the asset.

    Anywhere else it is an AssetMaterialization of its own.
    """

    key: AssetKey
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepFact:
    """A part of the record with which the step ends."""

    name: str
    value: Any


@dataclass(frozen=True)
class StepError:
    """The payload tells of an error: gathered, and shown in the step's failure."""


Output = (
    AssetObservation
    | AssetCheckEvaluation
    | AssetMaterialization
    | StepLog
    | PipeNote
    | AssetFacts
    | Commit
    | StepFact
    | StepError
)


@dataclass(frozen=True)
class BridgeContext:
    """What a rule may ask: which asset an entity, a pipe or a stream is.

    Args:
        manifest: What the app declares.
        keys: Keys by entity id, where they are not the id split on dots.
    """

    manifest: Manifest
    keys: Mapping[str, AssetKey] = field(default_factory=dict)
    spark_queries: dict[str, str] = field(default_factory=dict)
    """Our query ids by Spark's, as the starts of queries tell them."""

    def asset_of(self, entity_id: str | None) -> AssetKey | None:
        """The asset of an entity; of its base for a companion; None for one the app does not declare."""
        entity = self.manifest.entities_by_id.get(entity_id or "")
        if entity is None:
            return None
        id_ = entity.companion_of or entity.id
        return self.keys.get(id_) or AssetKey(id_.split("."))

    def output_of(self, pipe_id: str | None) -> AssetKey | None:
        """The asset a pipe writes; None for a pipe the app does not declare."""
        pipe = self.manifest.pipes_by_id.get(pipe_id or "")
        return None if pipe is None else self.asset_of(pipe.output_entity_id)

    def stream_asset(self, *names: str | None) -> AssetKey | None:
        """The asset a stream writes: the first of its ids and names that is a pipe's, or an entity's."""
        known = [self.spark_queries.get(name, name) for name in names if name]
        for name in known:
            key = self.output_of(name) or self.asset_of(name)
            if key is not None:
                return key
        return next((self._by_stream_name[name] for name in known if name in self._by_stream_name), None)

    @cached_property
    def _by_stream_name(self) -> Mapping[str, AssetKey]:
        """Kindling names a query after its entity, with underscores, unless the app says otherwise."""
        named = {}
        for pipe in self.manifest.pipes:
            key = self.asset_of(pipe.output_entity_id)
            if key is not None:
                named[pipe.output_entity_id.replace(".", "_")] = key
                named[pipe.id.replace(".", "_")] = key
        return named


Rule = Callable[["Payload", BridgeContext], Iterable[Output]]
"""Translates one signal; pure. None in its place drops the signal, counted."""

SIGNALS_METADATA: Final = "kindling/signals"
OMITTED_METADATA: Final = "kindling/signals_omitted"
COUNT_METADATA: Final = "kindling/count"
ROWS_METADATA: Final = "kindling/rows"
"""Metadata that add up when events of the same kind come faster than they are passed on."""
