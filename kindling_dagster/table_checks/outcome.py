"""How a check of a table ended: plain data, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kindling_dagster.delta_log import in_a_line, one_line
from kindling_dagster.errors import KindlingDagsterError
from kindling_dagster.manifest import EntitySpec


@dataclass(frozen=True)
class CheckOutcome:
    """How one check of one table ended.

    Args:
        name: Which check.
        passed: Whether the table is as declared.
        severe: Whether it is an error that it is not; else a warning.
        text: What was found, for people.
        metadata: Numbers and texts; lists of mappings are tables. JSON.
        blocking: Whether it holds back what depends on the table, where it ends as an error.
    """

    name: str
    passed: bool
    text: str
    severe: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    blocking: bool = False

    @property
    def holds_back(self) -> bool:
        """Whether what depends on the table must not run."""
        return self.blocking and self.severe and not self.passed

    def to_data(self) -> dict[str, Any]:
        """The outcome as JSON."""
        return asdict(self)

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> CheckOutcome:
        """What ``to_data`` gave."""
        return CheckOutcome(**data)


def told_in_a_line(error: Exception, entity: EntitySpec) -> str:
    """Why an entity's table could not be looked at, short and in one line."""
    if isinstance(error, KindlingDagsterError):
        return one_line(str(error))
    return in_a_line(error, secret=entity.id if entity.location.kind == "secret" else "")
