"""Fixtures for what uses a stream store: one on each kind of database."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer, postgres_server

from kindling_dagster.streaming.store import StreamStore, default_store_url


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty store on each kind of database (on PostgreSQL empty but for other tests' projects)."""
    if request.param == "sqlite":
        return default_store_url(str(tmp_path))
    return request.getfixturevalue("postgres").url()


@pytest.fixture
def project() -> str:
    return f"project-{uuid.uuid4().hex}"


@pytest.fixture
def store(url: str, project: str) -> Iterator[StreamStore]:
    with StreamStore.open(url, project, wait=5.0) as opened:
        yield opened
