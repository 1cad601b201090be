"""The app of the fault tests from outside: land orders, ask for streams, start and kill hosts, compare tables."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from kindling_dagster import KindlingProject
from kindling_dagster.streaming.identity import store_project
from kindling_dagster.streaming.model import Command, StreamingQueryState
from kindling_dagster.streaming.store import StreamStore

APP = Path(__file__).parent / "app"
STREAMS = ("clean", "priced", "history")
ITEMS = ("pen", "ink", "cap", "pad")
PRICES = {"pen": 3, "ink": 5, "cap": 7, "pad": 11}

Found = TypeVar("Found")


def wait_for(what: str, look: Callable[[], Found | None], seconds: float = 120, pause: float = 0.1) -> Found:
    """Poll until ``look`` gives something true; fails with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(pause)
    return found


class Host:
    """A stream host in a process of its own."""

    def __init__(
        self,
        flow: Flow,
        settings: Mapping[str, float],
        overrides: Mapping[str, Any],
        conf: Mapping[str, str],
    ) -> None:
        self.log = flow.folder / f"host-{uuid.uuid4().hex[:6]}.log"
        paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "faults.hosting", str(flow.app), flow.url),
                    *(json.dumps(dict(each)) for each in (settings, overrides, conf)),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                # Its own group, so that what it leaves behind can be ended without touching others.
                start_new_session=True,
                # A background job of a shell ignores SIGINT, and its children with it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    def jvm(self) -> psutil.Process:
        """Spark's JVM."""
        return wait_for("a JVM", lambda: next(iter(self._jvms()), None))

    def _jvms(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if child.name() == "java"]

    def signal(self, number: int) -> None:
        """Send the host's process a signal."""
        self.process.send_signal(number)

    def wait(self, seconds: float = 90) -> int:
        """Wait for its end; gives its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the host has not ended within {seconds} s:\n{self.text()}") from None

    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def clean_up(self) -> None:
        """Leave nothing of it behind."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait(10)


