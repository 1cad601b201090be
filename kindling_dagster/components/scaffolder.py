"""``dg scaffold defs kindling_dagster.KindlingProjectComponent NAME --project-path APP``."""

from __future__ import annotations

import re
from pathlib import Path

from dagster import Scaffolder, ScaffoldRequest, scaffold_component
from pydantic import BaseModel, Field

from kindling_dagster.apps import locate_app
from kindling_dagster.scaffolding import component_attributes


class KindlingScaffoldParams(BaseModel):
    """What ``dg scaffold`` asks for."""

    project_path: str = Field(
        description="The Kindling app: its directory, its app.py, or a package directory."
    )
    environment: str = Field(default="local", description="The Kindling environment whose settings apply.")


class KindlingProjectScaffolder(Scaffolder[KindlingScaffoldParams]):
    """Writes the ``defs.yaml`` of an app that is there."""

    @classmethod
    def get_scaffold_params(cls) -> type[KindlingScaffoldParams]:
        """What can be said on the command line."""
        return KindlingScaffoldParams

    def scaffold(self, request: ScaffoldRequest[KindlingScaffoldParams]) -> None:
        """Write it.

        Raises:
            ProjectError: There is no Kindling app at the path.
        """
        app = Path(request.params.project_path).expanduser().absolute()
        locate_app(app)
        root = request.project_root or Path.cwd()
        attributes = component_attributes(app, root, request.params.environment)
        if _has_others(request.target_path):
            # Each app of a code location has a resource of its own.
            attributes["resource_key"] = re.sub(r"\W", "_", request.target_path.name)
        scaffold_component(request, attributes)


def _has_others(target: Path) -> bool:
    """Whether there is a Kindling app among the definitions beside those to be made."""
    return any("KindlingProjectComponent" in path.read_text() for path in target.parent.rglob("defs.yaml"))
