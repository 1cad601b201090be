"""The names of lineage columns."""

from __future__ import annotations

from typing import Final

from kindling_dagster.errors import LineageError

DEFAULT_LAYERS: Final = ("bronze", "silver", "gold")


def lineage_column(layer: str) -> str:
    """The name of a layer's lineage column, such as ``_silver_lineage``.

    Raises:
        LineageError: There is no layer's name.
    """
    if not layer.strip():
        raise LineageError("A layer without a name has no lineage column.", "Name the layer, such as silver.")
    return f"_{layer.strip()}_lineage"
