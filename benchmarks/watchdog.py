"""What one round of the watchdog over 10, 100 and 1,000 queries costs, and what a call that hangs adds to it.

The queries are simulated and answer at once, so this is the watchdog's own share; four calls to a real
query cost Spark a few milliseconds in addition, on the watchdog's own threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from time import process_time
from typing import Any

from benchmarks.harness import Case
from kindling_dagster.streaming.model import StreamHealth
from kindling_dagster.streaming.queries import StreamingQueryManager
from kindling_dagster.streaming.watchdog import StreamingWatchdog

SIZES = (10, 100, 1_000)
GOAL_PER_QUERY = 0.001
"""Seconds of CPU per query and round: 1,000 queries looked at every 30 s take 3 % of one core at most."""

WALL_GOAL = 2.0
PATIENCE = 30.0
_numbers = count(1)


class SimulatedQuery:
    """A query that works on a Delta table and always has a new batch to show."""

    def __init__(self) -> None:
        self.id = "simulated"
        self.runId = f"run-{next(_numbers)}"
        self.isActive = True
        self.looks = 0
        self.status = {"isDataAvailable": True, "isTriggerActive": True, "message": "Processing new data"}

    @property
    def lastProgress(self) -> Mapping[str, Any]:  # noqa: N802
        """As Spark 3.5 writes it."""
        self.looks += 1
        return {
            "id": self.id,
            "runId": self.runId,
            "batchId": self.looks,
            "numInputRows": 1_000,
            "inputRowsPerSecond": 100.0,
            "processedRowsPerSecond": 400.0,
            "durationMs": {
                "addBatch": 1_767,
                "latestOffset": 26,
                "triggerExecution": 2_500,
                "walCommit": 131,
            },
            "stateOperators": [{"numRowsTotal": 5_000}],
            "sources": [{"metrics": {"numBytesOutstanding": "0", "numFilesOutstanding": "0"}}],
        }

    def exception(self) -> BaseException | None:
        """It never ends."""
        return None


class HangingQuery(SimulatedQuery):
    """A query whose status never comes, as when its JVM thread waits for a lock."""

    def __init__(self, release: threading.Event) -> None:
        super().__init__()
        self.release = release

    @property
    def lastProgress(self) -> Mapping[str, Any]:  # noqa: N802
        """Comes when it is released."""
        self.release.wait()
        return {}


class Watched:
    """A watchdog over simulated queries, some of which hang."""

    def __init__(self, size: int, hanging: int = 0) -> None:
        self.release = threading.Event()
        self.manager = StreamingQueryManager()
        for number in range(size):
            self.manager.start_query(f"stream-{number}", SimulatedQuery)
        for number in range(hanging):
            self.manager.start_query(f"hangs-{number}", lambda: HangingQuery(self.release))
        self.size = size
        self.watchdog = StreamingWatchdog(self.manager, answer_seconds=0.2)

    def round(self) -> None:
        """Look at every query and judge it; raises when one that answers was left out."""
        verdicts = self.watchdog.check_now(PATIENCE)
        healthy = sum(verdict.health is StreamHealth.HEALTHY for verdict in verdicts.values())
        if healthy < self.size:
            raise RuntimeError(f"{healthy} of {self.size} queries were judged healthy")

    def end(self) -> None:
        """Let go of the threads."""
        self.release.set()
        self.watchdog.stop()


def cpu_of(round_: Callable[[], object]) -> Callable[[], float]:
    """Seconds of CPU that all threads of the process spend on one round."""

    def measured() -> float:
        began = process_time()
        round_()
        return process_time() - began

    return measured


def cases() -> Iterator[Case]:
    """CPU of a round by number of queries; its duration when some calls hang."""
    for size in SIZES:
        watched = Watched(size)
        try:
            yield Case(
                name=f"CPU of a round over {size:,} queries",
                ours=cpu_of(watched.round),
                goal=size * GOAL_PER_QUERY,
                runs=7,
            )
        finally:
            watched.end()
    watched = Watched(SIZES[-1], hanging=8)
    try:
        # The first round waits until the hanging calls are given up; it is the warm-up.
        yield Case(
            name=f"a round over {SIZES[-1]:,} queries while 8 more hang",
            ours=watched.round,
            goal=WALL_GOAL,
            runs=7,
        )
    finally:
        watched.end()
