"""A soak: many streams, hosts killed and frozen at random, dimensions poisoned; exact tables in the end.

``PYTHONPATH=tests python -m faults.soak --minutes 10 --streams 20 --seed 7``. It prints its seed; exit code 0 means that
every table holds row for row what was landed, and that memory and store stayed bounded.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import psutil
from faults.harness import Flow, Host, flow, wait_for

from kindling_dagster.streaming.model import StreamingQueryState as State

LEASE = 8.0
MEMORY_GROWTH = 1.5
STORE_BYTES = 64 * 1024 * 1024


class Soak:
    """One soak: what may happen, in an order that only the seed decides."""

    def __init__(self, running: Flow, seed: int, minutes: float) -> None:
        self._running = running
        self._random = random.Random(seed)
        self._until = time.monotonic() + minutes * 60
        self._host = self._start()
        self.faults: list[str] = []

    def _start(self) -> Host:
        return self._running.host({"recovery.max_retries": 50, "recovery.max_backoff": 2}, lease=LEASE)

    def run(self) -> None:
        """Land and break until time is up, then compare."""
        running, faults = self._running, (self._kill, self._kill_jvm, self._freeze, self._stop, self._poison)
        running.await_state(State.RUNNING, seconds=300)
        memory = self._memory()
        while time.monotonic() < self._until:
            for _ in range(self._random.randint(5, 30)):
                running.land(self._random.randint(1, 20))
                time.sleep(self._random.uniform(0.05, 0.6))
            fault = self._random.choice(faults)
            self._say(fault.__name__.strip("_"))
            fault()
            wait_for("a host that lives", self._lives, 120)
        running.await_exact(seconds=600)
        running.await_state(State.RUNNING, seconds=120)
        self._say(f"{len(running.orders)} orders, {len(self.faults)} faults; exact")
        self._bounded(memory)
        self._host.signal(signal.SIGTERM)
        assert self._host.wait() == 0, self._host.text()

    def _say(self, what: str) -> None:
        self.faults.append(what)
        print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)

    def _lives(self) -> bool:
        if self._host.process.poll() is not None:
            self._host = self._start()
        host = self._running.store.host()
        return host is not None and host.alive() and host.pid == self._host.process.pid

    def _kill(self) -> None:
        self._host.signal(signal.SIGKILL)
        self._host.wait()

    def _kill_jvm(self) -> None:
        self._host.jvm().kill()
        assert self._host.wait(60) == 4, self._host.text()

    def _freeze(self) -> None:
        """Shorter or longer than the lease."""
        frozen = self._host
        frozen.signal(signal.SIGSTOP)
        time.sleep(self._random.uniform(0.5, 1.6) * LEASE)
        frozen.signal(signal.SIGCONT)
        time.sleep(2)
        if frozen.process.poll() is None and not self._running.store.host().alive():
            assert frozen.wait(60) == 4, frozen.text()

    def _stop(self) -> None:
        self._host.signal(signal.SIGTERM)
        assert self._host.wait() in (0, 4), self._host.text()

    def _poison(self) -> None:
        from faults.harness import PRICES

        self._running.put_items({**PRICES, "ink": -1})
        self._running.land(4)
        time.sleep(self._random.uniform(1, 5))
        self._running.put_items(PRICES)

    def _memory(self) -> int:
        return psutil.Process(self._host.process.pid).memory_info().rss

    def _bounded(self, before: int) -> None:
        now = self._memory()
        print(f"host memory {before // 2**20} → {now // 2**20} MB", flush=True)
        assert now < before * MEMORY_GROWTH + 100 * 2**20
        size = sum(path.stat().st_size for path in self._running.folder.glob("streams.db*"))
        print(f"store {size // 1024} kB", flush=True)
        assert size < STORE_BYTES


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