class Flow:
    """One copy of the app with its tables, its store, and its hosts."""

    def __init__(self, folder: Path, streams: int = len(STREAMS)) -> None:
        self.folder = folder
        self.app = folder / "app"
        shutil.copytree(APP, self.app)
        # Further streams are copies of the first that append, each to a table of its own.
        self.copies = tuple(f"copy{number}" for number in range(streams - len(STREAMS)))
        self.streams = (*STREAMS, *self.copies)
        (self.app / "copies.txt").write_text("\n".join(self.copies))
        self.lake = self.app / "data" / "lake"
        self.checkpoints = self.app / "data" / "checkpoints"
        self.url = f"sqlite:///{folder / 'streams.db'}"
        self.store = StreamStore.open(self.url, store_project(KindlingProject(self.app)))
        self.orders: list[tuple[int, str, int]] = []
        self._hosts: list[Host] = []
        self.put_items(PRICES)
        self.land(2)

    # Input

    def land(self, count: int) -> None:
        """Land so many new orders in one commit."""
        first = len(self.orders)
        new = [(n, ITEMS[n % len(ITEMS)], n % 97) for n in range(first, first + count)]
        self.orders += new
        ids, items, amounts = zip(*new, strict=True)
        frame = {
            "id": pa.array(ids, pa.int64()),
            "item": list(items),
            "amount": pa.array(amounts, pa.int64()),
        }
        write_deltalake(str(self.lake / "raw/orders"), pa.table(frame), mode="append")

    def put_items(self, prices: Mapping[str, int]) -> None:
        """Replace the dimension."""
        frame = {"item": list(prices), "price": pa.array(prices.values(), pa.int64())}
        write_deltalake(str(self.lake / "ref/items"), pa.table(frame), mode="overwrite")

    # Streams

    def ask(self, action: Any, *stream_ids: str) -> None:
        """Have something done about streams; all of them when none is named."""
        self.store.submit(
            [
                Command(uuid.uuid4().hex, action, each, "a test", "tests")
                for each in stream_ids or self.streams
            ]
        )

    def state(self, stream_id: str) -> str:
        """Where a stream is, as reported."""
        status = self.store.statuses().get(stream_id)
        return "" if status is None else status.state.value

    def await_state(self, state: StreamingQueryState, *stream_ids: str, seconds: float = 120) -> None:
        """Wait until the streams are reported to be in a state."""
        for each in stream_ids or self.streams:
            try:
                wait_for(f"{each} {state.value}", lambda each=each: self.state(each) == state.value, seconds)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.told()}") from None

    def all_run(self) -> bool:
        """Whether the host that lives has reported that all streams run; what earlier ones said does not count."""
        host, statuses = self.store.host(), self.store.statuses()
        if host is None or not host.alive() or not set(self.streams) <= set(statuses):
            return False
        said = [statuses[each] for each in self.streams]
        return all(
            each.state is StreamingQueryState.RUNNING and each.updated_at >= host.started_at for each in said
        )

    def events(self, stream_id: str) -> list[str]:
        """What happened to a stream, oldest first."""
        return [entry.event for entry in reversed(self.store.history(stream_id, 200))]

    def told(self) -> str:
        """Statuses, history and the hosts' words, for a failure."""
        lines = [repr(status) for status in self.store.statuses().values()]
        lines += [f"{entry.stream_id} {entry.event} {entry.detail}" for entry in self.store.history(limit=40)]
        return "\n".join([*lines, *(host.text()[-3000:] for host in self._hosts)])

    def host(
        self,
        overrides: Mapping[str, Any] | None = None,
        conf: Mapping[str, str] | None = None,
        **settings: float,
    ) -> Host:
        """Start a host: with options of streams, Spark's settings, and settings of the host."""
        made = Host(self, {"lease": 20.0, **settings}, {**QUICK, **(overrides or {})}, conf or {})
        self._hosts.append(made)
        return made

    def mid_batch(self, stream_id: str) -> bool:
        """Whether a batch of the stream has begun and not ended."""
        offsets, commits = (self._batches(stream_id, part) for part in ("offsets", "commits"))
        return offsets > commits

    def _batches(self, stream_id: str, part: str) -> int:
        folder = self.checkpoints / stream_id / part
        names = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()]
        return max(names, default=-1)

    # Output

    def rows(self, table: str, *columns: str) -> Counter[tuple[Any, ...]]:
        """A table's rows, each with how often it is there."""
        if not (self.lake / table / "_delta_log").is_dir():
            return Counter()
        frame = DeltaTable(str(self.lake / table)).to_pyarrow_table(columns=list(columns))
        return Counter(zip(*(frame.column(name).to_pylist() for name in columns), strict=True))

    def expected(self, table: str) -> tuple[tuple[str, ...], Counter[tuple[Any, ...]]]:
        """A table's columns and rows, computed in one go from all that was landed."""
        if table == "gold/priced":
            priced = [(*order, PRICES[order[1]], order[2] * PRICES[order[1]]) for order in self.orders]
            return ("id", "item", "amount", "price", "value"), Counter(priced)
        if table == "gold/history":
            return ("id", "item", "amount", "__is_current"), Counter((*o, True) for o in self.orders)
        return ("id", "item", "amount"), Counter(self.orders)

    @property
    def tables(self) -> tuple[str, ...]:
        """All that streams write."""
        return ("silver/orders", "gold/priced", "gold/history", *(f"silver/{name}" for name in self.copies))

    def exact(self) -> bool:
        """Whether every table holds row for row what a batch computation gives."""
        wanted = ((table, *self.expected(table)) for table in self.tables)
        return all(self.rows(table, *columns) == rows for table, columns, rows in wanted)

    def await_exact(self, *tables: str, seconds: float = 120) -> None:
        """Wait until the tables hold row for row what a batch computation gives; fails on one row too many."""
        for table in tables or self.tables:
            columns, wanted = self.expected(table)
            deadline = time.monotonic() + seconds
            while (have := self.rows(table, *columns)) != wanted:
                more = have - wanted
                assert not more, f"{table} has rows too many: {more}\n{self.told()}"
                missing = (wanted - have).total()
                assert time.monotonic() < deadline, f"{table} lacks {missing} rows\n{self.told()}"
                time.sleep(0.2)

    def close(self) -> None:
        """End what is left of the hosts."""
        for host in self._hosts:
            host.clean_up()
        self.store.close()


QUICK = {
    "recovery.initial_backoff": 0.2,
    "recovery.max_retries": 2,
    "recovery.stable_after": 2,
    "poll_interval": 2,
}
"""Stream options by which a test need not wait."""


@contextmanager
def flow(folder: Path, streams: int = len(STREAMS)) -> Iterator[Flow]:
    """A flow, of which nothing is left running in the end."""
    made = Flow(folder, streams)
    try:
        yield made
    finally:
        made.close()
