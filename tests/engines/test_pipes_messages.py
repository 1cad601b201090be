"""Messages from a job by a file: each whole, in order, the moment it is there; no job, no Spark."""

from __future__ import annotations

import json
import os
import queue
import threading
from pathlib import Path
from typing import Any

from dagster import PipesMessageHandler, build_asset_context
from dagster_pipes import PipesDefaultMessageWriter

from kindling_dagster.pipes_engine import KindlingMessages
from kindling_dagster.remote.protocol import MESSAGE
from kindling_dagster.submit_client import FileMessages


def custom(number: int, text: str) -> Any:
    return {
        "method": "report_custom_message",
        "params": {"payload": {MESSAGE: {"n": number, "text": text}}},
    }


def test_large_messages_come_whole_while_they_are_being_written() -> None:
    """Dagster's own reader loses the first that it meets half written, and all after it."""
    reader = KindlingMessages(FileMessages())
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    texts = [letter * 300_000 for letter in "abcdefghij"] * 5
    handler = PipesMessageHandler(build_asset_context(), reader)
    with (
        reader.telling(told.put),
        reader.read_messages(handler) as params,
        PipesDefaultMessageWriter().open(params) as channel,
    ):
        for number, text in enumerate(texts):
            channel.write_message(custom(number, text))
        got = [told.get(timeout=30) for _ in texts]
    assert got == [{"n": number, "text": text} for number, text in enumerate(texts)]


def test_a_message_is_handed_on_before_the_job_ends_and_a_torn_one_never() -> None:
    reader = KindlingMessages(FileMessages())
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    handler = PipesMessageHandler(build_asset_context(), reader)
    with reader.telling(told.put), reader.read_messages(handler) as params:
        path = Path(params["path"])
        line = (json.dumps(custom(0, "ä" * 5000)) + "\n").encode()
        with path.open("ab", buffering=0) as file:
            file.write(line[:4001])  # in the middle of a character
            os.fsync(file.fileno())
            file.write(line[4001:])
            assert told.get(timeout=30)["text"] == "ä" * 5000
            file.write(line[:100])
    assert told.empty()
    assert not path.exists()
    assert "kindling messages" not in {thread.name for thread in threading.enumerate()}
