"""From a manifest's entity to a dimension: where it is, and which method fits it unless one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kindling_dagster.errors import DeclarationError, SelectionError
from kindling_dagster.locations import absolute_location
from kindling_dagster.manifest import EntitySpec, Manifest
from kindling_dagster.secrets import secret_from_environment
from kindling_dagster.streaming.dimensions.model import (
    FILE_FORMATS,
    METHODS,
    CurrentRows,
    Dimension,
    Method,
)

METHOD_TAG = "dagster/change_detection"
"""Tag of an entity: the method that says when it has changed."""
COLUMNS_TAG = "dagster/change_columns"
"""Tag of an entity: the columns for that method, separated by commas."""

_FILE_OPTIONS = ("delimiter", "quote", "encoding", "header")


def default_method(entity: EntitySpec) -> Method:
    """``scd2`` for SCD2 entities, ``version`` for other Delta tables, ``files`` for plain files, else ``hash``.

    Plain files go by their listing, not their rows: a query over them fails once they are replaced, be it
    by the same rows.
    """
    if entity.scd2 and entity.provider == "delta":
        return "scd2"
    if entity.provider == "delta":
        return "version"
    return "files" if entity.provider in FILE_FORMATS else "hash"


def dimension_of(
    entity: EntitySpec,
    method: str | None = None,
    *,
    columns: tuple[str, ...] = (),
    custom: Callable[[], Any] | None = None,
    working_directory: str | Path = "",
    storage_options: Mapping[str, str] | None = None,
    resolve_secret: Callable[[str], str] = secret_from_environment,
) -> Dimension:
    """An entity as a dimension.

    Args:
        entity: The entity.
        method: What counts as a change; its tag ``dagster/change_detection``, else what fits it, when None.
        columns: For that method; its tag ``dagster/change_columns`` when empty.
        custom: The callable of the method ``custom``.
        working_directory: Where relative locations count from.
        storage_options: As delta-rs takes them.
        resolve_secret: Gives a secret's value; asked at each look, where the location is a secret.

    Raises:
        SelectionError: There is no such method.
    """
    asked = (method or entity.tags.get(METHOD_TAG, "")).strip().lower() or default_method(entity)
    if asked not in METHODS:
        raise SelectionError(
            f"There is no change detection {asked!r}, asked for entity {entity.id!r}.",
            f"Use one of {', '.join(METHODS)}.",
        )
    tags = entity.tags
    tagged = tuple(part.strip() for part in tags.get(COLUMNS_TAG, "").split(",") if part.strip())
    location: str | Callable[[], str] = ""
    label = ""
    if entity.location.kind == "secret":
        location = partial(_secret_location, resolve_secret, entity.location.value, working_directory)
        label = f"@secret:{entity.location.value}"
    elif entity.location.kind == "path":
        location = absolute_location(entity.location.value, working_directory)
    names = CurrentRows()
    return Dimension(
        entity_id=entity.id,
        provider=entity.provider,
        location=location,
        method=asked,
        columns=columns or tagged,
        keys=entity.merge_columns if asked == "scd2" else (),
        current_rows=CurrentRows(
            current=tags.get("scd.current_col", names.current),
            effective_from=tags.get("scd.effective_from_col", names.effective_from),
            effective_to=tags.get("scd.effective_to_col", names.effective_to),
        ),
        storage_options=dict(storage_options or {}),
        custom=custom,
        options={name: tags[f"provider.{name}"] for name in _FILE_OPTIONS if f"provider.{name}" in tags},
        label=label,
    )


def dimensions_of(manifest: Manifest, entity_ids: tuple[str, ...], **options: Any) -> dict[str, Dimension]:
    """Several entities of a manifest as dimensions, by id; ``options`` as for ``dimension_of``.

    Raises:
        DeclarationError: The app declares no such entity.
        SelectionError: A tag names a method that there is not.
    """
    unknown = [entity_id for entity_id in entity_ids if entity_id not in manifest.entities_by_id]
    if unknown:
        raise DeclarationError(
            f"No such entity: {', '.join(unknown)}.", "Declare it, or name one that the app declares."
        )
    return {id_: dimension_of(manifest.entities_by_id[id_], **options) for id_ in entity_ids}


def _secret_location(resolve: Callable[[str], str], key: str, working_directory: str | Path) -> str:
    return absolute_location(resolve(key), working_directory)
