"""Streams under supervision: how soon a crashed one runs again, and what supervision costs a batch.

*Crash to running*: a stream is made to fail in a batch; counted is from the moment its query has ended to the
moment its next one runs, less the backoff. *Rows*: two chains of the same two streams (one appends, one merges
what that one wrote), in one session; one chain runs in a host, the other was started by Kindling's
``start_pipe_stream`` as in a bare script. The same rows land in one and the other by turns. *Host
killed*: SIGKILL of the host's process under a `dagster dev`, until another host runs all streams.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from benchmarks._stream_app import PRICES, Hosted, Stage, streams_of
from benchmarks._stream_stack import KilledHosts
from benchmarks.harness import Case

BACKOFF = 1.0
CRASHES = 8
COMMITS = 60
ROWS = 20_000


class SideBySide(Hosted):
    """A host with one chain, and the other chain as a script runs it."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._hosted: list[Any] = []
        self._bare: list[Any] = []

    def up(self) -> None:
        """Start the host, then the bare queries; producers before consumers in what follows."""
        from kindling.injection import get_kindling_service
        from kindling.pipe_streaming import PipeStreamStarter

        super().up()
        self._hosted = [self.stage.query(each) for each in reversed(self.streams)]
        starter = get_kindling_service(PipeStreamStarter)
        checkpoints = str(self.stage.folder / "app/data/checkpoints")
        for stream_id in reversed(streams_of("b")):
            options = {"query_name": stream_id, "base_checkpoint_path": checkpoints}
            self._bare.append(starter.start_pipe_stream(stream_id, options))
            self.stage.settle(self._bare)

    def supervised(self) -> float:
        """Seconds from a commit to its rows in the last table."""
        return self._commit("a", self._hosted)

    def bare(self) -> float:
        """The same, of the bare queries."""
        return self._commit("b", self._bare)

    def _commit(self, chain: str, queries: list[Any]) -> float:
        self.stage.land(chain, ROWS)
        landed = time.perf_counter()
        self.stage.settle(queries)
        return time.perf_counter() - landed

    def down(self) -> None:
        """End all."""
        for query in self._bare:
            query.stop()
        super().down()


class Crashing(Hosted):
    """A host one of whose streams is made to fail again and again."""

    def __init__(self, stage: Stage) -> None:
        overrides = {
            "recovery.initial_backoff": BACKOFF,
            "recovery.jitter": 0,
            "recovery.stable_after": 0,
            "recovery.max_retries": 50,
        }
        super().__init__(stage, overrides)
        self._stream = self.streams[0]

    def crash(self) -> float:
        """Seconds from the end of a query to the next one that runs, less the backoff."""
        stage, known = self.stage, len(self._history())
        query = stage.query(self._stream)
        stage.put_items({**PRICES, "ink": -1})
        stage.land("a", 8)
        self.wait_for("the crash", lambda: not query.isActive)
        crashed = time.time()
        stage.put_items(PRICES)
        self.wait_for("another query", lambda: self._at("restarted", known) is not None)
        # As long as it has not recovered, the next crash would count as one more in a row, with a longer backoff.
        self.wait_for("recovery", lambda: self._at("recovered", known) is not None)
        assert self._at("waiting", known, last=True) == self._at("waiting", known), "it has failed twice"
        failed, restarted = self._at("failed", known), self._at("restarted", known)
        assert failed is not None
        assert restarted is not None
        print(
            f"known after {failed - crashed:.2f} s, running {restarted - failed - BACKOFF:.2f} s after the backoff",
            file=sys.stderr,
            flush=True,
        )
        return restarted - crashed - BACKOFF

    def _history(self) -> list[Any]:
        """What happened to the stream, oldest first."""
        return list(reversed(self.store.history(self._stream, 200)))

    def _at(self, event: str, known: int, *, last: bool = False) -> float | None:
        """When something happened first or last, after so many entries."""
        found = [entry.at for entry in self._history()[known:] if entry.event == event]
        return found[-1 if last else 0] if found else None


def cases() -> Iterator[Case]:
    """All cases; those in this process over one session."""
    with ExitStack() as undo:
        stage = Stage(undo)
        crashing = Crashing(stage)
        yield Case(
            "crash to running again, less the backoff",
            crashing.crash,
            goal=1.0,
            runs=CRASHES,
            setup=crashing.up,
            teardown=crashing.down,
        )
        both = SideBySide(stage)
        yield Case(
            f"commit of {ROWS:,} rows through two streams",
            both.supervised,
            both.bare,
            # 0.97 of the rows in the same time.
            goal=1 / 0.97,
            other_name="Kindling's start_pipe_stream",
            runs=COMMITS,
            warmups=2,
            # A chain's second commit in a row takes 8 percent longer.
            in_turn=True,
            setup=both.up,
            teardown=both.down,
        )
    killed = KilledHosts()
    yield Case(
        "host killed to all streams running",
        killed.kill,
        goal=60.0,
        runs=3,
        warmups=0,
        setup=killed.up,
        before_each=killed.settle,
        teardown=killed.down,
    )
