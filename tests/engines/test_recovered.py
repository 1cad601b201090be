"""What a lost run has committed, as the tables' own logs tell it; the logs are as Spark writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from engines.spark_logs import FILLED_METRICS, Commit, write_log
from manifests import manifest, pipe

from kindling_dagster.dag.results import PipeStatus
from kindling_dagster.engines.recovered import committed_by
from kindling_dagster.lineage.commits import CommitLineage, user_metadata

APP = manifest(pipe("fill", "src.a", "out.a"))
MINE = user_metadata([CommitLineage("fill", "out.a", "acme", "1.2", "mine")])
ANOTHER_RUN = user_metadata([CommitLineage("fill", "out.a", "acme", "1.2", "another")])
ANOTHER_PIPE = user_metadata([CommitLineage("other", "out.a", "acme", "1.2", "mine")])
MADE: Commit = ("WRITE", MINE, {"numFiles": "1", "numOutputRows": "0", "numOutputBytes": "900"})
FILLED: Commit = ("WRITE", MINE, FILLED_METRICS)
EMPTIED: Commit = ("WRITE", MINE, {"numFiles": "0", "numOutputRows": "0", "numOutputBytes": "0"})
MERGED: Commit = ("MERGE", MINE, {"numTargetRowsInserted": "0", "numTargetRowsUpdated": "0"})
BEFORE: Commit = ("WRITE", ANOTHER_RUN, {"numOutputRows": "3"})


@pytest.mark.parametrize(
    ("commits", "committed"),
    [
        pytest.param([MADE, FILLED], True, id="made, then filled"),
        pytest.param([MADE], False, id="made, and lost before it was filled"),
        pytest.param([FILLED], True, id="made and filled at once"),
        pytest.param([MADE, EMPTIED], True, id="filled with nothing"),
        pytest.param([BEFORE, MERGED], True, id="nothing to merge"),
        pytest.param([BEFORE], False, id="another run's"),
        pytest.param([BEFORE, ("WRITE", ANOTHER_PIPE, {"numOutputRows": "3"})], False, id="another pipe's"),
        pytest.param([BEFORE, FILLED, ("OPTIMIZE", "", {}), BEFORE], True, id="with others after it"),
        pytest.param([BEFORE, ("SET TBLPROPERTIES", MINE, {})], False, id="properties alone"),
        pytest.param([BEFORE, ("DELETE", MINE, {"numDeletedRows": "3"})], False, id="the first half"),
        pytest.param(
            [("CREATE TABLE AS SELECT", MINE, {"numOutputRows": "3"})], True, id="made from a query"
        ),
        pytest.param([], False, id="no table"),
    ],
)
def test_only_what_ends_a_pipe_s_write_counts(tmp_path: Path, commits: list[Commit], committed: bool) -> None:
    if commits:
        write_log(tmp_path / "lake" / "out" / "a", commits)
    found = [finished.result for finished in committed_by(APP, tmp_path, "mine", ["fill"])]
    assert [(result.pipe_id, result.status) for result in found] == (
        [("fill", PipeStatus.SUCCEEDED)] if committed else []
    )
    last = max((version for version, commit in enumerate(commits) if commit[1] == MINE), default=-1)
    for result in found:
        assert [commit["version"] for commit in result.metadata["commits"]] == [last]
        assert result.metadata["uri"] == str(tmp_path / "lake/out/a")
        assert (result.metadata["package"], result.metadata["package_version"]) == ("acme", "1.2")
