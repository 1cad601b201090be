"""Streams under supervision: how soon a crashed one runs again, and what supervision costs a batch.

One Spark session and one app for both sides. *Crash to running*: a stream is made to fail in a batch; counted is
from the moment its error is known to the moment its next query runs, less the backoff. *Host killed*: SIGKILL of
the host's process under a `dagster dev`, until another host runs all streams. *Throughput*: the same
rows, landed in the same commits, through the same two streams (one appends, one merges what that one wrote),
started by the host's starter and watched by its watchdog and listener, against a bare script that calls
Kindling's ``start_pipe_stream`` on the same pipes.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from benchmarks._stream_stack import KilledHosts
from benchmarks.harness import Case
from kindling_dagster import KindlingProject
from kindling_dagster.runtime import KindlingRuntime
from kindling_dagster.spark import build_session
from kindling_dagster.streaming.fencing import LeaseFence
from kindling_dagster.streaming.host import HostSettings, StreamHost
from kindling_dagster.streaming.identity import store_project
from kindling_dagster.streaming.listener import KindlingStreamingListener
from kindling_dagster.streaming.model import Command, StreamingQueryConfig
from kindling_dagster.streaming.queries import StreamingQueryManager
from kindling_dagster.streaming.starter import StreamStarter
from kindling_dagster.streaming.store import StreamStore, default_store_url
from kindling_dagster.streaming.watchdog import StreamingWatchdog

APP = Path(__file__).parent.parent / "tests" / "faults" / "app"
BACKOFF = 1.0
CRASHES = 5
COMMITS = 8
ROWS = 20_000
STREAMS = ("priced", "clean")
PRICES = {"pen": 3, "ink": 5, "cap": 7, "pad": 11}


class Stage:
    """The app, its session and its store, made once; tables are made anew for each measurement."""

    def __init__(self, undo: ExitStack) -> None:
        self.folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="kindling-streams-")))
        shutil.copytree(APP, self.folder / "app")
        self.project = KindlingProject(self.folder / "app")
        self.spark = build_session({"spark.master": "local[2]", "spark.sql.shuffle.partitions": "2"})
        undo.callback(self.spark.stop)
        self.runtime = undo.enter_context(KindlingRuntime.start(self.project, self.spark))
        self.url = default_store_url(str(self.folder))
        self.store = undo.enter_context(StreamStore.open(self.url, store_project(self.project)))

    def fresh(self) -> None:
        """No tables but the dimension, no checkpoints, nothing known of them."""
        shutil.rmtree(self.folder / "app" / "data", ignore_errors=True)
        # Delta remembers the tables that were at these paths.
        self.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
        self.put_items(PRICES)
        self.land(0)

    def put_items(self, prices: dict[str, int]) -> None:
        """Replace the dimension."""
        items = {"item": list(prices), "price": pa.array(prices.values(), pa.int64())}
        write_deltalake(str(self.folder / "app/data/lake/ref/items"), pa.table(items), mode="overwrite")

    def land(self, commit: int, rows: int = ROWS) -> None:
        """Land one commit of orders."""
        ids = range(commit * rows, (commit + 1) * rows)
        names = list(PRICES)
        frame = {
            "id": pa.array(ids, pa.int64()),
            "item": [names[n % len(names)] for n in ids],
            "amount": pa.array([n % 97 for n in ids], pa.int64()),
        }
        write_deltalake(str(self.folder / "app/data/lake/raw/orders"), pa.table(frame), mode="append")


def drive(stage: Stage, start: Callable[[str], Any]) -> float:
    """Land commit after commit and have both streams take each in; gives the seconds."""
    stage.fresh()
    downstream, upstream = queries = [start(stream_id) for stream_id in STREAMS]
    for query in (upstream, downstream):
        query.processAllAvailable()
    started = time.perf_counter()
    for commit in range(1, COMMITS + 1):
        stage.land(commit)
        for query in (upstream, downstream):
            query.processAllAvailable()
    seconds = time.perf_counter() - started
    for query in queries:
        query.stop()
    return seconds


def supervised(stage: Stage) -> float:
    """Through the host's starter, with manager, watchdog and listener at work."""
    fence = LeaseFence()
    fence.extend(fence.now(), 3600)
    # A part of the store of its own each time: the checkpoints of the last one are gone.
    with StreamStore.open(stage.url, uuid.uuid4().hex) as store:
        starter = StreamStarter(stage.runtime, stage.spark, store, fence)
        manager = StreamingQueryManager(stage.runtime.signals)
        watchdog = StreamingWatchdog(manager, poll_interval=1.0, signals=stage.runtime.signals)

        def start(stream_id: str) -> Any:
            config = StreamingQueryConfig(poll_interval=1.0)
            manager.start_query(stream_id, starter.builder(stream_id, config), config)
            return manager.handle(stream_id)

        watchdog.start()
        try:
            with KindlingStreamingListener(stage.runtime.signals, manager.observe, session=stage.spark):
                return drive(stage, start)
        finally:
            watchdog.stop()


