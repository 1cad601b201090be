"""What only Spark can read: asked for by the sensor, looked at by a host, acted on by the sensor. No Spark here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance
from dimension_world import DimensionWorld, told

from kindling_dagster import KindlingStreamsResource
from kindling_dagster.secrets import SecretBook
from kindling_dagster.streaming import session_looks
from kindling_dagster.streaming.dimensions.fingerprint import Fingerprint, method_text, session_key
from kindling_dagster.streaming.dimensions.model import Dimension
from kindling_dagster.streaming.session_looks import ASKED, FAILED, KIND, SessionLooks, look_in_session
from kindling_dagster.streaming.store import StoreUnavailable, StreamStore


class Session:
    """Stands in for tables that a Spark session reads; their contents are a number."""

    def __init__(self) -> None:
        self.tables: dict[str, int | Exception] = {"ref.session": 1}

    def read(self, entity_id: str) -> Any:
        found = self.tables[entity_id]
        if isinstance(found, Exception):
            raise found
        return found

    @staticmethod
    def fingerprint(dimension: Dimension, frame: Any) -> str:
        return Fingerprint(
            method_text(dimension), frame, "session", schema=("id: long",), rows=frame
        ).to_text()


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    made = Session()
    monkeypatch.setattr(session_looks, "fingerprint_in_session", made.fingerprint)
    return made


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DimensionWorld]:
    monkeypatch.delenv("KINDLING_DAGSTER_STORE_URL", raising=False)
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        made = DimensionWorld(tmp_path, instance)
        monkeypatch.setattr(KindlingStreamsResource, "client", lambda _self, **_: made.client)
        made.tick()
        yield made
        made.store.close()


def test_the_sensor_asks_the_host_looks_and_the_sensor_acts(world: DimensionWorld, session: Session) -> None:
    before = world.generations()
    assert world.store.document(KIND, ASKED)[0] == {
        "ref.session": {"method": "hash", "columns": [], "keys": []}
    }
    assert look_in_session(world.store, session.read) == ("ref.session",)
    assert "Watched from now on" in told(world.tick(30))["ref/session"]
    assert look_in_session(world.store, session.read) == ()
    assert told(world.tick(30)) == {}
    session.tables["ref.session"] = 2
    assert look_in_session(world.store, session.read) == ("ref.session",)
    assert "To restart: by_session." in told(world.tick(30))["ref/session"]
    assert world.tick(31).run_requests
    assert world.restarted(before) == {"by_session": 1}
    world.host.run_all()
    for _ in range(2):
        assert told(world.tick(60)) == {}
    assert world.restarted(before) == {"by_session": 1}


def test_a_change_between_two_looks_of_the_sensor_is_not_lost(
    world: DimensionWorld, session: Session
) -> None:
    look_in_session(world.store, session.read)
    world.tick(30)
    for value in (2, 3):
        session.tables["ref.session"] = value
        look_in_session(world.store, session.read)
    assert "rows differ" in told(world.tick(30))["ref/session"]


def test_what_the_host_cannot_read_either_is_told_once(world: DimensionWorld, session: Session) -> None:
    session.tables["ref.session"] = ValueError("no such table\nstack postgresql://me:s3cr3t@db")
    assert look_in_session(world.store, session.read) == ()
    assert world.store.document(KIND, FAILED)[0] == {"ref.session": "ValueError: no such table"}
    assert "the stream host cannot read it: ValueError: no such table" in told(world.tick(30))["ref/session"]
    assert told(world.tick(30)) == {}
    session.tables["ref.session"] = 5
    look_in_session(world.store, session.read)
    assert world.store.document(KIND, FAILED)[0] == {}
    assert "Watched from now on" in told(world.tick(30))["ref/session"]


def test_a_secret_location_is_in_no_error(world: DimensionWorld, session: Session) -> None:
    session.tables["ref.session"] = ValueError("Path does not exist: file:/mnt/hidden/place.")
    book = SecretBook({"/mnt/hidden/place": "SESSION_PATH"})
    look_in_session(world.store, session.read, book.mask)
    told_of = world.store.document(KIND, FAILED)[0]
    assert told_of == {"ref.session": "ValueError: Path does not exist: file:@secret:SESSION_PATH."}


def test_a_host_that_was_frozen_in_its_look_brings_nothing_back(
    world: DimensionWorld, session: Session
) -> None:
    """Its lease ends while it looks, and another host looks meanwhile."""
    look_in_session(world.store, session.read)
    world.tick(30)
    holds = [True]

    def read(entity_id: str) -> Any:
        found = session.read(entity_id)
        session.tables["ref.session"] = 2
        look_in_session(world.store, session.read)
        holds.clear()
        return found

    session.tables["ref.session"] = 3
    assert look_in_session(world.store, read, may_write=lambda: bool(holds)) == ()
    assert "rows differ" in told(world.tick(30))["ref/session"]
    assert look_in_session(world.store, session.read) == ()
    assert told(world.tick(30)) == {}


def test_one_in_trouble_hides_no_other(world: DimensionWorld, session: Session) -> None:
    how = {"method": "hash", "columns": [], "keys": []}
    _, version = world.store.document(KIND, ASKED)
    world.store.put_document(KIND, ASKED, {"ref.a": how, "ref.session": how}, version)
    assert look_in_session(world.store, session.read) == ("ref.session",)
    assert set(world.store.document(KIND, FAILED)[0]) == {"ref.a"}
    assert session_key("ref.session") in world.store.fingerprints()


def test_the_thread_looks_on_whatever_happens(
    world: DimensionWorld, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, enough, prepared = [], threading.Event(), threading.Event()
    real = StreamStore.fingerprints

    def fingerprints(store: StreamStore) -> dict[str, str]:
        calls.append(1)
        if len(calls) == 1:
            raise StoreUnavailable("locked")
        if len(calls) == 2:
            raise RuntimeError("Spark is gone")
        if len(calls) == 4:
            enough.set()
        return real(store)

    monkeypatch.setattr(StreamStore, "fingerprints", fingerprints)
    monkeypatch.setattr(session_looks, "_SHARE", 0)
    looks = SessionLooks(world.store, session.read, prepared.set, interval=0.01)
    looks.start()
    assert enough.wait(20)
    assert looks.stop()
    assert prepared.is_set()
    assert session_key("ref.session") in real(world.store)


def test_the_thread_ends_when_the_session_cannot_be_entered(world: DimensionWorld, session: Session) -> None:
    def prepare() -> None:
        raise RuntimeError("no JVM")

    looks = SessionLooks(world.store, session.read, prepare)
    looks.start()
    assert looks.stop()
    assert session_key("ref.session") not in world.store.fingerprints()
