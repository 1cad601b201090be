"""A real Spark standalone cluster on this machine: a master and workers from the installed pyspark, on free ports."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil

from kindling_dagster.spark import find_java

Found = TypeVar("Found")

CLUSTER_CONF = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.executor.memory": "512m",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.ui.enabled": "false",
}
"""Spark settings of a small driver and its executors on this machine."""


def wait_for(what: str, look: Callable[[], Found | None], seconds: float = 120) -> Found:
    """Poll until ``look`` gives something; fails with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return found


@contextmanager
def running_cluster(folder: Path) -> Iterator[StandaloneCluster]:
    """A cluster of two workers, ended with the block; also where it did not start whole."""
    cluster = StandaloneCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class StandaloneCluster:
    """A master and its workers, each with one core. ``stop`` ends what was started here, and nothing else.

    Args:
        folder: Where logs, the workers' directories and what executors spill go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, psutil.Popen] = {}
        self.url = ""

    def start(self, workers: int = 2) -> None:
        """Start the master and so many workers, and wait until all have registered."""
        self._launch("master", "master.Master", "--port", "0")
        self.url = self._logged("master", r"Starting Spark master at (spark://\S+)")
        self._logged("master", r"(New state: ALIVE)")
        names = [self._launch_worker() for _ in range(workers)]
        for name in names:
            self._logged(name, r"(Successfully registered with master)")

    def add_worker(self) -> None:
        """Start one more worker, and wait until it has registered."""
        self._logged(self._launch_worker(), r"(Successfully registered with master)")

    def executors(self) -> list[psutil.Process]:
        """The executors of all workers that run."""
        workers = [process for name, process in self._processes.items() if name != "master"]
        children = [child for worker in workers if worker.poll() is None for child in worker.children()]
        # Spark's start script leaves a dead child behind when it becomes the worker.
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]

    def kill_worker(self) -> None:
        """SIGKILL one worker and its executors at once, as if its machine had gone."""
        name = next(name for name in self._processes if name != "master")
        worker = self._processes.pop(name)
        lost = [worker, *worker.children(recursive=True)]
        assert len(lost) > 1, "the worker had no executor to lose"
        for process in lost:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        worker.wait(30)

    def stop(self) -> None:
        """End the workers, their executors and the master; can be called twice."""
        processes = [*self._processes.values()]
        for process in self._processes.values():
            if process.poll() is None:
                processes += process.children(recursive=True)
        self._processes.clear()
        for process in reversed(processes):
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=20)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=20)

    def _launch_worker(self) -> str:
        number = 1 + sum(path.name.startswith("worker") for path in self._folder.glob("*.log"))
        directory = self._folder / f"work{number}"
        arguments = ("-c", "1", "-m", "1g", "-d", str(directory), self.url)
        return self._launch(f"worker{number}", "worker.Worker", *arguments)

    def _launch(self, name: str, daemon: str, *arguments: str) -> str:
        found = importlib.util.find_spec("pyspark")
        assert found is not None
        assert found.origin is not None
        home = Path(found.origin).parent
        command = [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{daemon}"]
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SPARK_")},
            "JAVA_HOME": str(find_java().home),
            "SPARK_HOME": str(home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_DIRS": str(self._folder / "spill"),
            "SPARK_DAEMON_MEMORY": "256m",
        }
        with self._log(name).open("wb") as log:
            # The script becomes the JVM, so the process that is started is the one to be ended.
            self._processes[name] = psutil.Popen(
                [*command, "--host", "127.0.0.1", "--webui-port", "0", *arguments],
                env=environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return name

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _logged(self, name: str, pattern: str) -> str:
        """Wait for a line of a process's log; gives the pattern's group."""

        def look() -> str | None:
            text = self._log(name).read_text(errors="replace")
            found = re.search(pattern, text)
            assert found or self._processes[name].poll() is None, f"{name} ended:\n{text[-4000:]}"
            return found.group(1) if found else None

        return wait_for(f"{name} logs {pattern}", look)
