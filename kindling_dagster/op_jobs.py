"""Jobs of one op: what jobs around streams have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from dagster import (
    Config,
    Failure,
    JobDefinition,
    Nothing,
    OpExecutionContext,
    Out,
    in_process_executor,
    job,
    op,
)

from kindling_dagster.errors import KindlingDagsterError


def build_op_job(
    name: str,
    op_name: str,
    description: str,
    work: Callable[[OpExecutionContext], None],
    *,
    resources: Collection[str],
    config: type[Config] | None = None,
    tags: Mapping[str, str] | None = None,
    op_tags: Mapping[str, str] | None = None,
) -> JobDefinition:
    """A job that calls ``work`` in the run's own process.

    An error of ours fails the run with its text, and is not tried again.

    Args:
        name: The job's name.
        op_name: The op's, which run config names.
        description: Of the job.
        work: Does it.
        resources: Keys of the resources that it takes.
        config: Of the op.
        tags: Of the job.
        op_tags: Of the op.
    """

    @op(
        name=op_name,
        required_resource_keys=set(resources),
        config_schema=config.to_fields_dict() if config is not None else None,
        out=Out(Nothing),
        tags=op_tags,
    )
    def only(context) -> None:  # type: ignore[no-untyped-def]  # Dagster takes no postponed annotation here
        try:
            work(context)
        except KindlingDagsterError as error:
            raise Failure(str(error), allow_retries=False) from error

    @job(name=name, description=description, tags=tags, executor_def=in_process_executor)
    def of_one_op() -> None:
        only()

    return of_one_op
