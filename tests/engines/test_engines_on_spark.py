"""All engines do the same with the same requests; what is particular to the warm one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import psutil
import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from dagster import DagsterInstance, materialize

from kindling_dagster import (
    KindlingProject,
    KindlingResource,
    KindlingSubmitClient,
    PipesEngine,
    WarmEngine,
    kindling_assets,
)
from kindling_dagster.engines.base import (
    Engine,
    LogLine,
    PipeFinished,
    PipeOptions,
    PipeRetrying,
    PipeStarted,
    RunEvent,
    RunOptions,
    RunRequest,
    SignalSeen,
)
from kindling_dagster.engines.in_process import InProcessEngine
from kindling_dagster.engines.warm.client import WarmClient
from kindling_dagster.engines.warm.process import ask
from kindling_dagster.engines.warm.spec import FOLDER_VARIABLE, WarmSpec, places
from kindling_dagster.errors import PlanError, RunError
from kindling_dagster.spark import build_session, session_conf

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

CONF = {"spark.master": "local[2]"}
FOUR = ("land", "clean", "flaky", "after_flaky")
TRIED_TWICE = {"flaky": PipeOptions(attempts=2, backoff=0.01)}


@dataclass(frozen=True)
class Case:
    """What is asked, what the app finds in data/fail, and how the pipes end."""

    name: str
    ended: dict[str, str]
    options: RunOptions = field(default_factory=RunOptions)
    fail: str = ""


CASES = [
    Case("everything is new", dict.fromkeys(FOUR, "succeeded")),
    Case(
        "a pipe fails and its dependents go on",
        {"land": "succeeded", "clean": "succeeded", "flaky": "failed", "after_flaky": "succeeded"},
        RunOptions(error_strategy="continue"),
        fail="column",
    ),
    Case("a pipe is tried again", dict.fromkeys(FOUR, "succeeded"), RunOptions(pipes=TRIED_TWICE), "once"),
    Case(
        "all ends with the first failure",
        {"land": "succeeded", "clean": "succeeded", "flaky": "failed", "after_flaky": "upstream_failed"},
        RunOptions(error_strategy="fail_fast", barrier=True),
        fail="always",
    ),
]


@dataclass
class Side:
    """An engine with an app of its own."""

    engine: Engine
    app: Path

    def run(self, case: Case) -> list[RunEvent]:
        fail = self.app / "data" / "fail"
        fail.unlink(missing_ok=True)
        if case.fail:
            fail.write_text(case.fail)
        return list(self.engine.run(RunRequest(case.name, FOUR, case.options)))


def new_app(folder: Path) -> Path:
    shutil.copytree(Path(__file__).parents[1] / "running" / "app", folder)
    (folder / "data").mkdir()
    (folder / "data" / "orders.csv").write_text("id,item,amount\n1,pen,10\n2,ink,20\n3,pen,30\n")
    (folder / "data" / "calls.txt").touch()
    shutil.copy(Path(__file__).with_name("mess.py"), folder / "shop" / "pipes")
    return folder


@pytest.fixture(scope="module", autouse=True)
def surroundings() -> Iterator[None]:
    # Not in pytest's own folder, whose path can be too long for a socket.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv(FOLDER_VARIABLE, str(Path(folder) / "own"))
        # Kindling starts no app of which a secret is missing.
        patch.setenv("SHOP_SECRET_PATH", "hidden")
        yield
        for place in places(Path(os.environ[FOLDER_VARIABLE])):
            ask(place, {"ask": "stop", "now": True})
            while place.socket.exists():
                time.sleep(0.1)


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


def plain(events: list[RunEvent]) -> dict[str, Any]:
    """What must be equal wherever it ran: all but times, versions, paths and what starting says."""
    ended = [event.result for event in events if isinstance(event, PipeFinished)]
    return {
        "started": Counter(
            (event.pipe_id, event.attempt) for event in events if isinstance(event, PipeStarted)
        ),
        "retries": [
            (event.pipe_id, event.attempt, event.attempts, event.error and event.error.type)
            for event in events
            if isinstance(event, PipeRetrying)
        ],
        "ended": {
            result.pipe_id: (
                result.status,
                result.attempts,
                result.generation,
                result.cause,
                replace(result.error, traceback="", where="") if result.error else None,
                sorted(result.metadata),
            )
            for result in ended
        },
        "signals": Counter(event.name for event in events if isinstance(event, SignalSeen)),
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_engines_agree(local: Side, warm: Side, case: Case) -> None:
    here, there = local.run(case), warm.run(case)
    assert {pipe: str(ended[0].value) for pipe, ended in plain(here)["ended"].items()} == case.ended
    assert plain(there) == plain(here)
    # Each pipe's end is told after its start and before its dependents' starts.
    told = [
        (type(event).__name__, getattr(event, "pipe_id", None) or event.result.pipe_id)
        for event in there
        if isinstance(event, PipeStarted | PipeFinished)
    ]
    assert told.index(("PipeFinished", "land")) < told.index(("PipeStarted", "clean"))


@pytest.mark.parametrize("side", ["local", "warm"])
def test_closing_cancels_and_the_next_run_is_clean(side: str, request: pytest.FixtureRequest) -> None:
    held: Side = request.getfixturevalue(side)
    fail = held.app / "data" / "fail"
    fail.write_text("hang")
    events = held.engine.run(RunRequest("cancelled", FOUR))
    for event in events:
        if isinstance(event, PipeStarted) and event.pipe_id == "flaky":
            break
    # It hangs in Python, which nobody can interrupt, until this lets it go.
    threading.Timer(1.0, fail.unlink).start()
    events.close()
    before = len(list((held.app / "data" / "lake" / "silver" / "flaky" / "_delta_log").glob("*.json")))
    after = held.run(Case("after a cancelled one", dict.fromkeys(FOUR, "succeeded")))
    assert {event.result.status.value for event in after if isinstance(event, PipeFinished)} == {"succeeded"}
    written = len(list((held.app / "data" / "lake" / "silver" / "flaky" / "_delta_log").glob("*.json")))
    assert written <= before + 1


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
    first = warm.engine.run(RunRequest("first", FOUR))
    next(first)
    lines: list[str] = []

    def second() -> None:
        for event in warm.engine.run(RunRequest("second", ("land",))):
            if isinstance(event, LogLine):
                lines.append(event.message)

    thread = threading.Thread(target=second)
    thread.start()
    list(first)
    thread.join(120)
    assert any("Waiting" in line and "first" in line for line in lines)


def test_through_dagster(warm: Side) -> None:
    project = KindlingProject(warm.app)

    @kindling_assets(project=project, select=["silver.orders", "bronze.orders"])
    def shop(context, kindling: KindlingResource):  # type: ignore[no-untyped-def]
        yield from kindling.run(context=context).stream()

    resource = KindlingResource(spark={"spark_config": CONF}, engine=WarmEngine(idle_minutes=15))
    warm.run(Case("up", {}))
    before = pid()
    with DagsterInstance.ephemeral() as instance:
        result = materialize([shop], resources={"kindling": resource}, instance=instance)
        assert len(result.get_asset_materialization_events()) == 2
    assert pid() == before


def test_through_pipes_on_a_driver_of_its_own(warm: Side) -> None:
    """What a warm process writes and tells, a driver under spark-submit writes and tells, too."""
    project = KindlingProject(warm.app)

    @kindling_assets(
        project=project, select=["bronze.orders", "silver.orders", "silver.flaky", "silver.after_flaky"]
    )
    def shop(context, kindling: KindlingResource):  # type: ignore[no-untyped-def]
        yield from kindling.run(context=context).stream()

    def entries(engine: Any) -> tuple[bool, dict[str, list[str]]]:
        resource = KindlingResource(spark={"spark_config": CONF}, engine=engine)
        with DagsterInstance.ephemeral() as instance:
            result = materialize(
                [shop], resources={"kindling": resource}, instance=instance, raise_on_error=False
            )
            events = result.get_asset_materialization_events()
            told = {str(event.asset_key): sorted(event.materialization.metadata) for event in events}
            return result.success, told

    warm.run(Case("all tables are there", {}))
    (warm.app / "data" / "fail").write_text("always")
    client = KindlingSubmitClient("local[1]", {"spark.ui.enabled": "false"})
    assert entries(PipesEngine(client=client)) == entries(WarmEngine()) == (False, ANY)


def test_killed_it_fails_clearly_and_the_next_run_starts_another(warm: Side) -> None:
    (warm.app / "data" / "fail").write_text("hang")
    before = pid()
    children = psutil.Process(before).children(recursive=True)
    events = warm.engine.run(RunRequest("killed", FOUR))
    for event in events:
        if isinstance(event, PipeStarted) and event.pipe_id == "flaky":
            break
    os.kill(before, signal.SIGKILL)
    with pytest.raises(RunError, match="ended in the middle of the run"):
        list(events)
    psutil.wait_procs(children, timeout=30)
    after = warm.run(Case("after a killed one", dict.fromkeys(FOUR, "succeeded")))
    assert {event.result.status.value for event in after if isinstance(event, PipeFinished)} == {"succeeded"}
    assert pid() != before
