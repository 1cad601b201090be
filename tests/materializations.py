"""What two runs of the same pipes must tell alike of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Values that no clock, place or packing decides; of the others it counts that they are there.
SAME = (
    "dagster/row_count",
    "dagster/column_schema",
    "dagster/column_lineage",
    "kindling/pipes",
    "kindling/operations",
    "kindling/delta_version",
    "kindling/generation",
    "kindling/attempts",
    "kindling/package",
    "kindling/package_version",
)


def comparable(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Plain metadata of a materialization: which there is, and the values that must be equal."""
    return {name: value if name in SAME or "/rows_" in name else ... for name, value in metadata.items()}
