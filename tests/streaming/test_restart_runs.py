"""Runs that follow the restarts a change has led to: what they drive, log and tell. A stand-in is the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, ExecuteInProcessResult
from dimension_world import POLICY, DimensionWorld
from stream_apps import running

from kindling_dagster import KindlingStreamsResource, restart_runs
from kindling_dagster.restart_runs import down_seconds
from kindling_dagster.streaming.model import Desired
from kindling_dagster.streaming.restarts import CascadeStep
from kindling_dagster.streaming.views import StreamView

CASCADING = replace(POLICY, restarts=replace(POLICY.restarts, cascade="always", timeout=100))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DimensionWorld]:
    monkeypatch.delenv("KINDLING_DAGSTER_STORE_URL", raising=False)
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        made = DimensionWorld(tmp_path, instance, CASCADING)
        monkeypatch.setattr(KindlingStreamsResource, "client", lambda _self, **_: made.client)
        made.tick()
        yield made
        made.store.close()


def launched(world: DimensionWorld) -> dict[str, Any]:
    """A change, and the run configuration that the sensor asks for in its course."""
    world.write_files(2)
    world.tick(1)
    [request] = world.tick(31).run_requests or []
    return dict(request.run_config)


Run = Callable[..., ExecuteInProcessResult]


@pytest.fixture
def run(world: DimensionWorld, monkeypatch: pytest.MonkeyPatch) -> Run:
    def run_with(config: dict[str, Any], meanwhile: Callable[[], None]) -> ExecuteInProcessResult:
        def pause(seconds: float) -> None:
            world.now += seconds
            meanwhile()

        monkeypatch.setattr(restart_runs, "_pause", pause)
        return world.job.execute_in_process(
            run_config=config,
            instance=world.instance,
            resources={"kindling_streams": KindlingStreamsResource(world.project)},
            raise_on_error=False,
        )

    return run_with


def log_of(world: DimensionWorld, run_id: str) -> str:
    return "\n".join(entry.user_message for entry in world.instance.all_logs(run_id))


def observed(world: DimensionWorld, run_id: str) -> list[tuple[str, str]]:
    """The signals that became observations: asset and signal."""
    found = []
    for entry in world.instance.all_logs(run_id):
        if entry.dagster_event is not None and entry.dagster_event.event_type_value == "ASSET_OBSERVATION":
            event = entry.dagster_event.event_specific_data.asset_observation  # type: ignore[union-attr]
            found.append((event.asset_key.to_user_string(), str(event.metadata["kindling/signal"].value)))
    return found


def test_a_run_drives_its_cascade_and_says_what_became_of_each_stream(
    world: DimensionWorld, run: Run
) -> None:
    before = world.generations()
    config = launched(world)
    result = run(config, world.host.run_all)
    assert result.success
    assert world.restarted(before) == {"below": 1, "by_files": 1}
    log = log_of(world, result.run_id)
    assert "by_files: waits for below, which read it." in log
    assert "by_files: asked to restart. ref.rates: its rows changed" in log
    for stream in ("below", "by_files"):
        assert f"{stream}: restarted for ref.rates, down for" in log
    assert log.count("it works on (batch 1)") == 2
    assert [pair for pair in observed(world, result.run_id) if "triggered" in pair[1]] == [
        ("gold/b", "streaming.restart_triggered"),
        ("silver/b", "streaming.restart_triggered"),
    ]
    for asset in ("gold/b", "silver/b"):
        for signal in ("streaming.cascade_restart_started", "streaming.cascade_restart_completed"):
            assert observed(world, result.run_id).count((asset, signal)) == 1
    assert not world.tick(31).run_requests


def test_a_cascade_that_was_over_before_its_run_is_told_all_the_same(world: DimensionWorld, run: Run) -> None:
    config = launched(world)
    for _ in range(3):
        world.host.run_all()
        world.tick(1)
    before = world.generations()
    result = run(config, lambda: None)
    assert result.success
    assert world.restarted(before) == {}
    assert "below: restarted for ref.rates" in log_of(world, result.run_id)


def test_a_second_run_of_the_same_cascade_restarts_nothing(world: DimensionWorld, run: Run) -> None:
    config = launched(world)
    assert run(config, world.host.run_all).success
    before = world.generations()
    assert run(config, world.host.run_all).success
    assert world.restarted(before) == {}


def test_an_unknown_cascade_is_said_to_be_over(world: DimensionWorld, run: Run) -> None:
    config = {"ops": {"shop_restart_streams_ask": {"config": {"changes": "cascade-9@1"}}}}
    result = run(config, lambda: None)
    assert result.success
    assert "cascade-9@1 were over before this run began" in log_of(world, result.run_id)


def test_without_a_host_it_says_so_and_fails_in_the_end(world: DimensionWorld, run: Run) -> None:
    world.store.release(world.host.lease)
    config = launched(world)
    result = run(config, lambda: None)
    assert not result.success
    log = log_of(world, result.run_id)
    assert "No stream host lives." in log
    assert "below: failed, it was not up after 100 s." in log


def test_a_stream_that_makes_no_progress_is_named(world: DimensionWorld, run: Run) -> None:
    config = launched(world)

    def up_without_a_batch() -> None:
        world.host.report(
            *(
                running(id_, generation=desired.generation, batch_id=None, last_progress_at=None)
                for id_, desired in world.store.desired().items()
            )
        )

    result = run(config, up_without_a_batch)
    assert result.success
    assert log_of(world, result.run_id).count("no progress yet.") == 2


def test_people_still_ask_by_it(world: DimensionWorld, run: Run) -> None:
    before = world.generations()
    config = {"ops": {"shop_restart_streams_ask": {"config": {"streams": ["silver.a"], "reason": "because"}}}}
    assert run(config, lambda: None).success
    assert world.restarted(before) == {"by_delta": 1}
    assert world.store.desired()["by_delta"].reason == "because"


@pytest.mark.parametrize(
    ("started", "seconds"), [(104.0, 4.0), (99.0, 7.0), (108.0, 7.0), (None, 7.0)], ids=str
)
def test_how_long_a_stream_was_down(started: float | None, seconds: float) -> None:
    """The new query's start tells it better than when somebody looked."""
    step = CascadeStep("s", (), status="done", asked_at=100.0, ended_at=107.0)
    view = StreamView("s", Desired("s", True), replace(running("s"), started_at=started))
    assert down_seconds(step, view) == seconds
