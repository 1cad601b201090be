"""A store's password is in no log, no error, no representation; its place can be shown."""

from __future__ import annotations

import logging
import pickle
import socket
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres_server import PASSWORD, PostgresServer
from store_fixtures import a_command

from kindling_dagster.streaming.store import (
    StoreError,
    StoreUnavailable,
    StreamStore,
    default_store_url,
    redact,
)

SECRETS = (PASSWORD, "p%40ss", "s3cret")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@host:5432/db", "postgresql://u:***@host:5432/db"),
        ("postgresql+psycopg://u:se%40cret@host/db", "postgresql+psycopg://u:***@host/db"),
        ("postgresql://u:se@cr/et@host/db", "postgresql://u:***@host/db"),
        ("postgresql://:secret@host/db", "postgresql://:***@host/db"),
        ("postgresql://u@host/db", "postgresql://u@host/db"),
        ("postgresql://host/db?user=u&password=secret&x=1", "postgresql://host/db?user=u&password=***&x=1"),
        ("postgresql://host/db?sslpassword=secret", "postgresql://host/db?sslpassword=***"),
        ("host=h password=secret dbname=d", "host=h password=*** dbname=d"),
        ("sqlite:////data/kindling_streams.db", "sqlite:////data/kindling_streams.db"),
        ("sqlite:////data/a@b.db", "sqlite:////data/a@b.db"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redact(url) == shown


@settings(max_examples=30)
@given(st.text(min_size=6).filter(lambda text: not set(text) & set(" ")))
def test_no_password_survives(password: str) -> None:
    assert redact(f"postgresql://user:{password}@host/db") == "postgresql://user:***@host/db"


@pytest.mark.parametrize("name", ["plain", "with space", "a?b#c", "percent%20", "ünïcode", "a@b", "quote'\""])
def test_the_default_place_is_a_file_in_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    with StreamStore.open(default_store_url(str(folder)), "p") as store:
        store.submit([a_command("start")])
    assert (folder / "kindling_streams.db").stat().st_size > 0


def all_that_is_said(error: BaseException) -> str:
    """An error with all that is chained to it, as Python shows it and as others may take it apart."""
    said = "".join(traceback.format_exception(error, chain=True))
    link: BaseException | None = error
    while link is not None:
        said += f"{link!r}{link}{link.args}{vars(link)}"
        link = link.__cause__ or link.__context__
    return said


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret@127.0.0.1:{port}/db",
        "postgresql://u:p%40ss@127.0.0.1:{port}/db",
        "postgresql://127.0.0.1:{port}/db?user=u&password=s3cret",
        "postgresql://u:s3cret@127.0.0.1:{port}/db?no_such_option=1",
        "postgresql://u:s3cret@127.0.0.1:{port}/db?sslpassword=s3cret&sslmode=nonsense",
        "postgresql://u:s3cret@no-such-host.invalid/db",
        "postgresql://u:s3cret@127.0.0.1:port/db",
        "mysql://u:s3cret@127.0.0.1/db",
        "s3cret?password=s3cret",
        "nodb+s3://u:s3cret@host",
    ],
)
def test_no_failure_to_open_tells_the_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StoreError) as caught:
        StreamStore.open(url.format(port=free_port()), "p", wait=0.3)
    said = all_that_is_said(caught.value) + caplog.text
    for secret in ("s3cret@", "=s3cret", ":s3cret", "p%40ss", "p@ss"):
        assert secret not in said


def test_a_store_in_use_never_tells_its_password(
    postgres: PostgresServer, project: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with StreamStore.open(postgres.url(), project) as store:
        store.submit([a_command("start")])
        said = f"{store!r}{store._database!r}{store._database.shown}{store._database._live_engine()!r}"
        with pytest.raises(StoreError) as caught:
            store._database.write(lambda connection: connection.exec_driver_sql("SELECT nonsense"))
        said += all_that_is_said(caught.value)
    assert f"StreamStore(postgresql+psycopg://postgres:***@127.0.0.1:{postgres.port}/postgres" in said
    said += caplog.text
    assert not [secret for secret in SECRETS if secret in said]


def test_a_wrong_password_is_not_told(postgres: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = postgres.url("an0ther wr0ng/one")
    with pytest.raises(StoreError, match="does not let us in") as caught:
        StreamStore.open(url, "p", wait=5)
    said = all_that_is_said(caught.value) + caplog.text
    assert "an0ther" not in said


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(StoreUnavailable("It is locked.", "Wait.")))
    assert "It is locked." in str(error)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://host/db", "no url", "/a/path.db"]
)
def test_what_is_no_place_for_a_store(url: str) -> None:
    with pytest.raises(StoreError, match="is no place for a stream store"):
        StreamStore.open(url, "p")


def test_a_project_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="needs a project's name"):
        StreamStore.open(default_store_url(str(tmp_path)), "")
