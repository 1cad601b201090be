"""Engines as one chooses them in Dagster: ``KindlingResource(engine=WarmEngine())``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from dagster import ConfigurableResource
from pydantic import Field

from kindling_dagster.engines.base import Engine
from kindling_dagster.project import KindlingProject


class EngineResource(ConfigurableResource[Any]):
    """Where a run's pipes and their Spark live. Choose one of its kinds."""

    def open(
        self,
        project: KindlingProject,
        conf: dict[str, str],
        create_session: Callable[[], Any],
        storage_options: dict[str, str],
    ) -> Engine:
        """The engine of one project in this process.

        Args:
            project: The app.
            conf: Spark's settings, whole.
            create_session: Makes the session with them, in this process.
            storage_options: For reading tables' logs on object storage, as deltalake takes them.
        """
        raise NotImplementedError


class InProcessEngine(EngineResource):
    """The default: the run's own process starts Spark, and stops it when the run ends."""

    def open(
        self,
        project: KindlingProject,
        conf: dict[str, str],  # noqa: ARG002
        create_session: Callable[[], Any],
        storage_options: dict[str, str],
    ) -> Engine:
        """See ``EngineResource.open``."""
        # Here, because it imports Kindling and PySpark, which definitions and sensors do without.
        from kindling_dagster.engines.in_process import InProcessEngine as Local

        return Local(project, create_session, storage_options)


class WarmEngine(EngineResource):
    """A process of this machine and user that keeps Spark and the app up from run to run.

    The first run that needs it starts it. It serves one version of the app's code with one set of Spark
    settings; a change of either gets a new process, and the old one ends.

    Example::

        KindlingResource(engine=WarmEngine(idle_minutes=30))
    """

    idle_minutes: float = Field(
        default=15.0, gt=0, description="The process ends when no run came for so many minutes."
    )
    memory_limit_bytes: int | None = Field(
        default=None,
        gt=0,
        description="The process, its JVM included, ends after a run that leaves it larger; half of the "
        "machine's memory when left out.",
    )
    when_busy: Literal["queue", "own_process"] = Field(
        default="queue",
        description="What a run does that finds another one there: wait for its turn, or start Spark in its own "
        "process as if there were no warm one.",
    )

    def open(
        self,
        project: KindlingProject,
        conf: dict[str, str],
        create_session: Callable[[], Any],
        storage_options: dict[str, str],
    ) -> Engine:
        """See ``EngineResource.open``."""
        from kindling_dagster.engines.warm.client import WarmClient
        from kindling_dagster.engines.warm.spec import WarmSpec

        def spec() -> WarmSpec:
            return WarmSpec.of(
                project,
                conf,
                storage_options,
                idle_seconds=self.idle_minutes * 60,
                memory_bytes=self.memory_limit_bytes,
            )

        def own_engine() -> Engine:
            return InProcessEngine().open(project, conf, create_session, storage_options)

        return WarmClient(spec, own_engine if self.when_busy == "own_process" else None)
