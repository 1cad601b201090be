"""What a run committed, told by the tables' logs, for pipes of which nothing else was heard. No Spark; no Dagster."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from kindling_dagster.dag.results import PipeResult, PipeStatus
from kindling_dagster.delta_log import DeltaCommit, last_commits, local_path, read_state
from kindling_dagster.engines.base import PipeFinished
from kindling_dagster.engines.commits import PATIENCE, describe
from kindling_dagster.lineage.commits import commit_lineage
from kindling_dagster.locations import table_location
from kindling_dagster.manifest import Manifest

_COMMITS = 20
"""How far back a run's own commit may lie; maintenance and later runs come after it."""
# Operations that end a pipe's write. Others prepare one (properties, columns) or are its first half (DELETE, UPDATE).
_WRITES = frozenset(
    {
        "WRITE",
        "MERGE",
        "CREATE TABLE AS SELECT",
        "CREATE OR REPLACE TABLE AS SELECT",
        "REPLACE TABLE AS SELECT",
    }
)


def committed_by(
    manifest: Manifest,
    working_dir: Path | None,
    run_id: str,
    pipe_ids: Collection[str],
    storage_options: Mapping[str, str] | None = None,
) -> Iterator[PipeFinished]:
    """The pipes whose commits carry this run's id, each as finished.

    Args:
        manifest: Says which entity each pipe writes.
        working_dir: Where relative locations count from.
        run_id: The run.
        pipe_ids: The pipes to look for.
        storage_options: For logs on object storage, as deltalake takes them.
    """
    for pipe_id in pipe_ids:
        entity = manifest.entities_by_id.get(manifest.pipes_by_id[pipe_id].output_entity_id)
        uri = table_location(entity, working_dir) if entity is not None else None
        if entity is None or uri is None:
            continue
        options = None if local_path(uri) is not None else {**PATIENCE, **(storage_options or {})}
        for commit in last_commits(uri, _COMMITS, options):
            written = commit_lineage(commit.user_metadata, entity.id)
            if written is None or (written.run_id, written.pipe) != (run_id, pipe_id):
                continue
            if not _ends_a_write(commit):
                continue
            state = read_state(uri, since=commit.version - 1, storage_options=options)
            metadata = {} if state is None else describe(state, written)
            yield PipeFinished(
                PipeResult(
                    pipe_id=pipe_id,
                    status=PipeStatus.SUCCEEDED,
                    ended_at=commit.timestamp,
                    attempts=1,
                    reason="told by the commit in its table's log, since its end was not heard of",
                    metadata={
                        **metadata,
                        "uri": uri,
                        "package": written.package,
                        "package_version": written.version,
                    },
                )
            )
            break


def _ends_a_write(commit: DeltaCommit) -> bool:
    """Whether the pipe's rows are there with this commit.

    Kindling makes a table that is missing by writing no rows, and fills it with the commit after that.
    """
    only_made = commit.version == 0 and not any(commit.metrics.values())
    return commit.operation in _WRITES and not only_made
