"""Whether a checkpoint is the one a stream's output was written with."""

from __future__ import annotations

from pathlib import Path

import pytest
from stream_fakes import FakeQuery

from kindling_dagster.streaming import checkpoints
from kindling_dagster.streaming.checkpoints import CheckpointRecord
from kindling_dagster.streaming.failures import CheckpointError
from kindling_dagster.streaming.fencing import LeaseFence
from kindling_dagster.streaming.starter import StreamStarter
from kindling_dagster.streaming.store import StoreReplaced, StreamStore, default_store_url

KNOWN = CheckpointRecord("q1", "/root/clean")


@pytest.mark.parametrize(
    ("known", "path", "found", "complaint"),
    [
        (CheckpointRecord(), "/root/clean", None, None),  # the first start
        (CheckpointRecord(), "/root/clean", "q1", None),  # from before it was supervised
        (KNOWN, "/root/clean", "q1", None),
        (KNOWN, "/other/clean", "q1", None),  # moved, with its setting
        (CheckpointRecord("", "/root/clean", "me"), "/root/clean", None, None),  # accepted
        (CheckpointRecord("", "/root/clean", "me"), "/root/clean", "q2", None),
        (KNOWN, "/root/clean", None, "is gone"),
        (KNOWN, "/other/clean", None, r"is gone \(it was last at /root/clean\)"),
        (KNOWN, "/root/clean", "q2", r"another query's \(q2\)"),
    ],
)
def test_check(known: CheckpointRecord, path: str, found: str | None, complaint: str | None) -> None:
    if complaint is None:
        checkpoints.check("clean", known, path, found)
        return
    with pytest.raises(CheckpointError, match=complaint) as caught:
        checkpoints.check("clean", known, path, found)
    assert "streams revive -s clean --reset-checkpoint" in caught.value.suggestion


@pytest.mark.parametrize(("text", "query_id"), [(None, None), ('{"id":"q1"}', "q1"), ('{"id":"q1"}\n', "q1")])
def test_metadata(text: str | None, query_id: str | None) -> None:
    assert checkpoints.metadata_query_id(text, "clean", "/root/clean") == query_id


@pytest.mark.parametrize("text", ["", "not json", "[]", "{}", "null"])
def test_damaged_metadata_is_an_error_not_a_new_start(text: str) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.metadata_query_id(text, "clean", "/root/clean")


def test_what_is_remembered(tmp_path: Path) -> None:
    with StreamStore.open(default_store_url(str(tmp_path)), "shop") as store:
        assert checkpoints.load(store, "clean") == CheckpointRecord()
        checkpoints.remember(store, "clean", "q1", "/root/clean")
        assert checkpoints.load(store, "clean") == KNOWN
        version = store.document(checkpoints.DOCUMENT, "clean")[1]
        checkpoints.remember(store, "clean", "q1", "/root/clean")
        assert store.document(checkpoints.DOCUMENT, "clean")[1] == version
        checkpoints.accept_reset(store, "clean", "me")
        assert checkpoints.load(store, "clean") == CheckpointRecord("", "/root/clean", "me")
        checkpoints.remember(store, "clean", "q2", "/root/clean")
        assert checkpoints.load(store, "clean") == CheckpointRecord("q2", "/root/clean")


def test_no_query_goes_on_whose_checkpoint_could_not_be_noted(tmp_path: Path) -> None:
    store = StreamStore.open(default_store_url(str(tmp_path)), "shop")
    starter = StreamStarter(None, None, store, LeaseFence())  # type: ignore[arg-type]
    noted, unknown = FakeQuery("q1"), FakeQuery("q2")
    starter._remember("clean", noted, "/root/clean")
    assert (noted.stops, checkpoints.load(store, "clean")) == (0, KNOWN)
    Path(tmp_path / "kindling_streams.db").unlink()
    with pytest.raises(StoreReplaced):
        starter._remember("clean", unknown, "/root/clean")
    assert unknown.stops == 1
    store.close()
