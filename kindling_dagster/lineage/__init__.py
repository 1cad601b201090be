"""Version lineage: which version of which transform produced every row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kindling_dagster.lineage.backfill import BackfillResult, BackfillStep, backfill_lineage
    from kindling_dagster.lineage.context import (
        LineageMetadata,
        VersionedExecutionContext,
        combined_lineage,
    )
    from kindling_dagster.lineage.sql import (
        find_records_by_version,
        stale_version_report,
        version_adoption_report,
    )

__all__ = [
    "BackfillResult",
    "BackfillStep",
    "LineageMetadata",
    "VersionedExecutionContext",
    "backfill_lineage",
    "combined_lineage",
    "find_records_by_version",
    "stale_version_report",
    "version_adoption_report",
]

_HOMES = {
    "BackfillResult": "backfill",
    "BackfillStep": "backfill",
    "backfill_lineage": "backfill",
    "LineageMetadata": "context",
    "VersionedExecutionContext": "context",
    "combined_lineage": "context",
    "find_records_by_version": "sql",
    "stale_version_report": "sql",
    "version_adoption_report": "sql",
}


def __getattr__(name: str) -> Any:
    # On demand: they are for runs and for those who ask, and definitions do without.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
