"""Run Kindling lakehouse pipelines as Dagster assets."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kindling_dagster.assets import build_kindling_asset_specs, kindling_assets
    from kindling_dagster.automation import build_kindling_schedule
    from kindling_dagster.checks import build_stream_checks
    from kindling_dagster.components.component import KindlingProjectComponent
    from kindling_dagster.config import KindlingRunConfig
    from kindling_dagster.definitions import OpSettings, build_kindling_definitions
    from kindling_dagster.dimension_sensor import build_dimension_sensor
    from kindling_dagster.engine_resources import InProcessEngine, PipesEngine, WarmEngine
    from kindling_dagster.errors import KindlingDagsterError
    from kindling_dagster.ingestion.defs import build_kindling_ingestion
    from kindling_dagster.io_manager import KindlingIOManager
    from kindling_dagster.jobs import build_stream_jobs
    from kindling_dagster.manifest import Manifest
    from kindling_dagster.pipes_engine import KindlingMessages
    from kindling_dagster.project import KindlingProject
    from kindling_dagster.reprocess_job import build_reprocess_job
    from kindling_dagster.resources import KindlingResource
    from kindling_dagster.sensors import build_stream_supervisor
    from kindling_dagster.signals.bridge_table import SignalBridge
    from kindling_dagster.signals.reading import read_signals
    from kindling_dagster.spark_resources import SparkSettings
    from kindling_dagster.stream_assets import build_kindling_streaming_assets
    from kindling_dagster.stream_definitions import build_kindling_stream_definitions
    from kindling_dagster.stream_events import ReportingPolicy
    from kindling_dagster.stream_resources import KindlingStreamsResource
    from kindling_dagster.streaming.reprocess_rows import reprocess_rows
    from kindling_dagster.streaming.reprocessing import ReprocessRequest
    from kindling_dagster.streaming.restarts import RestartConfig
    from kindling_dagster.streaming.supervision import SupervisorPolicy
    from kindling_dagster.streaming.watched import DimensionPolicy
    from kindling_dagster.submit_client import KindlingSubmitClient
    from kindling_dagster.table_checks.defs import build_table_checks
    from kindling_dagster.translator import (
        AssetData,
        CheckData,
        DagsterKindlingTranslator,
        TranslatorSettings,
    )

__version__ = "0.1.0"

__all__ = [
    "AssetData",
    "CheckData",
    "DagsterKindlingTranslator",
    "DimensionPolicy",
    "InProcessEngine",
    "KindlingDagsterError",
    "KindlingIOManager",
    "KindlingMessages",
    "KindlingProject",
    "KindlingProjectComponent",
    "KindlingResource",
    "KindlingRunConfig",
    "KindlingStreamsResource",
    "KindlingSubmitClient",
    "Manifest",
    "OpSettings",
    "PipesEngine",
    "ReportingPolicy",
    "ReprocessRequest",
    "RestartConfig",
    "SignalBridge",
    "SparkSettings",
    "SupervisorPolicy",
    "TranslatorSettings",
    "WarmEngine",
    "build_dimension_sensor",
    "build_kindling_asset_specs",
    "build_kindling_definitions",
    "build_kindling_ingestion",
    "build_kindling_schedule",
    "build_kindling_stream_definitions",
    "build_kindling_streaming_assets",
    "build_reprocess_job",
    "build_stream_checks",
    "build_stream_jobs",
    "build_stream_supervisor",
    "build_table_checks",
    "kindling_assets",
    "read_signals",
    "reprocess_rows",
]

# Names are fetched when they are first asked for: the planning and execution core is used without
# Dagster too, and importing it must not bring Dagster in.
_HOMES = {
    "AssetData": "translator",
    "CheckData": "translator",
    "DagsterKindlingTranslator": "translator",
    "DimensionPolicy": "streaming.watched",
    "InProcessEngine": "engine_resources",
    "KindlingDagsterError": "errors",
    "KindlingIOManager": "io_manager",
    "KindlingMessages": "pipes_engine",
    "KindlingProject": "project",
    "KindlingProjectComponent": "components.component",
    "KindlingResource": "resources",
    "KindlingRunConfig": "config",
    "KindlingStreamsResource": "stream_resources",
    "KindlingSubmitClient": "submit_client",
    "Manifest": "manifest",
    "PipesEngine": "engine_resources",
    "OpSettings": "definitions",
    "ReportingPolicy": "stream_events",
    "ReprocessRequest": "streaming.reprocessing",
    "RestartConfig": "streaming.restarts",
    "SignalBridge": "signals.bridge_table",
    "SparkSettings": "spark_resources",
    "SupervisorPolicy": "streaming.supervision",
    "TranslatorSettings": "translator",
    "WarmEngine": "engine_resources",
    "build_dimension_sensor": "dimension_sensor",
    "build_kindling_asset_specs": "assets",
    "build_kindling_definitions": "definitions",
    "build_kindling_ingestion": "ingestion.defs",
    "build_kindling_schedule": "automation",
    "build_kindling_stream_definitions": "stream_definitions",
    "build_kindling_streaming_assets": "stream_assets",
    "build_reprocess_job": "reprocess_job",
    "build_stream_checks": "checks",
    "build_stream_jobs": "jobs",
    "build_stream_supervisor": "sensors",
    "build_table_checks": "table_checks.defs",
    "kindling_assets": "assets",
    "read_signals": "signals.reading",
    "reprocess_rows": "streaming.reprocess_rows",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
