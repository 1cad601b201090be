"""What a pipe's write did, told from the table's log. Real tables, no Spark."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from deltalake import CommitProperties, write_deltalake

from kindling_dagster.engines import commits
from kindling_dagster.engines.commits import CommitReader
from kindling_dagster.lineage.commits import CommitLineage, user_metadata

ENTITY = "silver.orders"


def writer(pipe: str, run_id: str = "this", entity: str = ENTITY) -> CommitLineage:
    return CommitLineage(pipe, entity, "shop", "1.0", run_id)


MINE = writer("orders")


class LocalLogs(CommitReader):
    """A place that has a scheme, and that Spark is not needed for."""

    def _paths_are_local(self) -> bool:
        return True


def logs(table: Path, *secret_places: str) -> CommitReader:
    entity = SimpleNamespace(tags={"provider.access_mode": "storage"})
    runtime: Any = SimpleNamespace(
        entities=SimpleNamespace(get_entity_definition=lambda _: entity), table_path=lambda _: str(table)
    )
    spark: Any = None
    return LocalLogs(runtime, spark, secret_places=secret_places)


@pytest.mark.parametrize(
    ("texts", "counted"),
    [
        ([user_metadata([MINE])], [1]),
        ([user_metadata([MINE]), "", "a stranger's"], [1]),
        ([user_metadata([writer("stream")]), user_metadata([MINE]), user_metadata([MINE])], [3, 2]),
        ([user_metadata([writer("orders", "another")]), user_metadata([MINE])], [2]),
        # The session's setting names all that write at the time.
        ([user_metadata([writer("a"), writer("b", entity="silver.b"), MINE])], [1]),
        # Settings keep the pipe's name out: all but those of known others.
        (["", user_metadata([writer("stream")]), "the user's own"], [3, 1]),
        ([user_metadata([writer("stream")])], []),
        ([], []),
    ],
)
def test_commits_of_others_in_between_are_not_the_pipes(
    tmp_path: Path, texts: list[str], counted: list[int]
) -> None:
    for text in ("", *texts):
        said = CommitProperties(custom_metadata={"userMetadata": text} if text else {})
        write_deltalake(tmp_path, pa.table({"id": [1, 2]}), mode="append", commit_properties=said)
    told = logs(tmp_path).metadata(ENTITY, 0, MINE)
    assert [commit["version"] for commit in told["commits"]] == counted
    assert (told["version"], told["rows"]) == (len(texts), 2 * (len(texts) + 1))


@pytest.mark.parametrize("secret", [True, False])
def test_an_error_at_a_secret_place_is_told_by_its_kind_alone(
    monkeypatch: pytest.MonkeyPatch, secret: bool
) -> None:
    """Storages spell a place in ways that no mask of the secret's value knows."""

    def fail(uri: str, **_: Any) -> None:
        raise OSError(f"no answer from {uri.replace(' ', '%20')}")

    monkeypatch.setattr(commits, "read_state", fail)
    told = logs(Path("/hidden place"), *([ENTITY] if secret else [])).metadata(ENTITY, 0, MINE)
    assert told["unavailable"].startswith("the table's log could not be read: OSError")
    assert ("hidden" in str(told)) == (not secret)