def bare(stage: Stage) -> float:
    """As a script does it."""
    from kindling.injection import get_kindling_service
    from kindling.pipe_streaming import PipeStreamStarter

    starter = get_kindling_service(PipeStreamStarter)
    return drive(stage, lambda stream_id: starter.start_pipe_stream(stream_id, {"query_name": stream_id}))


class Hosted:
    """A whole host over the session that is up, with both streams.

    Args:
        stage: The app and its session.
        overrides: Over the settings of streams.
    """

    def __init__(self, stage: Stage, overrides: Mapping[str, Any] | None = None) -> None:
        self.stage = stage
        self._overrides = overrides
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def up(self) -> None:
        """Start the host and the streams."""
        stage = self.stage
        stage.fresh()
        host = StreamHost(
            stage.project,
            stage.store,
            lambda: stage.spark,
            settings=HostSettings(),
            overrides=self._overrides,
        )
        self._thread = threading.Thread(target=host.run, args=(self._stop,), daemon=True)
        self._thread.start()
        stage.store.submit([Command(uuid.uuid4().hex, "start", each) for each in STREAMS])
        self.wait_for(lambda: all(self._state(each) == "running" for each in STREAMS))

    def down(self) -> None:
        """End the host."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(60)

    def wait_for(self, look: Callable[[], bool], seconds: float = 120) -> None:
        """Look again and again until it is so; raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not look():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the host: {self.stage.store.history(limit=10)}")
            time.sleep(0.02)

    def _state(self, stream_id: str) -> str:
        status = self.stage.store.statuses().get(stream_id)
        return "" if status is None else status.state.value


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
        self._landed = 1

    def crash(self) -> float:
        """Seconds from the known error to the running query, less the backoff, of one crash."""
        stage = self.stage
        known = len(stage.store.history("priced", 200))
        stage.put_items({**PRICES, "ink": -1})
        stage.land(self._landed, 8)
        self._landed += 1
        self.wait_for(lambda: len(stage.store.history("priced", 200)) >= known + 2)
        stage.put_items(PRICES)
        self.wait_for(lambda: self._event(known, "restarted") is not None)
        failed, restarted = self._event(known, "failed"), self._event(known, "restarted")
        assert failed is not None
        assert restarted is not None
        self.wait_for(lambda: self._event(known, "recovered") is not None)
        return restarted - failed - BACKOFF

    def _event(self, known: int, name: str) -> float | None:
        entries = list(reversed(self.stage.store.history("priced", 200)))[known:]
        return next((entry.at for entry in entries if entry.event == name), None)


def cases() -> Iterator[Case]:
    """All cases; those in this process over one session."""
    killed = KilledHosts()
    yield Case(
        "host killed to all streams running",
        killed.kill,
        goal=60.0,
        runs=2,
        warmups=0,
        setup=killed.up,
        before_each=killed.settle,
        teardown=killed.down,
    )
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
        yield Case(
            f"rows through two streams, {COMMITS} commits of {ROWS:,}",
            lambda: supervised(stage),
            lambda: bare(stage),
            # 0.97 of the rows in the same time.
            goal=1 / 0.97,
            other_name="Kindling's start_pipe_stream",
            runs=4,
        )
