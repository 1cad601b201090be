"""A small app as a Dagster job on any engine, for tests and for the processes they start and kill.

``python -m engines.engine_jobs APP ENGINE MASTER`` is a run's worker: one run of all the assets that the kill tests
follow, in the instance of DAGSTER_HOME. It ends with 0 when the run succeeded.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from cluster.standalone import CLUSTER_CONF
from dagster import (
    AssetKey,
    DagsterInstance,
    Definitions,
    JobDefinition,
    build_reconstructable_job,
    define_asset_job,
    execute_job,
    in_process_executor,
)

from kindling_dagster import (
    InProcessEngine,
    KindlingProject,
    KindlingResource,
    KindlingSubmitClient,
    PipesEngine,
    WarmEngine,
    kindling_assets,
)

CONF = {"spark.master": "local[2]"}
FOLLOWED = ("bronze/orders", "silver/orders", "silver/delta")


def new_app(folder: Path, landed: str) -> Path:
    """The app with its landed file, lineage on, and no tables."""
    shutil.copytree(Path(__file__).parents[1] / "running" / "app", folder)
    settings = folder / "settings.yaml"
    settings.write_text(
        settings.read_text().replace("kindling:\n", "kindling:\n  lineage:\n    enabled: true\n", 1)
    )
    (folder / "data").mkdir()
    (folder / "data" / "orders.csv").write_text(landed)
    (folder / "data" / "calls.txt").touch()
    return folder


def shop(app: str, engine: str, master: str) -> JobDefinition:
    """The job that each run makes anew from its name and arguments."""
    engines: dict[str, Any] = {
        "in_process": InProcessEngine,
        "warm": WarmEngine,
        "pipes": lambda: PipesEngine(client=KindlingSubmitClient(master, CLUSTER_CONF)),
    }

    @kindling_assets(project=KindlingProject(app))
    def step(context, kindling: KindlingResource):  # type: ignore[no-untyped-def]
        yield from kindling.run(context).stream()

    return Definitions(
        assets=[step],
        jobs=[define_asset_job("all")],
        resources={"kindling": KindlingResource(spark={"spark_config": CONF}, engine=engines[engine]())},
        executor=in_process_executor,
    ).resolve_job_def("all")


def main(app: str, engine: str, master: str) -> int:
    """One run, as a run's worker does it."""
    job = build_reconstructable_job("engines.engine_jobs", "shop", (app, engine, master))
    with (
        DagsterInstance.get() as instance,
        execute_job(
            job,
            instance,
            raise_on_error=False,
            run_config={"ops": {"step": {"config": {"mode": "incremental"}}}},
            asset_selection=[AssetKey(key.split("/")) for key in FOLLOWED],
        ) as result,
    ):
        return 0 if result.success else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
