"""Engines as one chooses them in Dagster: ``KindlingResource(engine=WarmEngine())``."""

# No `from __future__ import annotations` here: when the class is made, Dagster looks for ResourceDependency among its
# annotations, and passes over those that are text.

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dagster import AssetExecutionContext, ConfigurableResource, PipesClient, ResourceDependency
from pydantic import Field

from kindling_dagster.engines.base import Engine
from kindling_dagster.project import KindlingProject


@dataclass(frozen=True)
class EngineSetup:
    """What an engine is made of.

    Args:
        project: The app.
        conf: Spark's settings, whole.
        create_session: Makes the session with them, in this process.
        storage_options: For reading tables' logs on object storage, as deltalake takes them.
        context: Of the step that asks first.
    """

    project: KindlingProject
    conf: Mapping[str, str]
    create_session: Callable[[], Any]
    storage_options: Mapping[str, str]
    context: AssetExecutionContext


class EngineResource(ConfigurableResource[Any]):
    """Where a run's pipes and their Spark live. Choose one of its kinds."""

    def open(self, setup: EngineSetup) -> Engine:
        """The engine of one project in this process."""
        raise NotImplementedError

    def key(self, setup: EngineSetup) -> str:
        """Equal for steps of a process that can share an engine: those of one project."""
        return setup.project.to_json()


class InProcessEngine(EngineResource):
    """The default: the run's own process starts Spark, and stops it when the run ends."""

    def open(self, setup: EngineSetup) -> Engine:
        """See ``EngineResource.open``."""
        # Here, because it imports Kindling and PySpark, which definitions and sensors do without.
        from kindling_dagster.engines.in_process import InProcessEngine as Local

        return Local(setup.project, setup.create_session, setup.storage_options)


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

    def open(self, setup: EngineSetup) -> Engine:
        """See ``EngineResource.open``."""
        from kindling_dagster.engines.warm.client import WarmClient
        from kindling_dagster.engines.warm.spec import WarmSpec

        def spec() -> WarmSpec:
            return WarmSpec.of(
                setup.project,
                setup.conf,
                setup.storage_options,
                idle_seconds=self.idle_minutes * 60,
                memory_bytes=self.memory_limit_bytes,
            )

        def own_engine() -> Engine:
            return InProcessEngine().open(setup)

        return WarmClient(spec, own_engine if self.when_busy == "own_process" else None)


class PipesEngine(EngineResource):
    """A Spark driver elsewhere, reached through Dagster Pipes: a cluster's, Databricks', a pod's.

    The driver runs ``kindling_dagster.remote`` and needs the app, Kindling and this package, no Dagster but
    dagster-pipes. See docs/engines.md for each platform.

    Args:
        client: Any Pipes client whose message reader is a ``KindlingMessages``; ours for spark-submit is
            ``KindlingSubmitClient``.

    Example::

        KindlingResource(engine=PipesEngine(client=KindlingSubmitClient(master="spark://master:7077")))
    """

    client: ResourceDependency[PipesClient]
    app: str | None = Field(
        default=None, description="The app's path on the driver; the project's own when left out."
    )
    manifest: str | None = Field(
        default=None, description="Its manifest's path on the driver; recorded there when left out."
    )
    run_arguments: dict[str, Any] = Field(
        default={},
        description="Further arguments of the client's run, such as a pod's or a task's description.",
    )

    def open(self, setup: EngineSetup) -> Engine:
        """See ``EngineResource.open``."""
        from kindling_dagster.pipes_engine import PipesRunner

        stated = {"app": self.app, "manifest": self.manifest}
        return PipesRunner(
            self.client,
            setup,
            {name: value for name, value in stated.items() if value is not None},
            self.run_arguments,
        )

    def key(self, setup: EngineSetup) -> str:
        """Each step has its own: the client speaks to Dagster in the step's name."""
        return f"{setup.context.run_id} {setup.context.op_handle} {setup.project.to_json()}"
