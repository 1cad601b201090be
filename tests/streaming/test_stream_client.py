"""What people ask of streams, and what it changes in the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from manifests import manifest, pipe
from stream_apps import SHOP, STREAM, STREAMS, Host, running

from kindling_dagster.errors import SelectionError
from kindling_dagster.streaming.client import StreamsClient
from kindling_dagster.streaming.model import DeadLetter
from kindling_dagster.streaming.store import StreamStore


@pytest.fixture
def client(tmp_path: Path) -> StreamsClient:
    return StreamsClient(
        StreamStore.open(f"sqlite:///{tmp_path / 'streams.db'}", "shop@local"), SHOP, by="me"
    )


def wanted(client: StreamsClient) -> dict[str, int]:
    return {id_: desired.generation for id_, desired in client.store.desired().items() if desired.running}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], STREAMS),
        (["alone"], ("alone",)),
        (["silver.live"], ("follow",)),
        (["silver.*"], ("follow", "alone")),
        (["enrich", "follow", "enrich"], ("follow", "enrich")),
    ],
)
def test_how_streams_are_named(client: StreamsClient, names: list[str], found: tuple[str, ...]) -> None:
    assert client.resolve(names) == found


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["folow"], "Close to it: follow"),
        (["clean"], "Its streams: follow, enrich, alone"),
        (["x", "alone"], "'x'"),
    ],
)
def test_a_name_that_means_no_stream_is_refused(client: StreamsClient, names: list[str], says: str) -> None:
    with pytest.raises(SelectionError, match=says):
        client.start(names)
    assert wanted(client) == {}


def test_a_pipes_id_means_that_pipe_alone(tmp_path: Path) -> None:
    app = manifest(pipe("a", "x.y", "s.t", tags=STREAM), pipe("s.t", "x.z", "u.v", tags=STREAM))
    client = StreamsClient(StreamStore.open(f"sqlite:///{tmp_path / 's.db'}", "p"), app)
    assert client.resolve(["s.t"]) == ("s.t",)
    assert client.resolve(["s.*"]) == ("a", "s.t")


def test_start_stop_and_start_again(client: StreamsClient) -> None:
    assert client.start(reason="go") == STREAMS
    client.stop(["alone"])
    assert set(wanted(client)) == {"follow", "enrich"}
    client.start(["alone"])
    assert set(wanted(client)) == set(STREAMS)
    assert client.store.desired()["follow"].reason == "go"
    assert client.store.desired()["follow"].by == "me"


def test_the_same_request_is_obeyed_once(client: StreamsClient) -> None:
    client.start(["alone"], request="run-1")
    client.stop(["alone"])
    client.start(["alone"], request="run-1")
    assert wanted(client) == {}


def test_a_restart_raises_the_generation(client: StreamsClient) -> None:
    client.start()
    before = wanted(client)
    client.restart(["follow"], reason="why not")
    after = wanted(client)
    assert {id_: after[id_] - before[id_] for id_ in STREAMS} == {"follow": 1, "enrich": 0, "alone": 0}


def test_a_cascade_takes_the_running_streams_below_along(client: StreamsClient) -> None:
    client.start(["follow"])
    assert client.restart(["follow"], cascade=True) == ("follow",)
    client.start(["enrich"])
    assert client.restart(["follow"], cascade=True) == ("follow", "enrich")
    assert client.restart(["enrich"], cascade=True) == ("enrich",)


def test_revive_forgets_the_dead_letter(client: StreamsClient) -> None:
    client.start()
    host = Host(client.store)
    client.store.report(host.lease, dead_letters=[DeadLetter("alone", 1.0, 5)])
    assert client.status("alone").state == "dead_letter"
    assert client.snapshot().wanted == ("follow", "enrich")
    assert client.revive(["alone"]) == ("alone",)
    assert client.dead_letters() == {}
    assert client.snapshot().wanted == STREAMS


def test_status_is_of_one_stream(client: StreamsClient) -> None:
    client.start()
    host = Host(client.store)
    host.report(running("follow"))
    assert client.status("silver.live").progressed
    assert [view.progressed for view in client.list()] == [True, False, False]
    with pytest.raises(SelectionError, match="means 2 streams: follow, alone"):
        client.status("silver.*")
