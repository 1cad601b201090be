"""The supervisor sensor against a real store and a real Dagster instance; a stand-in reports as hosts do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    DagsterInstance,
    DagsterRunStatus,
    Definitions,
    asset,
    build_sensor_context,
    materialize,
)
from stream_apps import STREAMS, Host, open_store, running, shop

from kindling_dagster import sensors
from kindling_dagster.definitions import build_kindling_definitions
from kindling_dagster.project import KindlingProject
from kindling_dagster.sensors import LAUNCH_TAG, Cursor, lost
from kindling_dagster.stream_resources import KindlingStreamsResource
from kindling_dagster.streaming.identity import running_code_version
from kindling_dagster.streaming.model import HostInfo
from kindling_dagster.streaming.processes import machine_id
from kindling_dagster.streaming.rolling import asked_to_end
from kindling_dagster.streaming.store import StreamStore


@dataclass
class World:
    """An app in a Dagster instance, and its store."""

    project: KindlingProject
    instance: DagsterInstance
    store: StreamStore
    defs: Definitions
    cursor: str | None = None

    def tick(self) -> Any:
        sensor = self.defs.resolve_sensor_def("shop_stream_supervisor")
        context = build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"kindling_streams": KindlingStreamsResource(self.project)},
        )
        result = sensor.evaluate_tick(context)
        self.cursor = result.cursor
        return result

    def launch(self) -> str:
        """One tick that asks for a host, and the run that the daemon would make of it."""
        [request] = self.tick().run_requests or []
        run = self.instance.create_run_for_job(
            self.defs.resolve_job_def("shop_stream_host"),
            tags=dict(request.tags),
        )
        return run.run_id

    def start(self, *streams: str) -> None:
        resource = KindlingStreamsResource(self.project, store_url=None)
        resource.client(instance=self.instance).start(streams)
        resource.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> tuple[KindlingProject, Definitions]:
    project = shop(tmp_path_factory.mktemp("app"))
    return project, build_kindling_definitions(project)


@pytest.fixture
def world(
    app: tuple[KindlingProject, Definitions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    monkeypatch.delenv("KINDLING_DAGSTER_STORE_URL", raising=False)
    project, defs = app
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        store = open_store(KindlingStreamsResource(project).url(instance), project)
        yield World(project, instance, store, defs)
        store.close()


def told(result: Any, kind: type) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for event in result.asset_events or []:
        if isinstance(event, kind):
            found.setdefault(event.asset_key.to_user_string(), []).append(event)
    return found


def test_nothing_is_launched_for_nothing(world: World) -> None:
    result = world.tick()
    assert not result.run_requests
    assert "No stream should run." in str(result.skip_message)
    assert not result.asset_events


def test_the_first_host_is_launched_once(world: World) -> None:
    world.start()
    [request] = world.tick().run_requests or []
    assert request.run_key == request.tags[LAUNCH_TAG]
    assert not world.tick().run_requests


def test_a_launch_is_waited_for_and_a_dead_host_replaced(world: World) -> None:
    world.start()
    run_id = world.launch()
    result = world.tick()
    assert not result.run_requests
    assert "is starting" in str(result.skip_message)
    host = Host(world.store, run_id=run_id, started_at=time.time() - 300)
    host.run_all()
    assert "3 of 3 wanted streams run" in str(world.tick().skip_message)
    world.store.renew(host.lease, ttl=0.05)
    time.sleep(0.1)  # the lease ends
    world.instance.report_run_failed(world.instance.get_run_by_id(run_id))  # type: ignore[arg-type]
    [request] = world.tick().run_requests or []
    first, second = world.store.launches()[1], world.store.launches()[0]
    assert (first.attempt, second.attempt, first.run_id) == (1, 2, run_id)
    assert request.run_key == second.key != first.key


def test_a_host_that_dies_after_the_clock_was_set_back_is_replaced(world: World) -> None:
    """The last launch is dated an hour ahead, as seen from now."""
    world.start()
    run_id = world.launch()
    [launch] = world.store.launches()
    world.store.record_launch(replace(launch, at=launch.at + 3_600))
    world.instance.report_run_failed(world.instance.get_run_by_id(run_id))  # type: ignore[arg-type]
    assert "The next host is launched in 10 s" in str(world.tick().skip_message)
    [last, *_] = world.store.launches()
    world.store.record_launch(replace(last, at=last.at - 20))
    assert len(world.tick().run_requests or []) == 1
    assert [found.attempt for found in world.store.launches()][:1] == [2]
    assert not world.tick().run_requests


def test_a_host_whose_process_died_is_replaced_before_its_lease_ends(world: World) -> None:
    world.start()
    run_id = world.launch()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    Host(world.store, run_id=run_id, started_at=time.time() - 300, pid=child.pid, machine=machine_id())
    assert not world.tick().run_requests
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has asked how
    assert world.tick().run_requests
    child.wait()


def test_a_run_whose_process_died_is_reported_as_failed(world: World) -> None:
    world.start()
    run_id = world.launch()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    Host(world.store, run_id=run_id, pid=child.pid, machine=machine_id())
    _started(world.instance, run_id)
    world.tick()
    ended = world.instance.get_run_by_id(run_id)
    assert ended is not None
    assert ended.status is DagsterRunStatus.FAILURE


def _started(instance: DagsterInstance, run_id: str) -> None:
    from dagster import DagsterEvent, DagsterEventType

    run = instance.get_run_by_id(run_id)
    assert run is not None
    event = DagsterEvent(DagsterEventType.RUN_START.value, job_name=run.job_name, message="started")
    instance.report_dagster_event(event, run_id)


def test_new_code_rolls_the_host_once(world: World, tmp_path: Path) -> None:
    world.start()
    run_id = world.launch()
    world.tick()
    old = Host(world.store, run_id=run_id, code_version="older", started_at=time.time() - 300)
    result = world.tick()
    assert not result.run_requests
    assert "code changed" in str(result.skip_message)
    assert "older" in str(asked_to_end(world.store, old.info.host_id))
    world.store.release(old.lease)
    world.instance.report_run_canceled(world.instance.get_run_by_id(run_id))  # type: ignore[arg-type]
    assert world.tick().run_requests
    # The next one has whatever code is there now, and stays.
    new = Host(world.store, run_id="next", code_version="newer still", started_at=time.time() + 1)
    assert not world.tick().run_requests
    assert asked_to_end(world.store, new.info.host_id) is None


def test_the_hosts_code_version_is_the_definitions(world: World) -> None:
    world.start()
    Host(
        world.store,
        run_id="r",
        code_version=running_code_version(world.project),
        started_at=time.time() - 300,
    )
    assert "The host is running" in str(world.tick().skip_message)


def test_streams_are_reported_on_their_assets(world: World) -> None:
    world.start()
    Host(world.store, run_id="r").run_all(backlog_files=3, input_rows_per_second=2.5)
    result = world.tick()
    observed = told(result, AssetObservation)
    assert set(observed) == {"silver/live", "gold/enriched", "silver/clicks"}
    [event] = observed["silver/live"]
    shown = {name: getattr(value, "value", None) for name, value in event.metadata.items()}
    assert shown["kindling/state"] == "running"
    assert (shown["kindling/backlog_files"], shown["kindling/input_rows_per_second"]) == (3, 2.5)
    assert event.metadata["kindling/host_run"].value == "r"
    assert {
        key: beats[0].metadata["kindling/rows"].value
        for key, beats in told(result, AssetMaterialization).items()
    }
    assert all(check.passed for [check] in told(result, AssetCheckEvaluation).values())
    assert not world.tick().asset_events


def test_a_materialization_by_a_run_brings_the_check_along_once(world: World) -> None:
    """Dagster shows the check of the latest materialization alone; the next heartbeat may be minutes away."""
    world.start()
    Host(world.store, run_id="r").run_all()
    first = world.tick()
    for event in first.asset_events:
        world.instance.report_runless_asset_event(event)
    assert told(first, AssetMaterialization)
    assert not world.tick().asset_events, "its own heartbeats are new to nobody"

    @asset(key=["silver", "live"])
    def live() -> None: ...

    for _ in range(2):
        assert materialize([live], instance=world.instance).success
        assert {key: len(checks) for key, checks in told(world.tick(), AssetCheckEvaluation).items()} == {
            "silver/live": 1
        }
        assert not world.tick().asset_events


def test_what_was_told_outlives_the_cursor_and_the_process(world: World) -> None:
    world.start()
    Host(world.store, run_id="r").run_all()
    assert told(world.tick(), AssetMaterialization)
    world.cursor = None
    assert not world.tick().asset_events


def test_one_streams_trouble_does_not_hide_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.start()
    Host(world.store, run_id="r").run_all()
    real = sensors.reports

    def broken(key: AssetKey, view: Any, *rest: Any) -> Any:
        if view.stream_id == "enrich":
            raise ValueError("no idea")
        return real(key, view, *rest)

    monkeypatch.setattr(sensors, "reports", broken)
    result = world.tick()
    assert set(told(result, AssetObservation)) == {"silver/live", "silver/clicks"}
    assert "enrich" in str(result.skip_message)
    failed = told(result, AssetCheckEvaluation)["gold/enriched"][0]
    assert not failed.passed
    assert "no idea" in failed.description


def test_a_tick_without_time_goes_on_where_it_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.start()
    Host(world.store, run_id="r").run_all()
    monkeypatch.setattr(sensors, "_BUDGET_SECONDS", 0.0)
    seen = [set(told(world.tick(), AssetObservation)) for _ in range(4)]
    assert seen == [{"gold/enriched"}, {"silver/clicks"}, {"silver/live"}, set()]
    assert Cursor.from_json(world.cursor).after == "gold/enriched"


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"before": 1}', "null"])
def test_a_cursor_that_cannot_be_read_counts_as_none(text: str | None) -> None:
    assert Cursor.from_json(text) == Cursor()


def test_restarts_of_a_stream_show_at_once(world: World) -> None:
    world.start("follow")
    host = Host(world.store, run_id="r")
    host.report(running("follow"))
    world.tick()
    host.report(replace(running("follow"), restarts=1))
    [event] = told(world.tick(), AssetObservation)["silver/live"]
    assert event.metadata["kindling/restarts"].value == 1


def test_an_unreadable_store_fails_the_tick(world: World, tmp_path: Path) -> None:
    world.store.close()
    Path(KindlingStreamsResource(world.project).url(world.instance).removeprefix("sqlite:///")).write_text(
        "x" * 9_000
    )
    with pytest.raises(Exception, match=r"kindling_streams\.db"):
        world.tick()


NOW = 10_000.0


@pytest.mark.parametrize(
    ("run_id", "started", "host", "dead"),
    [
        ("r", 9_000, HostInfo("h", 1, run_id="r", expires_at=9_990, heartbeat_at=9_980), False),
        ("r", 9_000, HostInfo("h", 1, run_id="r", expires_at=9_800, heartbeat_at=9_780), True),
        ("r", 9_000, HostInfo("h", 1, run_id="other", expires_at=10_010), True),
        ("r", 9_500, HostInfo("h", 1, run_id="other", expires_at=10_010), False),
        # It has just given the lease to another, and is on its way out.
        ("r", 2_000, HostInfo("h", 1, run_id="other", expires_at=10_010, started_at=9_900), False),
        ("r", 2_000, HostInfo("h", 1, run_id="other", expires_at=10_010, started_at=9_000), True),
        ("r", 9_500, None, False),
        ("r", 9_000, None, True),
    ],
)
def test_which_runs_are_lost(run_id: str, started: float, host: HostInfo | None, dead: bool) -> None:
    assert bool(lost(run_id, started, host, NOW)) is dead


def test_a_tick_brings_in_neither_pyspark_nor_a_jvm(tmp_path: Path) -> None:
    """In a process of its own: what is imported cannot be taken back."""
    shop(tmp_path)
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from dagster import DagsterInstance, build_sensor_context
from kindling_dagster import KindlingProject, build_stream_jobs, build_stream_supervisor, KindlingStreamsResource
from kindling_dagster import build_kindling_streaming_assets, build_stream_checks
project = KindlingProject(manifest={str(tmp_path / "manifest.json")!r})
build_kindling_streaming_assets(project), build_stream_checks(project)
sensor = build_stream_supervisor(project, build_stream_jobs(project)[0])
resource = KindlingStreamsResource(project, store_url={f"sqlite:///{tmp_path / 's.db'}"!r})
resource.start()
with DagsterInstance.ephemeral() as instance:
    made = sensor.evaluate_tick(build_sensor_context(instance=instance, resources={{"kindling_streams": resource}}))
print(len(made.run_requests), sorted(m for m in ("pyspark", "py4j", "kindling") if m in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[0] == "1 []", done.stderr[-3000:]


def test_all_streams_of_the_app_have_assets(world: World) -> None:
    graph = world.defs.resolve_asset_graph()
    assert {check.asset_key.to_user_string() for check in graph.asset_check_keys} == {
        "silver/live",
        "gold/enriched",
        "silver/clicks",
    }
    assert len(STREAMS) == 3
