"""How a check of a table ended: plain data, ready for JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from kindling_dagster.errors import KindlingDagsterError
from kindling_dagster.manifest import EntitySpec

_TEXT: Final = 600


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
    """Why an entity's table could not be looked at, short and in one line.

    Of what storage says no more than the kind of error where the table's location is a secret: parts of it may stand
    in the text.
    """
    if isinstance(error, KindlingDagsterError):
        text = str(error)
    elif entity.location.kind == "secret":
        text = f"{type(error).__name__} (the rest is left out: the location of {entity.id} is a secret)"
    else:
        text = f"{type(error).__name__}: {error}"
    # deltalake's errors have colours and arrows over many lines.
    return " ".join(re.sub(r"\x1b\[\d+m|\u21b3", " ", text).split())[:_TEXT]
