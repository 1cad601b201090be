"""The dry run as a Dagster job."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from dagster import (
    Config,
    Failure,
    JobDefinition,
    MetadataValue,
    Nothing,
    OpExecutionContext,
    Out,
    Output,
    TableColumn,
    TableRecord,
    TableSchema,
    job,
    op,
)
from pydantic import Field

from kindling_dagster.analysis.findings import AnalysisResult, Finding, PipeAnalysis, Verdict
from kindling_dagster.assets import app_name
from kindling_dagster.engines.base import LogLine
from kindling_dagster.errors import RunError
from kindling_dagster.project import KindlingProject

_COLUMNS = ("severity", "pipe", "kind", "entity", "column", "where", "message", "suggestion")


class AnalyzeConfig(Config):
    """What a dry run looks at."""

    pipes: list[str] = Field(default=[], description="Pipe ids; all of the app when empty.")
    timeout: float = Field(
        default=60.0, description="Seconds a pipe may take on empty frames; 0 for no limit."
    )


def build_analyze_job(
    project: KindlingProject, *, name: str | None = None, resource_key: str = "kindling"
) -> JobDefinition:
    """A job that calls each pipe's function on empty frames and fails with everything that is wrong.

    It writes nothing. Its Spark session is the resource's, started inside the run.

    Args:
        project: The app.
        name: The job's name; ``<app>_analyze`` when left out.
        resource_key: Key of the KindlingResource.

    Example::

        defs = Definitions(
            jobs=[build_analyze_job(KindlingProject("demo"))], resources={"kindling": KindlingResource()}
        )
    """
    job_name = name or f"{app_name(project)}_analyze"

    @op(
        name=f"{job_name}_pipes",
        required_resource_keys={resource_key},
        config_schema=AnalyzeConfig.to_fields_dict(),
        out=Out(Nothing),
    )
    def analyze(context):  # type: ignore[no-untyped-def]  # Dagster takes no postponed annotation here
        config = AnalyzeConfig(**context.op_config)
        result = _run(context, project, getattr(context.resources, resource_key), config)
        if not result.ok:
            lines = "\n".join(f"- {finding}" for finding in result.errors)
            raise Failure(f"{result.summary()}\n{lines}", metadata=_metadata(result), allow_retries=False)
        return Output(None, metadata=_metadata(result))

    @job(name=job_name, description=f"Checks every pipe of {project.name} on empty frames; writes nothing.")
    def dry_run() -> None:
        analyze()

    return dry_run


def _run(
    context: OpExecutionContext, project: KindlingProject, resource: Any, config: AnalyzeConfig
) -> AnalysisResult:
    # Here, because it imports Kindling and PySpark, which definitions do without.
    from kindling_dagster.analysis.run import analyze_project

    events = analyze_project(
        project,
        resource.create_session,
        config.pipes or None,
        timeout=config.timeout or None,
        watermarks=resource.watermarks,
    )
    result: AnalysisResult | None = None
    with closing(events):
        for event in events:
            match event:
                case AnalysisResult():
                    result = event
                case LogLine(level, message):
                    context.log.log(level, message)
                case PipeAnalysis():
                    _log(context, event)
    if result is None:
        raise RunError("The dry run ended without a result.")
    return result


def _log(context: OpExecutionContext, analysis: PipeAnalysis) -> None:
    for finding in analysis.findings:
        context.log.log(finding.severity, str(finding))
    if analysis.verdict is Verdict.NOT_ANALYSED:
        context.log.warning(f"{analysis.pipe_id} was not analysed: {analysis.reason}")
    elif not analysis.findings:
        context.log.info(f"{analysis.pipe_id}: nothing is wrong ({analysis.seconds:.1f} s).")


def _metadata(result: AnalysisResult) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "summary": result.summary(),
        "pipes": len(result.pipes),
        "findings": MetadataValue.table(
            [TableRecord(_row(finding)) for finding in result.findings],
            TableSchema([TableColumn(name) for name in _COLUMNS]),
        ),
    }
    if result.not_analysed:
        metadata["not_analysed"] = MetadataValue.table(
            [TableRecord({"pipe": pipe.pipe_id, "reason": pipe.reason}) for pipe in result.not_analysed]
        )
    return metadata


def _row(finding: Finding) -> dict[str, str]:
    values = (
        finding.severity,
        finding.pipe_id,
        finding.kind.value,
        finding.entity_id,
        finding.column,
        finding.where,
        finding.message,
        finding.suggestion,
    )
    return dict(zip(_COLUMNS, values, strict=True))
