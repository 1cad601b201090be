"""The stand-in for the stream host, and the throw-away instance: what a user's test sees of them. No Spark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from stream_apps import STREAMS, shop

from kindling_dagster import KindlingStreamsResource
from kindling_dagster.errors import SelectionError
from kindling_dagster.streaming.client import StreamsClient
from kindling_dagster.streaming.store import StoreError
from kindling_dagster.testing import FakeStreamHost, throwaway_instance


@pytest.fixture
def client(tmp_path: Path) -> Iterator[StreamsClient]:
    resource = KindlingStreamsResource(shop(tmp_path))
    with throwaway_instance() as instance:
        yield resource.client(instance=instance)
        resource.close()


@pytest.fixture
def host(client: StreamsClient) -> Iterator[FakeStreamHost]:
    with FakeStreamHost(client) as made:
        yield made


def states(client: StreamsClient) -> dict[str, str]:
    return {view.stream_id: view.state for view in client.list()}


def test_what_is_desired_becomes_actual(client: StreamsClient, host: FakeStreamHost) -> None:
    client.start(["follow", "enrich"])
    host.obey(rows=10, backlog_bytes=7)
    host.obey(rows=5)
    assert states(client) == {"follow": "running", "enrich": "running", "alone": "not started"}
    status = client.status("follow").status
    assert status is not None
    assert (status.rows_committed, status.metrics.batch_id, client.status("follow").progressed) == (
        15,
        1,
        True,
    )
    client.stop(["follow"])
    client.restart(["enrich"])
    assert not client.status("enrich").current
    host.obey()
    assert (states(client)["follow"], client.status("enrich").current) == ("stopped", True)


@pytest.mark.parametrize(
    ("trouble", "state", "severity"),
    [("fail", "waiting", "warning"), ("stall", "running", "error"), ("dead_letter", "dead_letter", "error")],
)
def test_troubles_are_seen_as_such(
    client: StreamsClient, host: FakeStreamHost, trouble: str, state: str, severity: str
) -> None:
    client.start()
    host.obey()
    getattr(host, trouble)("silver.live")
    view = client.status("follow")
    assert (view.state, view.verdict.ok, view.verdict.severity) == (state, False, severity)
    assert client.status("alone").verdict.ok


def test_a_dead_letter_stays_until_it_is_revived(client: StreamsClient, host: FakeStreamHost) -> None:
    client.start()
    host.dead_letter("follow", "no such column")
    host.obey()
    assert states(client)["follow"] == "dead_letter"
    assert client.dead_letters()["follow"].errors[0].message == "no such column"
    client.revive(["follow"])
    host.obey()
    assert set(states(client).values()) == {"running"}


def test_a_name_must_mean_one_stream(host: FakeStreamHost) -> None:
    with pytest.raises(SelectionError, match=f"means {len(STREAMS)} streams"):
        host.fail("*")


def test_there_is_one_host_until_it_ends(client: StreamsClient) -> None:
    with FakeStreamHost(client) as first:
        with pytest.raises(StoreError, match="Another host"):
            FakeStreamHost(client)
        first.beat()
    client.start()
    assert set(states(client).values()) == {"no host"}
    with FakeStreamHost(client) as second:
        assert second.lease.token > first.lease.token


def test_an_instance_has_a_store_of_its_own_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = "sqlite:////somewhere/real.db"
    monkeypatch.setenv("KINDLING_DAGSTER_STORE_URL", stated)
    with throwaway_instance() as instance:
        folder = Path(instance.storage_directory()).parent
        assert str(folder) in os.environ["KINDLING_DAGSTER_STORE_URL"]
    assert not folder.exists()
    assert os.environ["KINDLING_DAGSTER_STORE_URL"] == stated
    monkeypatch.delenv("KINDLING_DAGSTER_STORE_URL")
    with throwaway_instance():
        assert "KINDLING_DAGSTER_STORE_URL" in os.environ
    assert "KINDLING_DAGSTER_STORE_URL" not in os.environ
