"""What is written as JSON text and read again: any text, nothing too long, nothing that is no JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_fixtures import ERROR, a_command, a_host

from kindling_dagster.streaming.model import Command, HistoryEntry, StreamingQueryState, StreamStatus
from kindling_dagster.streaming.store import StoreCorrupted, StoreError, StreamStore
from kindling_dagster.streaming.store.codec import LARGEST_DOCUMENT, LONGEST_TEXT, from_text, to_text

STATUS = StreamStatus("orders", StreamingQueryState.RUNNING)


def test_documents_are_small_json(store: StreamStore) -> None:
    with pytest.raises(StoreError, match="kind/key holds what JSON cannot"):
        store.put_document("kind", "key", {"a": object()}, 0)
    with pytest.raises(StoreError, match="kind/key has 1,000,002 characters"):
        store.put_document("kind", "key", "x" * LARGEST_DOCUMENT, 0)
    assert store.document("kind", "key") == (None, 0)


@pytest.mark.parametrize(
    "text", ["plain", "ünï¢ødé 🎏", "NUL \x00", "half \ud83c", "'; DROP TABLE x; --", ""]
)
def test_any_text_can_be_reported(store: StreamStore, text: str) -> None:
    lease = store.acquire_lease(a_host(detail=text), 30)
    assert lease is not None
    store.submit([a_command("start", reason=text, by=text)])
    store.report(
        lease, [replace(STATUS, health_reason=text)], history=[HistoryEntry("orders", "x", 1.0, text)]
    )
    assert store.desired()["orders"].reason == text
    assert store.statuses()["orders"].health_reason == text
    assert store.history()[0].detail == text
    host = store.host()
    assert host is not None
    assert host.detail == text


def test_long_texts_are_cut(store: StreamStore) -> None:
    lease = store.acquire_lease(a_host(), 30)
    assert lease is not None
    store.report(lease, [replace(STATUS, last_error=replace(ERROR, message="x" * (LONGEST_TEXT + 7)))])
    error = store.statuses()["orders"].last_error
    assert error is not None
    assert error.message == "x" * LONGEST_TEXT + "… (7 more characters)"


def test_a_report_that_is_no_json_is_refused_whole(store: StreamStore) -> None:
    lease = store.acquire_lease(a_host(), 30)
    assert lease is not None
    with pytest.raises(StoreError, match="HistoryEntry holds what JSON cannot"):
        store.report(lease, [STATUS], history=[HistoryEntry("orders", "x", 1.0, data={"a": object()})])
    assert store.statuses() == {}


def test_fields_of_a_newer_version_are_passed_over() -> None:
    text = to_text(Command("1", "start", "orders")).replace("{", '{"priority":9,', 1)
    assert from_text(text, Command, "row") == Command("1", "start", "orders")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"stream_id":"a","state":"dancing"}', '{"state":"running"}']
)
def test_a_row_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(StoreCorrupted, match="The store's status of a cannot be read as StreamStatus"):
        from_text(text, StreamStatus, "status of a")
