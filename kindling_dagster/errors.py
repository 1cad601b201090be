"""The exceptions of kindling_dagster: one tree, each message saying what, where and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kindling_dagster.manifest import Problem


class KindlingDagsterError(Exception):
    """Root of every error this package raises on purpose.

    Args:
        message: What happened, and to which pipe or entity.
        suggestion: What to do about it, one sentence; empty when there is nothing to add.
    """

    def __init__(self, message: str, suggestion: str = "") -> None:
        self.message = message
        self.suggestion = suggestion
        separator = "" if message.endswith("\n") else " "
        super().__init__(f"{message}{separator}{suggestion}".strip())


class ProjectError(KindlingDagsterError):
    """An app cannot be located, loaded or recorded."""


class ProjectMixError(ProjectError):
    """A second Kindling app was asked to run in a process that already runs another."""


class ManifestError(KindlingDagsterError):
    """A manifest cannot be read: damaged, or written by a newer version."""


class DeclarationError(KindlingDagsterError):
    """What the app declares is contradictory: a duplicate id, an undeclared entity, a bad signature."""


class CycleError(DeclarationError):
    """Pipes depend on each other in a circle.

    Args:
        message: Every cycle as ``a → b → a`` with the entities in between.
        cycles: The same as data: one tuple of pipe ids per cycle, first id not repeated.
        suggestion: How to break it.
    """

    def __init__(self, message: str, cycles: Sequence[Sequence[str]] = (), suggestion: str = "") -> None:
        super().__init__(message, suggestion)
        self.cycles = tuple(tuple(cycle) for cycle in cycles)


class SelectionError(KindlingDagsterError):
    """A selection names nothing, or something that does not exist."""


class PlanError(KindlingDagsterError):
    """A plan cannot be made or is not valid for what exists.

    Args:
        message: What is wrong, one line per reason where there are several.
        suggestion: What to do about it.
        problems: The reasons as data, each about one pipe or entity; may be empty.
    """

    def __init__(self, message: str, suggestion: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message, suggestion)
        self.problems = tuple(problems)


class SparkSetupError(KindlingDagsterError):
    """Spark cannot start: no fitting Java, Delta's jars out of reach, or a setting Spark refuses."""


class RunError(KindlingDagsterError):
    """A run cannot go on as asked."""


class PipeCancelledError(RunError):
    """A pipe was cancelled: raised in its own thread, at the latest when it is about to write."""


class LineageError(KindlingDagsterError):
    """Version lineage cannot be written or asked for as wanted."""
