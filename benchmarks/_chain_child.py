"""One Dagster run of a chain of pipes, as a run worker does it; prints when each table was there, as JSON.

``python -m benchmarks._chain_child one_step`` or ``op_per_pipe``, with the app in BENCHMARK_APP, its pipes in
BENCHMARK_PIPES and Dagster's home in DAGSTER_HOME.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from dagster import (
    AssetsDefinition,
    DagsterEventType,
    DagsterInstance,
    Definitions,
    JobDefinition,
    asset,
    define_asset_job,
    execute_job,
    multiprocess_executor,
    reconstructable,
)

APP, PIPES = "BENCHMARK_APP", "BENCHMARK_PIPES"


def one_step() -> JobDefinition:
    """Ours: the whole app is one step."""
    from kindling_dagster import KindlingProject, build_kindling_definitions

    ours = build_kindling_definitions(KindlingProject(os.environ[APP]))
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


def main(side: str) -> None:
    """Run, and tell when the run began and each table was there, in Unix seconds."""
    from benchmarks import _chain_child

    with DagsterInstance.get() as instance:
        began = time.time()
        with execute_job(reconstructable(getattr(_chain_child, side)), instance=instance) as ended:
            records = instance.get_records_for_run(
                ended.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION
            ).records
            told = {
                "ok": ended.success,
                "began": began,
                "tables": sorted(record.timestamp for record in records),
                "ended": time.time(),
            }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
