"""Jobs of a chain of pipes, for ``_launch``: the app is in BENCHMARK_APP, its pipes in BENCHMARK_PIPES."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dagster import (
    AssetsDefinition,
    Definitions,
    JobDefinition,
    asset,
    define_asset_job,
    multiprocess_executor,
)

if TYPE_CHECKING:
    from kindling_dagster.engine_resources import EngineResource

APP, PIPES = "BENCHMARK_APP", "BENCHMARK_PIPES"


def one_step() -> JobDefinition:
    """Ours: the whole app is one step, which starts Spark."""
    from kindling_dagster import InProcessEngine

    return _ours(InProcessEngine())


def warm() -> JobDefinition:
    """Ours on the warm process, which the first run starts."""
    from kindling_dagster import WarmEngine

    return _ours(WarmEngine())


def _ours(engine: EngineResource) -> JobDefinition:
    from kindling_dagster import KindlingProject, KindlingResource, build_kindling_definitions

    project = KindlingProject(os.environ[APP])
    ours = build_kindling_definitions(project, resource=KindlingResource(engine=engine))
    # Dagster's own job of all assets cannot be made anew in another process.
    return Definitions.merge(ours, Definitions(jobs=[define_asset_job("ours")])).resolve_job_def("ours")


def op_per_pipe() -> JobDefinition:
    """By hand: one op per pipe, each in a process of its own, with the same Spark settings as ours."""
    from dagster_pyspark import LazyPySparkResource

    from kindling_dagster.spark import session_conf

    pipes = os.environ[PIPES].split(",")
    assets = [_op(pipe, before) for pipe, before in zip(pipes, [None, *pipes], strict=False)]
    definitions = Definitions(
        assets=assets,
        jobs=[define_asset_job("by_hand", executor_def=multiprocess_executor)],
        resources={"spark": LazyPySparkResource(spark_config=session_conf())},
    )
    return definitions.resolve_job_def("by_hand")


def _op(pipe: str, before: str | None) -> AssetsDefinition:
    @asset(key=pipe.split("."), deps=[before.split(".")] if before else [], required_resource_keys={"spark"})
    def run(context) -> None:  # type: ignore[no-untyped-def]  # Dagster takes no postponed annotation here
        app = Path(os.environ[APP])
        os.chdir(app)
        sys.path.insert(0, str(app))
        # Before Kindling starts: it takes the session that is there.
        context.resources.spark.spark_session  # noqa: B018
        from kindling.bootstrap import initialize_framework
        from kindling.data_pipes import DataPipesExecution
        from kindling.injection import get_kindling_service

        initialize_framework(
            {
                "platform": "standalone",
                "environment": "local",
                "app_dir": str(app),
                "install_bootstrap_dependencies": False,
                "registration_packages": ["sales"],
            }
        )
        get_kindling_service(DataPipesExecution).run_datapipes([pipe])

    return run
