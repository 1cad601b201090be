"""Reading Delta logs without Spark: totals, commits, and what they cannot tell."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from kindling_dagster.delta_log import last_commits, open_table, read_state, table_version
from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.audit import audit_table


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for rows in ([1, 2, 3], [4, 5]):
        write_deltalake(str(tmp_path), pa.table({"id": rows}), mode="append")
    return tmp_path


def allow_deletion_vectors(table: Path) -> None:
    """The commit by which a writer says that files may have rows that are marked as deleted."""
    features = ["deletionVectors"]
    protocol = {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": features,
        "writerFeatures": features,
    }
    (table / "_delta_log" / f"{2:020d}.json").write_text(json.dumps({"protocol": protocol}) + "\n")


def test_totals_come_from_the_log(table: Path) -> None:
    state = read_state(str(table), since=0)
    assert state is not None
    assert (state.version, state.rows, state.files, state.unavailable) == (1, 5, 2, "")
    assert state.bytes == sum(path.stat().st_size for path in table.glob("*.parquet"))
    assert [commit.version for commit in state.commits] == [1]


def test_rows_are_not_guessed_where_they_may_be_marked_as_deleted(table: Path) -> None:
    allow_deletion_vectors(table)
    state = read_state(str(table))
    assert state is not None
    assert (state.rows, state.files) == (None, 2)
    assert "deletion vectors" in state.unavailable
    with pytest.raises(LineageError, match="without Spark"):
        audit_table(str(table), "silver")


@pytest.mark.parametrize(("limit", "versions"), [(1, [1]), (5, [1, 0]), (None, [1, 0])])
def test_the_last_commits_are_newest_first(table: Path, limit: int | None, versions: list[int]) -> None:
    assert [commit.version for commit in last_commits(str(table), limit)] == versions


def test_no_table_is_no_error(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert (open_table(nowhere), table_version(nowhere), read_state(nowhere), last_commits(nowhere, 1)) == (
        None, None, None, (),
    )  # fmt: skip
