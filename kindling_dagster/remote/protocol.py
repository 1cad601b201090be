"""What the two sides of the Pipes engine say to each other, inside Dagster Pipes' own messages. Free of Dagster.

Going out, one extra of the Pipes context: an ``Order``. Coming back, custom messages: objects with the one key
``MESSAGE``, numbered from 0, each with one of ``hello``, ``event`` and ``end``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kindling_dagster.engines.base import RunRequest
from kindling_dagster.engines.wire import request_from_json, request_to_json
from kindling_dagster.errors import RunError

EXTRA = "kindling"
"""Name of the extra in the Pipes context."""
MESSAGE = "kindling"
"""The one key of the custom messages."""


@dataclass(frozen=True)
class Order:
    """What a job is asked to do; JSON, and free of secrets.

    Args:
        version: Of kindling-dagster on Dagster's side.
        project: Arguments of ``KindlingProject``, with paths as they are on the driver.
        request: The run.
        alive: A file that Dagster's side keeps locked as long as it lives; means nothing on another machine,
            where it is not.
    """

    version: str
    project: Mapping[str, Any]
    request: RunRequest
    alive: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "version": self.version,
            "project": dict(self.project),
            "request": request_to_json(self.request),
            "alive": self.alive,
        }

    @staticmethod
    def from_json(data: Any, version: str) -> Order:
        """The order again, for a job side of this version.

        Raises:
            RunError: The data is none, or from another version.
        """
        stated = data.get("version") if isinstance(data, Mapping) else None
        if stated != version:
            raise RunError(
                f"Dagster's side runs kindling-dagster {stated or 'of unknown version'}, the Spark driver {version}.",
                "Install the same version on both sides.",
            )
        return Order(
            version=version,
            project=dict(data["project"]),
            request=request_from_json(data["request"]),
            alive=str(data.get("alive", "")),
        )
