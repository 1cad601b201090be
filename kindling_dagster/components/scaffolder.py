"""``dg scaffold defs kindling_dagster.KindlingProjectComponent NAME --project-path APP``."""

from __future__ import annotations

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
        scaffold_component(request, component_attributes(app, root, request.params.environment))
