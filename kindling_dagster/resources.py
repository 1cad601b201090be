"""Resources: how a step gets at Kindling and Spark."""

# No `from __future__ import annotations` here: when the class is made, Dagster looks for nested resources among its
# annotations, and passes over those that are text. They could not be configured at launch.

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from dagster import AssetExecutionContext, ConfigurableResource, InitResourceContext
from pydantic import Field, PrivateAttr

from kindling_dagster.assets import PROJECT_TAG
from kindling_dagster.config import KindlingRunConfig, option_layer
from kindling_dagster.engine_resources import EngineResource, EngineSetup, InProcessEngine
from kindling_dagster.engines.base import Engine
from kindling_dagster.errors import RunError
from kindling_dagster.options import OptionLayer
from kindling_dagster.project import KindlingProject
from kindling_dagster.spark_resources import SparkSettings, refuse_other_settings

if TYPE_CHECKING:
    from kindling_dagster.signals.bridge_table import SignalBridge
    from kindling_dagster.step_run import KindlingRun


class KindlingResource(ConfigurableResource[Any]):
    """Runs Kindling's pipes in a step.

    Spark's settings are those of the nested ``SparkSettings`` or ``LazyPySparkResource``; the session starts
    with the first step that needs it and is stopped when the run ends, unless it was there before.

    Example::

        defs = Definitions(
            assets=[flights],
            resources={
                "kindling": KindlingResource(
                    spark=SparkSettings(spark_config={"spark.driver.memory": "4g"}),
                    parallel=True,
                )
            },
        )
    """

    # Without a parameter: pydantic would make anew what is of another one.
    spark: ConfigurableResource  # type: ignore[type-arg]
    engine: EngineResource
    watermarks: bool = Field(
        default=False,
        description="Read only new data in every run, by Kindling's watermarks, which its standalone "
        "platform leaves off.",
    )
    parallel: bool | None = Field(default=None, description="Run independent pipes at the same time.")
    max_workers: int | None = Field(default=None, description="How many pipes may run at once (4).")
    barrier: bool | None = Field(
        default=None, description="Finish one generation of pipes before the next starts."
    )
    pipe_timeout: float | None = Field(
        default=None, description="Seconds after which a pipe is cancelled; 0 for no limit."
    )
    error_strategy: str | None = Field(
        default=None, description="skip_dependents (default), continue or fail_fast."
    )
    retries: int | None = Field(default=None, description="How often a failed pipe is tried again.")
    backoff: float | None = Field(
        default=None, description="Seconds before the first retry; doubles with each further one."
    )
    auto_cache: bool | None = Field(
        default=None, description="Cache entities that several pipes of a run read."
    )
    cache_level: str | None = Field(
        default=None, description="Spark's storage level for cached entities (MEMORY_AND_DISK)."
    )
    cache_max_bytes: int | None = Field(
        default=None, description="Larger entities are not cached; 0 for no limit."
    )
    storage_options: dict[str, str] = Field(
        default={},
        description="Credentials for reading the logs of tables on object storage, as deltalake takes them; "
        "without any, Spark reads those logs.",
    )

    _engines: dict[str, Engine] = PrivateAttr(default_factory=dict)

    def __init__(self, **data: Any) -> None:
        # Dagster takes nested resources as arguments only, never as a field's default.
        spark = data.pop("spark", None) or SparkSettings()
        if isinstance(spark, Mapping):
            spark = SparkSettings(**spark)
        engine = data.pop("engine", None) or InProcessEngine()
        super().__init__(**{**data, "spark": spark, "engine": engine})
        refuse_other_settings(self.spark)

    def run(
        self,
        context: AssetExecutionContext,
        *,
        project: KindlingProject | None = None,
        config: KindlingRunConfig | None = None,
        bridge: "SignalBridge | None" = None,
    ) -> "KindlingRun":
        """Get ready to run the pipes behind the step's selected assets.

        Args:
            context: The step's context, of a function under ``@kindling_assets``.
            project: The app; the one of the decorator when left out.
            config: The run's options, when the function takes a config of its own.
            bridge: What becomes of Kindling's signals in Dagster, where the defaults do not fit.

        Raises:
            RunError: The step is not one of ``@kindling_assets``.
        """
        # Here, because what a step needs is not needed to load definitions.
        from kindling_dagster.step_run import KindlingRun

        return KindlingRun(self, context, project or _project_of(context), config, bridge)

    def engine_for(self, project: KindlingProject, context: AssetExecutionContext) -> Engine:
        """The engine that serves a project in this process; made on first use, closed with the resource."""
        conf = self.spark_conf()
        setup = EngineSetup(project, conf, partial(self.create_session, conf), self.storage_options, context)
        key = self.engine.key(setup)
        if key not in self._engines:
            self._engines[key] = self.engine.open(setup)
        return self._engines[key]

    def create_session(self, conf: Mapping[str, str] | None = None) -> Any:
        """The Spark session with the resource's settings, made if there is none. Not for the main thread.

        Args:
            conf: The settings, whole, where the caller has them already.

        Raises:
            SparkSetupError: Spark does not start.
        """
        # Here, because it imports PySpark, which definitions do without.
        from dagster_pyspark import LazyPySparkResource

        from kindling_dagster.spark import start_session

        settings = dict(self.spark_conf() if conf is None else conf)
        return start_session(lambda: LazyPySparkResource(spark_config=settings).spark_session, settings)

    def spark_conf(self) -> dict[str, str]:
        """The settings of the Spark session, whole: the resource's over ours."""
        # SparkSettings or a LazyPySparkResource, which have only this in common.
        stated: Mapping[str, Any] = getattr(self.spark, "spark_config")  # noqa: B009
        from kindling_dagster.spark import session_conf

        return session_conf(stated)

    def teardown_after_execution(self, context: InitResourceContext) -> None:  # noqa: ARG002
        """Let go of Spark when the run ends."""
        self.close()

    def close(self) -> None:
        """Let go of Spark: needed only where the resource is used without Dagster. Can be called twice."""
        while self._engines:
            self._engines.popitem()[1].close()

    def options(self) -> OptionLayer:
        """What the resource's own fields say of execution options."""
        return option_layer(self.model_dump(exclude={"spark", "engine", "watermarks", "storage_options"}))


def _project_of(context: AssetExecutionContext) -> KindlingProject:
    stated = context.op_def.tags.get(PROJECT_TAG)
    if stated is None:
        raise RunError(
            f"The step {context.op_def.name} was not made by @kindling_assets, so it names no Kindling app.",
            "Decorate it with @kindling_assets, or pass project= to run().",
        )
    return KindlingProject.from_json(stated)
