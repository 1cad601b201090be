"""The job that writes rows of a stream's output anew which carry old values of a dimension; on request only."""

from __future__ import annotations

from dagster import AssetObservation, Config, JobDefinition, MetadataValue, OpExecutionContext
from pydantic import Field

from kindling_dagster.assets import KindlingAssetGraph, app_name
from kindling_dagster.op_jobs import build_op_job
from kindling_dagster.project import KindlingProject
from kindling_dagster.streaming.reprocessing import (
    MAX_KEYS,
    MAX_ROWS,
    ReprocessRequest,
    ReprocessResult,
)
from kindling_dagster.translator import DagsterKindlingTranslator


class ReprocessRowsConfig(Config):
    """Which rows, and whether to write them."""

    stream: str = Field(description="Pipe id of the stream, or the id of the entity it writes.")
    dimension: str = Field(description="The entity that changed.")
    keys: list[str] = Field(
        default=[],
        description="Keys of its rows that changed; the values of one key separated by commas, as in CSV.",
    )
    since_version: int | None = Field(
        default=None, description="Instead of keys: all that changed since this version of its Delta table."
    )
    columns: dict[str, str] = Field(
        default={},
        description="Column of the dimension: column of the stream's driving input that it is joined by. "
        "Its key, by equal names, when empty.",
    )
    latest_by: str = Field(
        default="",
        description="Where several driving rows became one row: the column whose largest value tells the last.",
    )
    max_keys: int = Field(default=MAX_KEYS, description="Refused when more keys have changed.")
    max_rows: int = Field(default=MAX_ROWS, description="Refused when more rows are affected.")
    dry_run: bool = Field(default=True, description="Say how many rows are affected, and write nothing.")


def build_reprocess_job(
    project: KindlingProject,
    *,
    name: str | None = None,
    resource_key: str = "kindling",
    translator: DagsterKindlingTranslator | None = None,
) -> JobDefinition:
    """The job ``<app>_reprocess_rows``. Nothing launches it but a person; a dry run unless its config says otherwise.

    Its Spark session is the resource's, started inside the run. What was written is an observation of the
    output's asset.

    Args:
        project: The app.
        name: The job's name; ``<app>_reprocess_rows`` when left out.
        resource_key: Key of the KindlingResource.
        translator: Decides the key of the output's asset.

    Example::

        defs = Definitions(
            jobs=[build_reprocess_job(KindlingProject("demo"))], resources={"kindling": KindlingResource()}
        )
    """
    job_name = name or f"{app_name(project)}_reprocess_rows"
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())

    def reprocess(context: OpExecutionContext) -> None:
        # Here, because it imports Kindling and PySpark, which definitions do without.
        from kindling_dagster.streaming.reprocess_rows import reprocess_rows

        config = ReprocessRowsConfig(**context.op_config)
        kindling = getattr(context.resources, resource_key)
        result = reprocess_rows(
            project,
            ReprocessRequest(**{**config.model_dump(exclude={"dry_run"}), "keys": tuple(config.keys)}),
            kindling.create_session,
            dry_run=config.dry_run,
            run_id=context.run_id,
            storage_options=kindling.storage_options,
        )
        context.log.info(str(result))
        if result.written:
            context.log_event(_observation(assets, result))

    return build_op_job(
        job_name,
        f"{job_name}_write",
        "Writes rows of a stream's output anew that carry old values of a dimension, when asked to; a dry run "
        f"by default. The app is {project.name}.",
        reprocess,
        resources={resource_key},
        config=ReprocessRowsConfig,
    )


def _observation(assets: KindlingAssetGraph, result: ReprocessResult) -> AssetObservation:
    return AssetObservation(
        assets.key_of(result.output_id),
        description=str(result),
        metadata={
            "dimension": result.dimension_id,
            "keys": result.keys,
            "rows": result.rows,
            "seconds": MetadataValue.float(result.seconds),
        },
    )
