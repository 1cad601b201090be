"""Who takes part in version lineage: by project, layer, entity or pipe. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kindling_dagster.errors import LineageError
from kindling_dagster.flags import read_flag
from kindling_dagster.lineage.columns import DEFAULT_LAYERS, lineage_column
from kindling_dagster.manifest import EntitySpec, Manifest, PipeSpec

TAG: Final = "dagster/lineage"
"""On a pipe or entity: ``true`` or ``false``."""
CARRY_TAG: Final = "dagster/lineage_carry"
"""On a pipe: whether its function sees the lineage columns of what it reads."""
_SETTINGS: Final = "kindling.lineage."


@dataclass(frozen=True)
class LineageSettings:
    """What a project says of lineage, in ``kindling.lineage.*``.

    Args:
        enabled: For all layers; a layer, entity or pipe can say otherwise.
        layers: The layers' names, first segments of ids.
        by_layer: What a layer says (``kindling.lineage.layer.<name>``), by its name in lower case.
        version: The version of every transform, over what its package says.
        user_metadata: Whether Delta commits carry package, version, pipe and run.
    """

    enabled: bool = False
    layers: tuple[str, ...] = DEFAULT_LAYERS
    by_layer: Mapping[str, bool] = field(default_factory=dict)
    version: str = ""
    user_metadata: bool = True

    @staticmethod
    def from_settings(settings: Mapping[str, Any]) -> LineageSettings:
        """Read the settings of a manifest (dotted keys).

        Raises:
            LineageError: A value is not what it should be; names the setting.
        """
        prefix = f"{_SETTINGS}layer."
        names = settings.get(f"{_SETTINGS}layers", DEFAULT_LAYERS)
        if isinstance(names, str):
            names = names.split(",")
        if not isinstance(names, Iterable) or not all(
            isinstance(name, str) and name.strip() for name in names
        ):
            raise LineageError(
                f"kindling.lineage.layers is {names!r}.", "Give names, such as [bronze, silver, gold]."
            )
        return LineageSettings(
            enabled=_flag(settings.get(f"{_SETTINGS}enabled"), f"{_SETTINGS}enabled") is True,
            layers=tuple(name.strip() for name in names),
            by_layer={
                key.removeprefix(prefix).lower(): _flag(value, key) is True
                for key, value in settings.items()
                if key.startswith(prefix)
            },
            version=str(settings.get(f"{_SETTINGS}version") or ""),
            user_metadata=_flag(settings.get(f"{_SETTINGS}user_metadata"), f"{_SETTINGS}user_metadata")
            is not False,
        )


@dataclass(frozen=True)
class PipeLineage:
    """How one pipe takes part.

    Args:
        pipe_id: The pipe.
        entity_id: What it writes.
        layer: The layer whose column it stamps.
        carries: Whether its function sees the lineage columns of what it reads.
    """

    pipe_id: str
    entity_id: str
    layer: str
    carries: bool

    @property
    def column(self) -> str:
        """The name of the column it stamps."""
        return lineage_column(self.layer)


def lineage_pipes(manifest: Manifest, settings: LineageSettings | None = None) -> dict[str, PipeLineage]:
    """The pipes that stamp lineage, by id.

    The most specific that says something decides: the pipe's tag, the entity's tag, the layer's setting,
    the project's. Only what becomes a Delta table can hold the columns; a view holds nothing. The layer
    is the first segment of the pipe's id where that names one, else that of the entity.

    Raises:
        LineageError: A pipe or entity is tagged to take part and cannot: it belongs to no layer, or is
            no Delta table; or a value cannot be read.
    """
    said = settings or LineageSettings.from_settings(manifest.settings)
    found: dict[str, PipeLineage] = {}
    for pipe in manifest.pipes:
        entity = manifest.entities_by_id.get(pipe.output_entity_id)
        if entity is None:
            continue
        layer = layer_of(pipe, entity, said.layers)
        stated = _stated(pipe, entity)
        # Settings have names in lower case, whatever the layer's own is.
        wanted = stated if stated is not None else said.by_layer.get(layer.lower(), said.enabled)
        if not wanted:
            continue
        problem = _obstacle(entity, layer, said)
        if problem and stated:
            raise LineageError(
                f"The pipe {pipe.id} is tagged to stamp lineage on {entity.id}, but {problem}.",
                f"Take the tag {TAG} away, or set a layer by the id's first segment or the tag layer.",
            )
        if not problem:
            found[pipe.id] = PipeLineage(pipe.id, entity.id, layer, _carries(pipe))
    return found


def layer_of(pipe: PipeSpec, entity: EntitySpec, layers: Iterable[str]) -> str:
    """The pipe's layer: its id's first segment where that is one, else its entity's layer; else empty."""
    known = set(layers)
    first = pipe.id.partition(".")[0]
    if first in known:
        return first
    return entity.layer if entity.layer in known else ""


def _stated(pipe: PipeSpec, entity: EntitySpec) -> bool | None:
    for tags, owner in ((pipe.tags, pipe.id), (entity.tags, entity.id)):
        if TAG in tags:
            return _flag(tags[TAG], f"the tag {TAG} of {owner}") is True
    return None


def _obstacle(entity: EntitySpec, layer: str, said: LineageSettings) -> str:
    if entity.provider != "delta" or entity.kind in ("sql", "companion"):
        return "that is no Delta table"
    if not layer:
        return f"it belongs to none of the layers {', '.join(said.layers)}"
    return ""


def _carries(pipe: PipeSpec) -> bool:
    if CARRY_TAG in pipe.tags:
        return _flag(pipe.tags[CARRY_TAG], f"the tag {CARRY_TAG} of {pipe.id}") is True
    # With several inputs the same column would come from each side: a join would be ambiguous and a
    # union would not fit.
    return len(pipe.input_entity_ids) == 1


def _flag(value: object, where: str) -> bool | None:
    return read_flag(value, where, LineageError)
