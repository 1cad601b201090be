"""The job side of the Pipes engine: what runs on a Spark driver that is not Dagster's process. Free of Dagster."""

from __future__ import annotations

from kindling_dagster.remote.job import run_job

__all__ = ["run_job"]
