"""Engines without Dagster: what ends early, and what is particular to the warm one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from engines.warm_folder import own_warm_folder

from kindling_dagster import KindlingProject
from kindling_dagster.engines.base import Engine, LogLine, PipeFinished, PipeStarted, RunEvent, RunRequest
from kindling_dagster.engines.in_process import InProcessEngine
from kindling_dagster.engines.warm.client import WarmClient
from kindling_dagster.engines.warm.process import ask
from kindling_dagster.engines.warm.spec import FOLDER_VARIABLE, WarmSpec, places
from kindling_dagster.errors import PlanError, RunError
from kindling_dagster.spark import build_session, session_conf

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(600)]

CONF = {"spark.master": "local[2]"}
FOUR = ("land", "clean", "flaky", "after_flaky")


@dataclass
class Side:
    """An engine with an app of its own."""

    engine: Engine
    app: Path

    def run(self, run_id: str) -> list[RunEvent]:
        (self.app / "data" / "fail").unlink(missing_ok=True)
        return list(self.engine.run(RunRequest(run_id, FOUR)))


def new_app(folder: Path) -> Path:
    shutil.copytree(Path(__file__).parents[1] / "running" / "app", folder)
    (folder / "data").mkdir()
    (folder / "data" / "orders.csv").write_text("id,item,amount\n1,pen,10\n2,ink,20\n3,pen,30\n")
    (folder / "data" / "calls.txt").touch()
    shutil.copy(Path(__file__).with_name("mess.py"), folder / "shop" / "pipes")
    return folder


@pytest.fixture(scope="module", autouse=True)
def surroundings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, own_warm_folder():
        # Kindling starts no app of which a secret is missing.
        patch.setenv("SHOP_SECRET_PATH", "hidden")
        yield


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Side:
    app = new_app(tmp_path_factory.mktemp("warm") / "app")
    project = KindlingProject(app)
    return Side(WarmClient(lambda: WarmSpec.of(project, session_conf(CONF), {})), app)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    app = new_app(tmp_path_factory.mktemp("local") / "app")
    engine = InProcessEngine(KindlingProject(app), lambda: build_session(CONF))
    yield Side(engine, app)
    engine.close()


def until_started(events: Iterator[RunEvent], pipe: str) -> None:
    for event in events:
        if isinstance(event, PipeStarted) and event.pipe_id == pipe:
            return
    raise AssertionError(f"{pipe} was never started")


@pytest.mark.parametrize("side", ["local", "warm"])
def test_closing_cancels_and_the_next_run_is_clean(side: str, request: pytest.FixtureRequest) -> None:
    held: Side = request.getfixturevalue(side)
    fail = held.app / "data" / "fail"
    fail.write_text("hang")
    events = held.engine.run(RunRequest("cancelled", FOUR))
    until_started(events, "flaky")
    # It hangs in Python, which nobody can interrupt, until this lets it go.
    threading.Timer(1.0, fail.unlink).start()
    events.close()
    before = len(list((held.app / "data" / "lake" / "silver" / "flaky" / "_delta_log").glob("*.json")))
    after = held.run("after a cancelled one")
    assert {event.result.status.value for event in after if isinstance(event, PipeFinished)} == {"succeeded"}
    written = len(list((held.app / "data" / "lake" / "silver" / "flaky" / "_delta_log").glob("*.json")))
    # Kindling makes a missing table with a commit of its own.
    assert written == max(before + 1, 2)


@pytest.mark.parametrize("side", ["local", "warm"])
def test_what_cannot_be_planned_is_said_by_both(side: str, request: pytest.FixtureRequest) -> None:
    held: Side = request.getfixturevalue(side)
    with pytest.raises(PlanError, match="no_such_pipe"):
        list(held.engine.run(RunRequest("unknown", ("no_such_pipe",))))


def pid() -> int:
    answers = [ask(place, {"ask": "status"}) for place in places(Path(os.environ[FOLDER_VARIABLE]))]
    [mine] = [answer["status"] for answer in answers if answer]
    return int(mine["pid"])


def test_runs_do_not_see_each_other(warm: Side) -> None:
    before = pid()
    for pipe in ("plant", "look"):
        events = list(warm.engine.run(RunRequest(pipe, ("land", pipe))))
        assert {event.result.status.value for event in events if isinstance(event, PipeFinished)} == {
            "succeeded"
        }
    found = json.loads((warm.app / "data" / "found.json").read_text())
    wanted = {
        "views": [],
        "cached": [],
        "memory": False,
        "setting": "",
        "function": False,
        "database": "default",
        "group": "Kindling pipe look",
    }
    assert {name: found[name] for name in wanted} == wanted
    assert found["partitions"] != "7"
    # The subscriber heard its own run's commits and none of the next.
    heard = (warm.app / "data" / "heard.txt").read_text()
    list(warm.engine.run(RunRequest("after", ("land", "look"))))
    assert (warm.app / "data" / "heard.txt").read_text() == heard
    assert pid() == before


def test_two_runs_at_once_wait_for_each_other(warm: Side) -> None:
    fail = warm.app / "data" / "fail"
    fail.write_text("hang")
    first = warm.engine.run(RunRequest("first", FOUR))
    # Its first lines can tell that it waits itself, for the last run's session to be put back.
    until_started(first, "flaky")
    waits = threading.Event()
    lines: list[str] = []

    def second() -> None:
        for event in warm.engine.run(RunRequest("second", ("land",))):
            if isinstance(event, LogLine):
                lines.append(event.message)
            waits.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert waits.wait(120)
    fail.unlink()
    list(first)
    thread.join(120)
    assert not thread.is_alive()
    assert any("Waiting" in line and "first" in line for line in lines)


def test_killed_it_fails_clearly_and_the_next_run_starts_another(warm: Side) -> None:
    (warm.app / "data" / "fail").write_text("hang")
    before = pid()
    children = psutil.Process(before).children(recursive=True)
    events = warm.engine.run(RunRequest("killed", FOUR))
    until_started(events, "flaky")
    os.kill(before, signal.SIGKILL)
    with pytest.raises(RunError, match="ended in the middle of the run"):
        list(events)
    psutil.wait_procs(children, timeout=30)
    after = warm.run("after a killed one")
    assert {event.result.status.value for event in after if isinstance(event, PipeFinished)} == {"succeeded"}
    assert pid() != before
