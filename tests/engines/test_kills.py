"""SIGKILL at random points of whatever takes part in a run: no row lost or doubled, and the next run is green.

Twenty rounds in all. Each lands rows, launches a run in a process of its own, kills, waits for the end, and launches
another run, which nobody helps. The seed is printed; KINDLING_DAGSTER_SEED sets it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster.standalone import StandaloneCluster, running_cluster, wait_for
from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus
from deltalake import DeltaTable
from engines.engine_jobs import FOLLOWED, new_app

from kindling_dagster.engines.warm.spec import FOLDER_VARIABLE
from kindling_dagster.lineage.commits import commit_lineage
from kindling_dagster.manifest_cache import CACHE_VARIABLE

pytestmark = [pytest.mark.spark, pytest.mark.faults, pytest.mark.timeout(1800)]

SEED = int(os.environ.get("KINDLING_DAGSTER_SEED") or random.SystemRandom().randrange(2**32))
HEADER = "id,item,amount\n"
ITEMS = ("pen", "ink", "cap")
END_SECONDS = 240.0
LEFT_SECONDS = 60.0
JOB = "remote/__main__.py"
WARM = "kindling_dagster.engines.warm"

Row = tuple[int, str, int]


class Shop:
    """The app, Dagster's instance, and all processes that a run of it starts, by the instance's home.

    Args:
        folder: Where it all lies; a short path, for sockets.
        engine: Which engine its runs use.
        master: Spark's master, for drivers of their own.
    """

    def __init__(self, folder: Path, engine: str, master: str = "local[2]") -> None:
        self.landed: list[Row] = []
        self._engine = engine
        self._master = master
        self._app = new_app(folder / "app", HEADER)
        self._home = folder / "home"
        self._home.mkdir()
        # No telemetry: it starts a process that outlives the run.
        (self._home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        self._log = folder / "runs.log"
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "DAGSTER_HOME": str(self._home),
            "SHOP_SECRET_PATH": str(folder / "hidden"),
            FOLDER_VARIABLE: str(folder / "warm"),
            CACHE_VARIABLE: str(folder / "cache"),
        }

    def land(self, rows: int) -> None:
        """Append rows to the file that the first pipe reads."""
        first = len(self.landed)
        new = [(number, ITEMS[number % 3], number % 7 * 10) for number in range(first, first + rows)]
        with (self._app / "data" / "orders.csv").open("a") as file:
            file.writelines(f"{number},{item},{amount}\n" for number, item, amount in new)
        self.landed += new

    def launch(self) -> subprocess.Popen[bytes]:
        """Start a run's worker."""
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "engines.engine_jobs", str(self._app), self._engine, self._master],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """All that belong to it, however they were started."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("DAGSTER_HOME") == str(self._home):
                    found.append(process)
        return found

    def left(self) -> list[str]:
        """What still runs and is not meant to outlive a run."""
        kept = {process.pid for process in self.warm()}
        with suppress(psutil.Error):
            # Python's workers, which Spark keeps for the next run.
            kept |= {child.pid for each in self.warm() for child in each.children(recursive=True)}
        return [
            text for process in self.processes() if process.pid not in kept and (text := _command(process))
        ]

    def warm(self) -> list[psutil.Process]:
        """The warm process and its JVM."""
        found = [process for process in self.processes() if WARM in _command(process)]
        with suppress(psutil.Error):
            found += [child for process in found for child in process.children() if child.name() == "java"]
        return found

    def driver(self) -> list[psutil.Process]:
        """The job's driver, Python and JVM."""
        return [
            process
            for process in self.processes()
            if JOB in _command(process) and _name(process).startswith(("python", "java"))
        ]

    def last_run(self) -> DagsterRun:
        with self._instance() as instance:
            return instance.get_runs(limit=1)[0]

    def materialized(self, run_id: str) -> Counter[str]:
        with self._instance() as instance:
            found = instance.get_records_for_run(
                run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION
            ).records
        return Counter("/".join(record.asset_key.path) for record in found if record.asset_key)

    def _instance(self) -> DagsterInstance:
        return DagsterInstance.from_config(str(self._home))

    def committed(self, run_id: str) -> set[str]:
        """The tables that hold a commit of this run with rows, by their own logs."""
        return {
            key
            for key in FOLLOWED
            if (table := self._table(key)) is not None
            for commit in table.history()
            if (written := commit_lineage(commit.get("userMetadata") or "", key.replace("/", ".")))
            and written.run_id == run_id
            and not (commit["version"] == 0 and _rows_of(commit) == 0)
        }

    def _table(self, key: str) -> DeltaTable | None:
        path = str(self._app / "data" / "lake" / key)
        return DeltaTable(path) if DeltaTable.is_deltatable(path) else None

    def check(self) -> None:
        """All tables hold what has landed, every row once."""
        wanted = sorted(self.landed)
        clean = [row for row in wanted if row[2] > 0]
        for key, rows in (("bronze/orders", wanted), ("silver/orders", clean), ("silver/delta", wanted)):
            table = self._table(key)
            assert table is not None, f"{key} is not there\n{self.log()}"
            held = table.to_pyarrow_table().to_pylist()
            assert sorted((row["id"], row["item"], row["amount"]) for row in held) == rows, key

    def log(self) -> str:
        """The end of what runs have printed."""
        return self._log.read_text(errors="replace")[-6000:]

    def end(self) -> None:
        """End whatever is left of it."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def _rows_of(commit: dict[str, Any]) -> int:
    return int((commit.get("operationMetrics") or {}).get("numOutputRows", 0))


@dataclass(frozen=True)
class Target:
    """What is killed, of runs on which engine, and how often."""

    name: str
    engine: str
    rounds: int

    def __str__(self) -> str:
        return f"{self.name}, {self.engine}"


TARGETS = (
    Target("run worker", "in_process", 2),
    Target("run worker", "warm", 3),
    Target("run worker", "pipes", 2),
    Target("driver", "pipes", 5),
    Target("executor", "pipes", 4),
    Target("warm process", "warm", 4),
)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StandaloneCluster | None]:
    """A master and two workers, where executors are to be killed."""
    if request.getfixturevalue("target").name != "executor":
        yield None
        return
    with running_cluster(tmp_path) as started:
        yield started


@pytest.fixture
def shop(target: Target, cluster: StandaloneCluster | None) -> Iterator[Shop]:
    with tempfile.TemporaryDirectory(prefix="kills", ignore_cleanup_errors=True) as folder:
        made = Shop(Path(folder), target.engine, cluster.url if cluster else "local[2]")
        try:
            yield made
        finally:
            made.end()


def victims(
    target: Target, shop: Shop, cluster: StandaloneCluster | None, worker: subprocess.Popen[bytes]
) -> list[psutil.Process]:
    """What could be killed now."""
    if target.name == "run worker":
        return [psutil.Process(worker.pid)]
    if target.name == "executor":
        assert cluster is not None
        return cluster.executors()
    return shop.driver() if target.name == "driver" else shop.warm()


def await_first(worker: subprocess.Popen[bytes], look: Callable[[], list[psutil.Process]]) -> float | None:
    """Wait until there is somebody to kill; gives when that was, None where the run ended before."""
    while worker.poll() is None:
        with suppress(psutil.Error):
            if look():
                return time.monotonic()
        time.sleep(0.1)
    return None


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_kill_costs_no_row_and_no_hand(
    target: Target, shop: Shop, cluster: StandaloneCluster | None
) -> None:
    points = random.Random(f"{SEED} {target}")
    print(f"KINDLING_DAGSTER_SEED={SEED}")
    span = 0.0
    # The first run on a warm process starts it, and says nothing of how long the others take.
    for _ in range(2 if target.engine == "warm" else 1):
        shop.land(5)
        worker = shop.launch()
        began = await_first(worker, lambda worker=worker: victims(target, shop, cluster, worker))  # type: ignore[misc]
        assert (began is not None, worker.wait(END_SECONDS)) == (True, 0), shop.log()
        span = time.monotonic() - (began or 0.0)
        shop.check()
    done = 0
    while done < target.rounds:
        shop.land(4)
        worker = shop.launch()
        began = await_first(worker, lambda worker=worker: victims(target, shop, cluster, worker))  # type: ignore[misc]
        delay = points.uniform(0, span)
        with suppress(subprocess.TimeoutExpired):
            worker.wait(delay)
        found = victims(target, shop, cluster, worker) if worker.poll() is None else []
        if found:
            victim = points.choice(found)
            print(f"{target}: killed {_name(victim)} after {delay:.2f} of {span:.2f} s")
            victim.kill()
            done += 1
        # It ends by itself, whoever was killed.
        code = worker.wait(END_SECONDS)
        if target.name != "run worker":
            the_run_was_told_of(shop, target, code)
        assert shop.launch().wait(END_SECONDS) == 0, shop.log()
        shop.check()
        wait_for(f"nothing is left of the runs but {shop.left()}", lambda: not shop.left(), LEFT_SECONDS)


def the_run_was_told_of(shop: Shop, target: Target, code: int) -> None:
    """Its worker lived to tell: what it says is true, said once, and the run is over."""
    run = shop.last_run()
    assert run.status is (DagsterRunStatus.SUCCESS if code == 0 else DagsterRunStatus.FAILURE), shop.log()
    told = shop.materialized(run.run_id)
    assert set(told.values()) <= {1}, told
    committed = shop.committed(run.run_id)
    assert set(told) <= committed
    if target.name == "executor":
        # Spark runs the tasks again on what is left, or comes: the run notices nothing.
        assert code == 0, shop.log()
    if target.name in ("driver", "executor"):
        # A commit whose answer was on its way when the JVM died was told as a failure; it stands all the same.
        assert len(committed - set(told)) <= 1


@pytest.mark.parametrize("target", [Target("idle JVM", "warm", 1)], ids=str)
def test_a_jvm_that_dies_between_runs_costs_none(shop: Shop) -> None:
    shop.land(5)
    assert shop.launch().wait(END_SECONDS) == 0, shop.log()
    (python, jvm) = shop.warm()
    jvm.kill()
    shop.land(4)
    assert shop.launch().wait(END_SECONDS) == 0, shop.log()
    shop.check()
    assert python.pid not in {process.pid for process in shop.warm()}
