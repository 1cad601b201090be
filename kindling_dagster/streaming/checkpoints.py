"""Whether a stream's checkpoint is the one its output was written with: a stream never silently starts over."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kindling_dagster.streaming.failures import CheckpointError

if TYPE_CHECKING:
    from kindling_dagster.streaming.store import StreamStore

DOCUMENT: Final = "checkpoint"
"""Kind of the store's documents about checkpoints; their key is the stream's id."""


@dataclass(frozen=True)
class CheckpointRecord:
    """What the store remembers of a stream's checkpoint.

    Args:
        query_id: Spark's id of the query, which lives in the checkpoint; empty when nothing is known, or
            when somebody has accepted that the stream starts over.
        path: Where the checkpoint was.
        accepted_by: Who accepted that it starts over, until it has.
    """

    query_id: str = ""
    path: str = ""
    accepted_by: str = ""

    @staticmethod
    def from_document(value: Any) -> CheckpointRecord:
        """What a document holds; an empty record for none."""
        if not isinstance(value, dict):
            return CheckpointRecord()
        return CheckpointRecord(*(str(value.get(name) or "") for name in ("query_id", "path", "accepted_by")))


def metadata_query_id(text: str | None, stream_id: str, path: str) -> str | None:
    """The query id in a checkpoint's ``metadata`` file; None when there is no such file.

    Raises:
        CheckpointError: The file is damaged.
    """
    if text is None:
        return None
    try:
        return str(json.loads(text)["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"The checkpoint of stream {stream_id} at {path} is damaged: its file metadata does not name a query.",
            "Put the folder back from a copy, or accept that the stream starts over: "
            f"{accept_command(stream_id)}.",
        ) from error


def check(stream_id: str, known: CheckpointRecord, path: str, found: str | None) -> None:
    """Refuse a start that would read again what the stream has already written.

    A checkpoint that was moved together with its setting is the same query, and is let through.

    Args:
        stream_id: The stream.
        known: What the store remembers.
        path: Where the checkpoint is now.
        found: The query id that is there; None when there is no checkpoint.

    Raises:
        CheckpointError: The checkpoint is gone, or is another query's.
    """
    if not known.query_id or found == known.query_id:
        return
    moved = "" if path == known.path else f" (it was last at {known.path})"
    what = "is gone" if found is None else f"is another query's ({found})"
    raise CheckpointError(
        f"The checkpoint of stream {stream_id} at {path} {what}{moved}: its output was written by query "
        f"{known.query_id}. Started now, the stream would read its sources from the beginning again, and "
        "what it appends would be there twice.",
        "Put the folder (or the setting that names it) back and revive the stream, or accept that it "
        f"starts over: {accept_command(stream_id)}.",
    )


def accept_command(stream_id: str) -> str:
    """The command line by which a person accepts that a stream starts over."""
    return f"`kindling-dagster streams revive -s {stream_id} --reset-checkpoint`"


def load(store: StreamStore, stream_id: str) -> CheckpointRecord:
    """What the store remembers of a stream's checkpoint."""
    return CheckpointRecord.from_document(store.document(DOCUMENT, stream_id)[0])


def remember(store: StreamStore, stream_id: str, query_id: str, path: str) -> None:
    """Note which query a stream's checkpoint belongs to; nothing is written when that is known."""
    value, version = store.document(DOCUMENT, stream_id)
    if CheckpointRecord.from_document(value) != CheckpointRecord(query_id, path):
        store.put_document(DOCUMENT, stream_id, {"query_id": query_id, "path": path}, expected=version)


def accept_reset(store: StreamStore, stream_id: str, by: str) -> None:
    """Accept that a stream whose checkpoint is gone reads its sources from the beginning; then revive it.

    Takes no effect on a stream whose checkpoint is in place: it goes on from there.

    Args:
        store: The project's store.
        stream_id: The stream.
        by: Who accepts it.
    """
    value, version = store.document(DOCUMENT, stream_id)
    path = CheckpointRecord.from_document(value).path
    accepted = {"query_id": "", "path": path, "accepted_by": by}
    store.put_document(DOCUMENT, stream_id, accepted, expected=version)
