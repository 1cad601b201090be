"""What ``kindling migrate plan`` says of one entity. Needs a started app."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kindling_dagster.runtime import KindlingRuntime


class _OneEntity:
    """A registry with one entity in it: Kindling's planner opens the tables of all there are."""

    def __init__(self, entity: Any) -> None:
        self._entity = entity

    def get_entity_ids(self) -> list[str]:
        """The one."""
        return [self._entity.entityid]

    def get_entity_definition(self, entity_id: str) -> Any:  # noqa: ARG002
        """The one's definition."""
        return self._entity


def migration_lines(
    runtime: KindlingRuntime, entity_id: str, location: str | None = None, made: Collection[str] = ()
) -> list[str]:
    """The changes that Kindling's planner finds necessary, as its command prints them.

    Args:
        runtime: The app, started.
        entity_id: The entity.
        location: Where its table lies, absolute; None where Spark's catalog knows.
        made: Columns that writes add to the declared ones: the planner takes them for leftovers to remove.

    Raises:
        Exception: Whatever reading the table raises.
    """
    from kindling.entity_provider_delta import DeltaEntityProvider
    from kindling.injection import get_kindling_service
    from kindling.migration import ChangeKind, MigrationPlanner
    from kindling.spark_log_provider import PythonLoggerProvider

    entity = runtime.entities.get_entity_definition(entity_id)
    if location is not None:
        # The planner asks Delta for the partitions by SQL, where a relative path names no table; it takes
        # the error for "no partitions to compare" and leaves the change out.
        entity = replace(entity, tags={**(entity.tags or {}), "provider.path": location})
    planner = MigrationPlanner(
        _OneEntity(entity),
        get_kindling_service(DeltaEntityProvider),
        get_kindling_service(PythonLoggerProvider),
    )
    (status,) = planner.plan().statuses
    if status.error:
        return [f"error: {status.error}"]
    lines = []
    for change in status.changes:
        detail = str(change.detail)
        if change.kind is ChangeKind.REMOVE_COLUMNS:
            columns = [name for name in change.columns_to_remove if name not in made]
            if not columns:
                continue
            detail = f"remove columns: {', '.join(columns)}"
        lines.append(f"[{change.destructiveness.value}] {change.kind.value}: {detail}")
    return lines
