"""Materializing streams, their checks and their jobs in Dagster; a stand-in does what a host would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetSelection,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    materialize,
)
from manifests import manifest, pipe
from stream_apps import SHOP, STREAM, STREAMS, Host, open_store, running, shop

from kindling_dagster import (
    KindlingStreamsResource,
    build_kindling_definitions,
    build_kindling_streaming_assets,
)
from kindling_dagster.errors import CycleError, DeclarationError
from kindling_dagster.project import KindlingProject
from kindling_dagster.streaming.client import StreamsClient
from kindling_dagster.streaming.model import DeadLetter, StreamError, StreamingQueryState, StreamStatus
from kindling_dagster.streaming.store import StreamStore


@dataclass
class World:
    project: KindlingProject
    instance: DagsterInstance
    store: StreamStore
    defs: Definitions

    def materialize(self, *keys: str, seconds: float = 20) -> ExecuteInProcessResult:
        asset = build_kindling_streaming_assets(self.project, start_timeout=seconds)
        return materialize(
            [asset],
            instance=self.instance,
            resources={"kindling_streams": KindlingStreamsResource(self.project)},
            selection=AssetSelection.assets(*[AssetKey(key.split("/")) for key in keys]) if keys else None,
            raise_on_error=False,
        )

    def run(self, job: str, **config: Any) -> ExecuteInProcessResult:
        return self.defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            run_config={"ops": {f"{job}_ask": {"config": config}}},
        )

    @property
    def client(self) -> StreamsClient:
        return StreamsClient(self.store, self.project.manifest)


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


@contextmanager
def hosted(world: World, act: Callable[[Host], None]) -> Iterator[None]:
    """A host that does ``act`` as soon as anything is wanted, again and again."""
    over = threading.Event()

    def live() -> None:
        host = Host(world.store)
        while not over.wait(0.05):
            if world.store.desired():
                act(host)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def failure(result: ExecuteInProcessResult) -> str:
    [event] = result.get_step_failure_events()
    return str(event.event_specific_data.error_display_string)  # type: ignore[union-attr]


def wanted(world: World) -> set[str]:
    return {id_ for id_, desired in world.store.desired().items() if desired.running}


def test_materializing_starts_the_streams_and_says_how_they_are(world: World) -> None:
    with hosted(world, lambda host: host.run_all(rows=42)):
        result = world.materialize("silver/live", "gold/enriched")
    assert result.success
    assert wanted(world) == {"follow", "enrich"}
    events = {event.asset_key: event for event in result.get_asset_materialization_events()}
    assert set(events) == {AssetKey(["silver", "live"]), AssetKey(["gold", "enriched"])}
    shown = events[AssetKey(["silver", "live"])].materialization.metadata
    assert shown["kindling/state"].value == "running"
    assert shown["kindling/rows_total"].value == 42


def test_without_a_host_it_fails_and_says_what_to_look_at(world: World) -> None:
    result = world.materialize("silver/live", seconds=1)
    assert not result.success
    assert "No stream host came within 1 s" in failure(result)
    assert "supervisor sensor" in failure(result)
    assert wanted(world) == {"follow"}


def test_a_stream_that_is_up_is_given_although_another_fails(world: World) -> None:
    def act(host: Host) -> None:
        host.report(running("follow"))
        error = StreamError("AnalysisException", "no such column", time.time(), "permanent")
        world.store.report(
            host.lease, dead_letters=[DeadLetter("enrich", time.time(), 1, (error,), "Mend the pipe.")]
        )

    with hosted(world, act):
        result = world.materialize("silver/live", "gold/enriched")
    assert not result.success
    assert [event.asset_key for event in result.get_asset_materialization_events()] == [
        AssetKey(["silver", "live"])
    ]
    assert "enrich: Dead letter after 1 failures: AnalysisException: no such column" in failure(result)
    assert "Mend the pipe. Then revive it." in failure(result)


def test_a_stream_that_never_gets_on_is_told_apart_from_no_host(world: World) -> None:
    def act(host: Host) -> None:
        host.report(replace(running("alone"), state=StreamingQueryState.STARTING))

    with hosted(world, act):
        result = world.materialize("silver/clicks", seconds=1)
    assert "no progress within 1 s (starting)" in failure(result)


def test_what_an_earlier_host_said_is_not_taken_for_progress(world: World) -> None:
    old = Host(world.store)
    old.report(running("alone"))
    world.store.release(old.lease)
    with hosted(world, lambda host: None):
        result = world.materialize("silver/clicks", seconds=1)
    assert not result.success


def test_a_stream_that_is_stopped_meanwhile_ends_the_wait(world: World) -> None:
    with hosted(world, lambda host: world.client.stop(["alone"])):
        result = world.materialize("silver/clicks")
    assert "asked to stop it in the meantime" in failure(result)


def test_a_stream_that_has_read_all_and_ended_reads_again(world: World) -> None:
    def act(host: Host) -> None:
        generation = world.store.desired()["alone"].generation
        host.report(replace(running("alone", generation=generation), state=StreamingQueryState.STOPPED))

    with hosted(world, act):
        assert world.materialize("silver/clicks").success
        before = world.store.desired()["alone"].generation
        assert world.materialize("silver/clicks").success
    assert world.store.desired()["alone"].generation == before + 1


def test_the_health_check_can_be_run(world: World) -> None:
    world.client.start()
    host = Host(world.store)
    host.report(
        running("follow"), StreamStatus("enrich", StreamingQueryState.FAILED, updated_at=time.time() + 1)
    )
    keys = {
        AssetCheckKey(AssetKey(key.split("/")), "stream_health") for key in ("silver/live", "gold/enriched")
    }
    job = self_check_job(world, keys)
    result = job.execute_in_process(instance=world.instance)
    outcome = {
        check.asset_key.to_user_string(): (check.passed, check.description)
        for check in result.get_asset_check_evaluations()
    }
    assert outcome["silver/live"][0]
    assert not outcome["gold/enriched"][0]
    assert "It failed" in str(outcome["gold/enriched"][1])


def self_check_job(world: World, keys: set[AssetCheckKey]) -> Any:
    from dagster import define_asset_job

    job = define_asset_job("checks", AssetSelection.checks(*keys))
    return Definitions.merge(world.defs, Definitions(jobs=[job])).resolve_job_def("checks")


def test_jobs_ask(world: World) -> None:
    assert world.run("shop_start_streams", streams=["silver.*"], reason="morning").success
    assert wanted(world) == {"follow", "alone"}
    assert world.store.desired()["follow"].reason == "morning"
    assert world.run("shop_start_streams").success
    assert wanted(world) == set(STREAMS)
    before = world.store.desired()
    assert world.run("shop_restart_streams", streams=["follow"], cascade=True).success
    raised = {id_ for id_, now in world.store.desired().items() if now.generation > before[id_].generation}
    assert raised == {"follow", "enrich"}
    assert world.run("shop_stop_streams", streams=["alone"]).success
    assert wanted(world) == {"follow", "enrich"}


def test_a_job_refuses_a_stream_that_is_none(world: World) -> None:
    result = world.run("shop_stop_streams", streams=["folow"])
    assert "Close to it: follow" in failure(result)


def test_the_hosts_run_has_no_limits(world: World) -> None:
    job = world.defs.resolve_job_def("shop_stream_host")
    assert job.tags["dagster/max_runtime"] == "0"
    assert job.tags["dagster/max_retries"] == "0"


@pytest.mark.parametrize(
    ("app", "kind", "says"),
    [
        (manifest(pipe("a", "x.a", "x.b")), DeclarationError, "declares no stream"),
        (
            manifest(pipe("a", "x.a", "x.b", tags=STREAM), pipe("b", "x.a", "x.b")),
            DeclarationError,
            "no stream that has an entity of its own",
        ),
        (
            manifest(pipe("a", "x.a x.b", "x.c", tags=STREAM), pipe("b", "x.c", "x.b")),
            CycleError,
            "a →",
        ),
    ],
)
def test_apps_that_have_no_streaming_assets(
    tmp_path: Path, app: Any, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        build_kindling_streaming_assets(shop(tmp_path, app))


def test_an_app_of_streams_alone_is_whole(tmp_path: Path) -> None:
    app = manifest(*[each for each in SHOP.pipes if each.streaming])
    defs = build_kindling_definitions(shop(tmp_path, app))
    keys = {key.to_user_string() for key in defs.resolve_asset_graph().materializable_asset_keys}
    assert keys == {"silver/live", "gold/enriched", "silver/clicks"}


def test_streams_can_be_left_out(tmp_path: Path) -> None:
    defs = build_kindling_definitions(shop(tmp_path), streams=False)
    keys = {key.to_user_string() for key in defs.resolve_asset_graph().materializable_asset_keys}
    assert keys == {"silver/orders", "gold/report"}
    assert not list(defs.sensors or [])


def test_dependencies_cross_between_batch_and_streams(app: tuple[KindlingProject, Definitions]) -> None:
    graph = app[1].resolve_asset_graph()
    deps = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.materializable_asset_keys
    }
    assert deps["silver/live"] == {"silver/orders", "ref/items"}
    assert deps["gold/report"] == {"gold/enriched"}


@pytest.mark.parametrize(
    ("select", "keys"), [("enrich", {"gold/enriched"}), ("silver.*", {"silver/live", "silver/clicks"})]
)
def test_some_streams_only(app: tuple[KindlingProject, Definitions], select: str, keys: set[str]) -> None:
    asset = build_kindling_streaming_assets(app[0], select=select)
    assert {key.to_user_string() for key in asset.keys} == keys
