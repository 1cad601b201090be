"""Jobs of the demo's gold layer, for ``_launch``: BENCHMARK_DEMO is the folder with the demo and its definitions.py,
BENCHMARK_ASSETS the keys of the gold assets.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetSpec,
    Definitions,
    JobDefinition,
    MaterializeResult,
    define_asset_job,
    in_process_executor,
    multi_asset,
)

if TYPE_CHECKING:
    from kindling_dagster.engine_resources import EngineResource

DEMO, ASSETS = "BENCHMARK_DEMO", "BENCHMARK_ASSETS"


def warm() -> JobDefinition:
    """The demo's definitions, its gold layer on the warm process."""
    from kindling_dagster import WarmEngine

    return _gold(WarmEngine())


def in_process() -> JobDefinition:
    """The demo's definitions, its gold layer in the run's own process."""
    from kindling_dagster import InProcessEngine

    return _gold(InProcessEngine())


def nothing() -> JobDefinition:
    """As many assets that do nothing: what Dagster itself takes."""
    keys = os.environ[ASSETS].split(",")

    @multi_asset(specs=[AssetSpec(key.split("/")) for key in keys])
    def tables() -> Iterator[MaterializeResult[Any]]:
        for key in keys:
            yield MaterializeResult(asset_key=key.split("/"))

    jobs = [define_asset_job("gold", executor_def=in_process_executor)]
    return Definitions(assets=[tables], jobs=jobs).resolve_job_def("gold")


def loading() -> JobDefinition:
    """The same beside the demo's definitions, which are loaded and not used."""
    _definitions()
    return nothing()


def _definitions() -> Any:
    sys.path.insert(0, os.environ[DEMO])
    import definitions

    return definitions


def _gold(engine: EngineResource) -> JobDefinition:
    from kindling_dagster import KindlingResource

    return Definitions(
        assets=[_definitions().flights],
        jobs=[define_asset_job("gold", os.environ[ASSETS].split(","))],
        resources={"kindling": KindlingResource(engine=engine)},
        executor=in_process_executor,
    ).resolve_job_def("gold")
