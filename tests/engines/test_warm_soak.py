"""Two hundred runs through one warm process: it does not grow, and no run finds anything of the one before."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import psutil
import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from engines.engine_jobs import new_app
from engines.warm_folder import own_warm_folder

from kindling_dagster import KindlingProject
from kindling_dagster.engines.base import PipeFinished, RunRequest
from kindling_dagster.engines.warm.client import WarmClient
from kindling_dagster.engines.warm.process import ask
from kindling_dagster.engines.warm.spec import FOLDER_VARIABLE, WarmSpec, places
from kindling_dagster.spark import session_conf

pytestmark = [pytest.mark.spark, pytest.mark.faults, pytest.mark.timeout(1200)]

RUNS = 200
EVERY = 20
MIB = 2**20
# How much more it may hold in the last four measurements than in the first four, 100 runs before, on average. A tenth of
# a MiB that each run left would show. Single measurements of the heap differ by 20 MiB, every second one being the
# larger: Spark keeps its last fifty jobs and queries, and what these hold depends on where in the pattern they are.
GROWTH = {"python": 8 * MIB, "heap": 8 * MIB, "jvm": 24 * MIB, "threads": 5}
CONF = {
    "spark.master": "local[2]",
    "spark.driver.memory": "512m",
    # The whole heap is there from the start, so that the JVM's resident memory grows with what lies beside it only.
    "spark.driver.extraJavaOptions": "-Xms512m -XX:+AlwaysPreTouch",
}
LANDED = "id,item,amount\n1,pen,10\n2,ink,20\n3,pen,30\n"


@dataclass(frozen=True)
class Weight:
    """What the process holds after so many runs: bytes, and threads of the JVM.

    ``python`` and ``jvm`` are resident; ``heap`` is what is left of the JVM's heap when its garbage is gone.
    """

    python: int
    jvm: int
    heap: int
    threads: int


class Warm:
    """A warm process with an app of its own."""

    def __init__(self, app: Path) -> None:
        self.app = app
        project = KindlingProject(app)
        self._client = WarmClient(lambda: WarmSpec.of(project, session_conf(CONF), {}))

    def run(self, number: int, *pipes: str) -> None:
        events = list(self._client.run(RunRequest(f"run {number}", pipes)))
        ended = [event.result for event in events if isinstance(event, PipeFinished)]
        assert [result.status.value for result in ended] == ["succeeded"] * len(pipes), ended

    def pid(self) -> int:
        (place,) = places(Path(os.environ[FOLDER_VARIABLE]))
        answer = ask(place, {"ask": "status"})
        assert answer is not None
        return int(answer["status"]["pid"])

    def weigh(self, number: int) -> Weight:
        self.run(number, "weigh")
        held = json.loads((self.app / "data" / "held.json").read_text())
        process = psutil.Process(self.pid())
        (jvm,) = [child for child in process.children() if child.name() == "java"]
        return Weight(process.memory_info().rss, jvm.memory_info().rss, held["heap"], held["threads"])


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Warm]:
    with own_warm_folder() as folder:
        monkeypatch.setenv("SHOP_SECRET_PATH", str(folder / "hidden"))
        app = new_app(folder / "app", LANDED)
        shutil.copy(Path(__file__).with_name("mess.py"), app / "shop" / "pipes")
        yield Warm(app)


def test_two_hundred_runs_leave_it_as_it_was(warm: Warm) -> None:
    weights: dict[int, Weight] = {}
    warm.run(0, "land", "clean")
    first = warm.pid()
    started = time.monotonic()
    for number in range(1, RUNS + 1):
        if number % EVERY == 0:
            weights[number] = warm.weigh(number)
            print(f"run {number}, {time.monotonic() - started:.0f} s: {weights[number]}", flush=True)
        elif number % 10 == 5:
            warm.run(number, "plant")
        elif number % 10 == 6:
            warm.run(number, "look")
            assert nothing_was_found(warm)
        else:
            # Most write no table, which takes a fraction of the time, and leave a view to be taken away.
            warm.run(number, "clean" if number % 4 == 0 else "recent")
    assert warm.pid() == first
    # The subscriber that each planting left heard its own run's commit alone.
    assert (warm.app / "data" / "heard.txt").read_text() == "x" * (RUNS // 10)
    # The first twenty runs make the process what it is; as many large as small ones are on both sides.
    measured = [weights[number] for number in sorted(weights)][1:]
    for name, most in GROWTH.items():
        before, after = (
            mean(getattr(weight, name) for weight in part) for part in (measured[:4], measured[-4:])
        )
        assert after - before <= most, (name, before, after)


def nothing_was_found(warm: Warm) -> bool:
    found = json.loads((warm.app / "data" / "found.json").read_text())
    wanted = {
        "views": [],
        "cached": [],
        "memory": False,
        "setting": "",
        "function": False,
        "database": "default",
    }
    return {name: found[name] for name in wanted} == wanted and found["partitions"] != "7"
