"""The streams' resource: where its store is, from where it can be used, and that no password shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster import DagsterInstance, EnvVar, job, op
from stream_apps import STREAMS, Host, open_store, running, shop

from kindling_dagster import KindlingStreamsResource, build_kindling_definitions
from kindling_dagster.errors import DeclarationError, SelectionError
from kindling_dagster.streaming.model import DeadLetter, HistoryEntry

URL = "postgresql://streams:s3cr3t@db.example/kindling"
VARIABLE = "KINDLING_DAGSTER_STORE_URL"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = shop(tmp_path)
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        default = KindlingStreamsResource(project).url(instance)
        assert default == f"sqlite:///{instance.storage_directory()}/kindling_streams.db"
        monkeypatch.setenv(VARIABLE, URL)
        assert KindlingStreamsResource(project).url(instance) == URL
        assert (
            KindlingStreamsResource(project, store_url="sqlite:///mine.db").url(instance)
            == "sqlite:///mine.db"
        )


def test_all_it_can_do(tmp_path: Path) -> None:
    project = shop(tmp_path)
    streams = KindlingStreamsResource(project, store_url=f"sqlite:///{tmp_path / 's.db'}")
    assert streams.start(reason="go") == STREAMS
    store = open_store(streams.url(), project)
    host = Host(store)
    store.report(
        host.lease,
        statuses=[running("follow")],
        history=[HistoryEntry("follow", "started", 1.0), HistoryEntry("alone", "failed", 2.0)],
        dead_letters=[DeadLetter("alone", 2.0, 5)],
    )
    assert streams.status("follow").progressed
    assert [view.state for view in streams.list()] == ["running", "starting", "dead_letter"]
    assert [entry.event for entry in streams.history("alone")] == ["failed"]
    assert len(streams.history()) == 2
    assert set(streams.dead_letters()) == {"alone"}
    assert streams.revive() == ("alone",)
    assert streams.revive() == ()
    assert streams.restart("follow", cascade=True) == ("follow", "enrich")
    assert streams.stop("enrich") == ("enrich",)
    with pytest.raises(SelectionError):
        streams.stop("nothing")
    streams.close()
    assert not streams.status("enrich").wanted
    streams.close()
    store.close()


def test_an_op_finds_the_store_of_its_instance(tmp_path: Path) -> None:
    project = shop(tmp_path)

    @op(required_resource_keys={"kindling_streams"})
    def restart(context):  # type: ignore[no-untyped-def]  # Dagster takes no postponed annotation
        context.resources.kindling_streams.restart("follow", reason="compacted")

    @job(resource_defs={"kindling_streams": KindlingStreamsResource(project)})
    def maintenance() -> None:
        restart()

    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        assert maintenance.execute_in_process(instance=instance).success
        with open_store(KindlingStreamsResource(project).url(instance), project) as store:
            assert store.desired()["follow"].reason == "compacted"


def test_a_password_in_plain_configuration_is_refused(tmp_path: Path) -> None:
    project = shop(tmp_path)
    with pytest.raises(DeclarationError, match="EnvVar") as caught:
        build_kindling_definitions(project, streams_resource=KindlingStreamsResource(project, store_url=URL))
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "url", [EnvVar("SOME_URL"), "postgresql://db.example/kindling", "sqlite:///x.db", None]
)
def test_what_shows_no_password_is_taken(tmp_path: Path, url: str | None) -> None:
    project = shop(tmp_path)
    build_kindling_definitions(project, streams_resource=KindlingStreamsResource(project, store_url=url))


def test_a_resource_of_another_app_is_refused(tmp_path: Path) -> None:
    project = shop(tmp_path)
    (tmp_path / "other").mkdir()
    other = KindlingStreamsResource(shop(tmp_path / "other"))
    with pytest.raises(DeclarationError, match="Give it the same project"):
        build_kindling_definitions(project, streams_resource=other)
