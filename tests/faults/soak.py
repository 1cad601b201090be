"""A soak: many streams, hosts killed and frozen at random, a store locked, dimensions poisoned; exact in the end.

``PYTHONPATH=tests python -m faults.soak --minutes 10 --streams 20 --seed 7``. It prints its seed; exit code 0 means that
every table holds row for row what was landed, and that memory and store stayed bounded.
"""

from __future__ import annotations

import argparse
import random
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
from faults.harness import PRICES, Flow, Host, flow, wait_for

from kindling_dagster.streaming.model import StreamingQueryState as State

LEASE = 8.0
START_SECONDS = 900.0
"""How long a machine may take until all streams run: two slow cores start twenty of them in some minutes."""
DRAINED, LOST, NOT_STARTED = 0, 4, 5
"""How a host may end; see ``hosting``."""
QUIET_SECONDS = 60.0
"""Part of the time, at its end, in which nothing is broken: a host that grew would show it."""
QUIET_GROWTH = 40 * 2**20
HOST_BYTES = 400 * 2**20
JVM_BYTES = 2 * 2**30
STORE_BYTES = 64 * 2**20


class Soak:
    """One soak: what may happen, in an order that only the seed decides."""

    def __init__(self, running: Flow, seed: int, minutes: float) -> None:
        self._running = running
        self._random = random.Random(seed)
        self._seconds = minutes * 60
        self._host = self._start()
        self._hosts = 1
        self._peaks = {"host": 0, "JVM": 0, "store": 0}
        self._faults: list[str] = []

    def _start(self) -> Host:
        # Without a trigger each stream would look for rows a hundred times a second.
        overrides = {"recovery.max_retries": 50, "recovery.max_backoff": 2, "trigger": "1 second"}
        return self._running.host(overrides, lease=LEASE)

    def run(self) -> None:
        """Land and break until time is up, then compare."""
        running = self._running
        faults = (self._kill, self._kill_jvm, self._freeze, self._stop, self._lock, self._poison)
        running.await_state(State.RUNNING, seconds=START_SECONDS)
        self._say(f"all {len(running.streams)} streams run")
        until = time.monotonic() + self._seconds - QUIET_SECONDS
        while time.monotonic() < until:
            # Sometimes in the middle of a start, sometimes when all streams have long been running.
            self._land(self._random.uniform(2, 40))
            fault = self._random.choice(faults)
            self._say(fault.__name__.strip("_").replace("_", " "))
            self._faults.append(fault.__name__)
            fault()
            wait_for("a host that lives", self._lives, 120)
        self._quiet()
        wait_for("exact tables", lambda: self._lives() and running.exact(), 600, 1.0)
        running.await_exact()
        running.await_state(State.RUNNING, seconds=120)
        self._say(
            f"{len(running.orders)} orders, {len(self._faults)} faults, {self._hosts} hosts: "
            f"{len(running.tables)} tables exact"
        )
        self._bounded()
        self._host.signal(signal.SIGTERM)
        assert self._host.wait() == DRAINED, self._host.text()

    def _land(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._running.land(self._random.randint(1, 20))
            self._measure()
            time.sleep(self._random.uniform(0.1, 1.0))

    def _quiet(self) -> None:
        """Break nothing more; the host that runs now must not grow."""
        self._say("quiet")
        wait_for("all streams", lambda: self._lives() and self._running.all_run(), START_SECONDS, 1.0)
        self._land(10)
        before = self._memory()
        self._land(QUIET_SECONDS)
        grown = self._memory() - before
        print(f"host memory in {QUIET_SECONDS:.0f} s without faults: {grown / 2**20:+.1f} MB", flush=True)
        assert grown < QUIET_GROWTH

    def _say(self, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)

    def _lives(self) -> bool:
        """Whether the last host lives; starts another when it does not."""
        code = self._host.process.poll()
        if code is not None:
            allowed = (DRAINED, LOST, NOT_STARTED, -signal.SIGKILL)
            assert code in allowed, f"exit code {code}\n{self._host.text()}"
            self._host = self._start()
            self._hosts += 1
        host = self._running.store.host()
        return host is not None and host.alive() and host.pid == self._host.process.pid

    # Faults

    def _kill(self) -> None:
        self._host.signal(signal.SIGKILL)
        self._host.wait()

    def _kill_jvm(self) -> None:
        self._host.jvm().kill()
        assert self._host.wait(60) in (LOST, NOT_STARTED), self._host.text()

    def _freeze(self) -> None:
        """Shorter or longer than the lease."""
        frozen = self._host
        frozen.signal(signal.SIGSTOP)
        time.sleep(self._random.uniform(0.5, 1.6) * LEASE)
        frozen.signal(signal.SIGCONT)
        # It goes on or sees that its lease is over.
        with suppress(psutil.TimeoutExpired):
            psutil.Process(frozen.process.pid).wait(3)

    def _stop(self) -> None:
        self._host.signal(signal.SIGTERM)
        assert self._host.wait() in (DRAINED, LOST), self._host.text()

    def _lock(self) -> None:
        """Shorter or longer than the lease."""
        with closing(sqlite3.connect(self._running.folder / "streams.db", isolation_level=None)) as other:
            other.execute("PRAGMA busy_timeout = 20000")
            other.execute("BEGIN EXCLUSIVE")
            self._land(self._random.uniform(0.2, 1.6) * LEASE)
            other.execute("ROLLBACK")

    def _poison(self) -> None:
        self._running.put_items({**PRICES, "ink": -1})
        self._running.land(4)
        self._land(self._random.uniform(1, 5))
        self._running.put_items(PRICES)

    # What must stay bounded

    def _memory(self) -> int:
        return int(psutil.Process(self._host.process.pid).memory_info().rss)

    def _measure(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self._peak("host", self._memory())
            for child in psutil.Process(self._host.process.pid).children(recursive=True):
                self._peak("JVM", child.memory_info().rss)
        self._peak("store", sum(path.stat().st_size for path in self._running.folder.glob("streams.db*")))

    def _peak(self, what: str, size: int) -> None:
        self._peaks[what] = max(self._peaks[what], size)

    def _bounded(self) -> None:
        print(", ".join(f"{what} {size / 2**20:.1f} MB at most" for what, size in self._peaks.items()))
        assert self._peaks["host"] < HOST_BYTES
        assert self._peaks["JVM"] < JVM_BYTES
        assert self._peaks["store"] < STORE_BYTES


def main() -> int:
    """Run one soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="kindling-soak-") as folder,
        flow(Path(folder), options.streams) as running,
    ):
        running.ask("start")
        Soak(running, options.seed, options.minutes).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
