"""The dimension sensor over real tables and a real store: what it sees, tells, and has restarted. No Spark."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance
from deltalake import DeltaTable
from dimension_world import POLICY, DimensionWorld, told

from kindling_dagster import KindlingResource, KindlingStreamsResource, read_signals
from kindling_dagster.dimension_events import problem_mark
from kindling_dagster.dimension_sensor import DimensionCursor
from kindling_dagster.manifest import Location
from kindling_dagster.streaming.client import StreamsClient
from kindling_dagster.streaming.dimensions.model import DimensionLook, DimensionProblem
from kindling_dagster.streaming.model import DeadLetter, StreamingQueryState, StreamStatus
from kindling_dagster.streaming.store import StoreUnavailable, StreamStore
from kindling_dagster.streaming.watched import DimensionPolicy, WatchedDimensions


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., DimensionWorld]]:
    monkeypatch.delenv("KINDLING_DAGSTER_STORE_URL", raising=False)
    made: list[DimensionWorld] = []
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:

        def build(**options: Any) -> DimensionWorld:
            world = DimensionWorld(tmp_path, instance, **options)
            monkeypatch.setattr(KindlingStreamsResource, "client", lambda _self, **_: world.client)
            made.append(world)
            return world

        yield build
        for world in made:
            world.store.close()


@pytest.fixture
def world(make: Callable[..., DimensionWorld]) -> DimensionWorld:
    made = make()
    made.tick()
    return made


def test_the_first_look_says_what_is_watched_and_later_ones_nothing(
    make: Callable[..., DimensionWorld],
) -> None:
    world = make()
    first = told(world.tick())
    assert set(first) == {"ref/planes", "ref/rates", "ref/zones", "ref/session"}
    assert "Watched from now on (version) for by_delta" in first["ref/planes"]
    assert "no stream host has looked at it yet" in first["ref/session"]
    again = world.tick(30)
    assert told(again) == {}
    assert not again.run_requests
    assert "4 of 4 dimensions looked at, 0 changed, 1 cannot be looked at." in str(again.skip_message)


def test_tables_elsewhere_are_read_with_the_resources_storage_options(
    make: Callable[..., DimensionWorld],
) -> None:
    world = make(kindling=KindlingResource(storage_options={"key": "s3cr3t"}))
    assert "ref/planes" in told(world.tick())
    app = world.project.manifest
    far = replace(app.entities_by_id["ref.planes"], location=Location("path", "s3://lake/planes"))
    watched = WatchedDimensions(
        replace(app, entities=tuple(far if item.id == far.id else item for item in app.entities))
    )
    given = watched.with_storage({"key": "s3cr3t"})
    assert {id_ for id_, item in given.items() if item.storage_options} == {"ref.planes"}
    assert "s3cr3t" not in repr(given)


def change_files(world: DimensionWorld) -> None:
    world.write_files(2)


def append_delta(world: DimensionWorld) -> None:
    world.write_delta("ref.planes")


def widen_delta(world: DimensionWorld) -> None:
    world.write_delta("ref.planes", country=["x", "y"])


def optimize_delta(world: DimensionWorld) -> None:
    append_delta(world)
    world.tick()  # the data's change is told here
    DeltaTable(str(world.lake / "ref.planes")).optimize.compact()


def replace_delta(world: DimensionWorld) -> None:
    shutil.rmtree(world.lake / "ref.planes")
    world.write_delta("ref.planes")


def restore_delta(world: DimensionWorld) -> None:
    append_delta(world)
    world.tick()
    DeltaTable(str(world.lake / "ref.planes")).restore(0)


@pytest.mark.parametrize(
    ("act", "asset", "words", "streams"),
    [
        (change_files, "ref/rates", "To restart: by_files.", {"by_files"}),
        (append_delta, "ref/planes", "Reported only: no stream restarts.", set()),
        (widen_delta, "ref/planes", "To restart: by_delta.", {"by_delta"}),
        (optimize_delta, None, "", set()),
        (replace_delta, "ref/planes", "To restart: by_delta.", {"by_delta"}),
        (restore_delta, "ref/planes", "by RESTORE", set()),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_change_restarts_those_that_need_it_and_only_those(
    world: DimensionWorld, act: Any, asset: str | None, words: str, streams: set[str]
) -> None:
    before = world.generations()
    act(world)
    seen = told(world.tick(30))
    assert set(seen) == ({asset} if asset else set())
    assert words in "".join(seen.values())
    result = world.tick(31)
    assert world.restarted(before) == dict.fromkeys(streams, 1)
    assert len(result.run_requests or []) == bool(streams)
    for _ in range(3):
        world.host.run_all()
        later = world.tick(120)
        assert not later.run_requests
        assert told(later) == {}
    assert world.restarted(before) == dict.fromkeys(streams, 1)


def test_an_observation_says_why_and_carries_the_signal(world: DimensionWorld) -> None:
    world.write_delta("ref.planes")
    [event] = world.tick(30).asset_events
    assert event.metadata["kindling/operations"].value == "WRITE"
    assert event.metadata["kindling/version"].value == 1
    [row] = event.metadata["kindling/restarts"].value.records
    assert (row.data["stream"], row.data["restart"], row.data["policy"]) == ("by_delta", False, "auto")
    assert "a Delta table is read anew with every micro-batch" in row.data["reason"]
    world.instance.report_runless_asset_event(event)
    [signal] = read_signals(world.instance, AssetKey(["ref", "planes"])).records
    assert signal.payload.signal == "streaming.dimension_changed"
    assert (signal.payload.entity_id, signal.payload.change) == ("ref.planes", "data")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("policy", "act", "streams"),
    [("never", change_files, set()), ("always", append_delta, {"by_delta"})],
    ids=["never", "always"],
)
def test_a_policy_for_all(
    make: Callable[..., DimensionWorld], policy: Any, act: Any, streams: set[str]
) -> None:
    world = make(policy=DimensionPolicy(restart=policy, restarts=POLICY.restarts))
    world.tick()
    before = world.generations()
    act(world)
    world.tick(30)
    world.tick(31)
    assert world.restarted(before) == dict.fromkeys(streams, 1)


def test_fifty_changes_within_the_delay_are_one_restart_and_one_run(world: DimensionWorld) -> None:
    before, requests = world.generations(), []
    for number in range(50):
        world.write_files(number + 2)
        requests += world.tick(0.5).run_requests or []
    assert world.restarted(before) == {}
    for _ in range(4):
        requests += world.tick(31).run_requests or []
        world.host.run_all()
    assert world.restarted(before) == {"by_files": 1}
    assert len(requests) == 1


def test_changes_during_a_restart_are_exactly_one_more(world: DimensionWorld) -> None:
    before, keys = world.generations(), []
    world.write_files(2)
    for seconds in (1, 31):
        keys += [request.run_key for request in world.tick(seconds).run_requests or []]
    for number in range(3):  # the host has not restarted it yet
        world.write_files(number + 5)
        keys += [request.run_key for request in world.tick(5).run_requests or []]
    for _ in range(6):
        world.host.run_all()
        keys += [request.run_key for request in world.tick(40).run_requests or []]
    assert world.restarted(before) == {"by_files": 2}
    assert len(keys) == len(set(keys)) == 2


def test_a_consumer_is_up_before_its_producer_restarts(make: Callable[..., DimensionWorld]) -> None:
    world = make(policy=replace(POLICY, restarts=replace(POLICY.restarts, cascade="always")))
    world.tick()
    before = world.generations()
    world.write_files(2)
    world.tick(1)
    world.tick(31)
    assert world.restarted(before) == {"below": 1}
    world.tick(5)
    assert world.restarted(before) == {"below": 1}
    world.host.run_all()
    world.tick(5)
    assert world.restarted(before) == {"below": 1, "by_files": 1}


def test_without_a_host_the_restart_is_written_down_and_said(world: DimensionWorld) -> None:
    world.store.release(world.host.lease)
    before = world.generations()
    world.write_files(2)
    assert "No stream host lives" in told(world.tick(1))["ref/rates"]
    assert world.tick(31).run_requests
    assert world.restarted(before) == {"by_files": 1}


def test_streams_that_are_not_meant_to_run_get_no_run(world: DimensionWorld) -> None:
    world.client.stop(["by_files"])
    before = world.generations()
    world.write_files(2)
    result = world.tick(1)
    assert "by_files is left alone: it is not meant to run." in told(result)["ref/rates"]
    assert not result.run_requests
    assert not world.tick(31).run_requests
    assert world.restarted(before) == {}


def test_a_dead_letter_is_left_alone(world: DimensionWorld) -> None:
    world.store.report(
        world.host.lease,
        statuses=[StreamStatus("by_files", StreamingQueryState.DEAD_LETTER)],
        dead_letters=[DeadLetter("by_files", world.now, 5)],
    )
    before = world.generations()
    world.write_files(2)
    assert "by_files is left alone: it is a dead letter." in told(world.tick(1))["ref/rates"]
    assert not world.tick(31).run_requests
    assert world.restarted(before) == {}


def corrupt(world: DimensionWorld) -> None:
    log = world.lake / "ref.planes" / "_delta_log"
    (log / f"{1:020}.json").write_text("{ not json")


def remove(world: DimensionWorld) -> None:
    shutil.move(world.lake / "ref.planes", world.lake / "elsewhere")


@pytest.mark.parametrize(("act", "kind"), [(corrupt, "corrupt"), (remove, "missing")])
def test_a_table_in_trouble_is_told_once_and_hides_no_other(
    world: DimensionWorld, act: Any, kind: str
) -> None:
    before = world.generations()
    act(world)
    world.write_files(2)
    result = world.tick(1)
    problems = {
        event.asset_key.to_user_string(): event.metadata["kindling/problem"].value
        for event in result.asset_events
        if "kindling/problem" in event.metadata
    }
    assert problems == {"ref/planes": kind}
    assert "To restart: by_files." in told(result)["ref/rates"]
    world.tick(31)
    assert world.restarted(before) == {"by_files": 1}
    assert told(world.tick(30)) == {}
    if kind == "missing":
        shutil.move(world.lake / "elsewhere", world.lake / "ref.planes")
        assert told(world.tick(30)) == {"ref/planes": "Can be looked at again; nothing changed meanwhile."}
        assert world.restarted(before) == {"by_files": 1}


def test_a_table_that_was_never_there_is_trouble_only_once_a_stream_needs_it(
    make: Callable[..., DimensionWorld],
) -> None:
    world = make()
    shutil.move(world.lake / "ref.planes", world.lake / "elsewhere")
    world.client.stop(["by_delta"])
    assert "ref/planes" not in told(world.tick())
    world.client.start(["by_delta"])
    assert "Cannot be looked at: ref.planes" in told(world.tick(30))["ref/planes"]
    shutil.move(world.lake / "elsewhere", world.lake / "ref.planes")
    assert "Watched from now on" in told(world.tick(30))["ref/planes"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_table_that_may_not_be_read(world: DimensionWorld) -> None:
    (world.lake / "ref.planes").chmod(0)
    try:
        [event] = world.tick(1).asset_events
    finally:
        (world.lake / "ref.planes").chmod(0o755)
    assert event.metadata["kindling/problem"].value == "permission"


@pytest.mark.parametrize("crash_in", ["put_document", "submit", "put_fingerprint"])
def test_a_crash_at_any_write_leads_to_one_restart(
    world: DimensionWorld, monkeypatch: pytest.MonkeyPatch, crash_in: str
) -> None:
    """Before and after the write: what was asked for is asked for once, and nothing is lost."""
    before = world.generations()
    world.write_files(2)
    keys: set[str | None] = set()
    crashes: list[str] = []
    for done_first in (False, True):
        real = getattr(StreamStore, crash_in)

        def crash(
            store: StreamStore, *args: Any, real: Any = real, first: bool = done_first, **kw: Any
        ) -> None:
            if first:
                real(store, *args, **kw)
            raise RuntimeError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(StreamStore, crash_in, crash)
            for seconds in (1, 31):
                try:
                    keys |= {request.run_key for request in world.tick(seconds).run_requests or []}
                except Exception as error:  # Dagster wraps it
                    crashes.append(f"{error} {error.__cause__}")
    assert crashes
    assert all("killed" in words for words in crashes)
    for _ in range(5):
        world.host.run_all()
        keys |= {request.run_key for request in world.tick(31).run_requests or []}
    assert world.restarted(before) == {"by_files": 1}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("owner", "name", "fails"),
    [
        (StreamsClient, "snapshot", True),
        (StreamStore, "put_document", True),
        (StreamStore, "put_fingerprint", False),
    ],
)
def test_what_was_seen_is_told_whatever_the_store_refuses(
    world: DimensionWorld, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, fails: bool
) -> None:
    """Told by this tick or, where it fails, by the next one; two changes, so that one can be remembered alone."""
    world.write_files(2)
    append_delta(world)
    before = world.generations()
    real, calls = getattr(owner, name), []

    def refuse(self: Any, *args: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == (2 if name == "put_fingerprint" else 1):
            raise StoreUnavailable("The store is locked.")
        return real(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refuse)
        try:
            seen = set(told(world.tick(1)))
        except Exception:  # Dagster's own, around the store's
            seen = set()
    assert calls
    assert bool(seen) != fails
    assert seen | set(told(world.tick(31))) == {"ref/planes", "ref/rates"}
    world.tick(31)
    assert world.restarted(before) == {"by_files": 1}
    assert told(world.tick(31)) == {}


def test_a_lost_cursor_repeats_nothing(world: DimensionWorld) -> None:
    world.write_files(2)
    world.tick(1)
    [request] = world.tick(31).run_requests or []
    before = world.generations()
    world.cursor = "not json"
    [again] = world.tick(1).run_requests or []
    assert again.run_key == request.run_key  # Dagster knows it
    assert world.restarted(before) == {}


def test_the_cursor_and_problems_survive_what_is_unreadable() -> None:
    for text in (None, "", "{}", "[]", '{"after": "x"}'):
        assert DimensionCursor.from_json(text) == DimensionCursor()
    cursor = DimensionCursor("ref.a", ("one@1",))
    assert DimensionCursor.from_json(cursor.to_json()) == cursor


def test_the_same_problem_with_other_numbers_is_the_same() -> None:
    def problem(text: str, kind: Any = "unreachable") -> str:
        return problem_mark(DimensionLook("ref.x", "version", problem=DimensionProblem(kind, text)))

    assert problem("no answer from 10.0.0.1:4431 (request 9f-3a)") == problem(
        "no answer from 10.0.0.7:51 (request 0b-77)"
    )
    assert problem("no answer") != problem("no answer", "permission")
    assert problem("no such bucket") != problem("no answer")


def test_a_tick_brings_in_neither_pyspark_nor_kindling(tmp_path: Path) -> None:
    """In a process of its own: what is imported cannot be taken back."""
    program = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
from dagster import DagsterInstance
from pathlib import Path
from dimension_world import DimensionWorld
with DagsterInstance.ephemeral(tempdir={str(tmp_path)!r}) as instance:
    world = DimensionWorld(Path({str(tmp_path)!r}), instance)
    world.tick()
    world.write_files(2)
    events = world.tick().asset_events
print(len(events), sorted(m for m in ("pyspark", "py4j", "kindling") if m in sys.modules))
"""
    environment = {k: v for k, v in os.environ.items() if k != "KINDLING_DAGSTER_STORE_URL"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.split("\n")[0] == "1 []", done.stderr[-3000:]
