"""Logs on object storage are read without Spark, with the credentials that the resource has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from dagster import EnvVar, job, op
from dagster_deltalake import S3Config
from dagster_deltalake.config import ClientConfig
from deltalake import CommitProperties, write_deltalake

from kindling_dagster import KindlingResource
from kindling_dagster.engines.commits import NO_TABLE, CommitReader
from kindling_dagster.lineage.commits import CommitLineage

KEY = "somebody"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 endpoint with one table, ``s3a://lake/silver/orders``, of two commits."""
    root = tmp_path_factory.mktemp("bucket")
    for ids, said in ([1, 2, 3], None), ([4], CommitProperties(custom_metadata={"userMetadata": "who"})):
        frame = pa.table({"id": ids})
        write_deltalake(root / "silver" / "orders", frame, mode="append", commit_properties=said)
    command = [sys.executable, str(Path(__file__).with_name("bucket.py")), str(root), KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.terminate()


def credentials(endpoint: str, key: str = KEY) -> dict[str, str]:
    store = S3Config(access_key_id=key, secret_access_key="s", region="us-east-1", endpoint=endpoint)
    return {**store.str_dict(), **ClientConfig(allow_http=True).str_dict()}


class SparkReads(CommitReader):
    """Says so where it would ask Spark."""

    def _spark_version(self, uri: str) -> int:
        self._told_by_spark[uri] = ["told by Spark"]
        return 1000

    def _spark_metadata(self, uri: str, before: int, writer: CommitLineage | None) -> dict[str, Any]:
        return {"unavailable": self._why_spark(uri)}


def reader(options: dict[str, str] | None) -> CommitReader:
    entity = SimpleNamespace(tags={"provider.access_mode": "storage"})
    entities = SimpleNamespace(
        get_entity_definition=lambda entity_id: (
            entity and SimpleNamespace(tags=entity.tags, path=f"s3a://lake/{entity_id.replace('.', '/')}")
        )
    )
    runtime: Any = SimpleNamespace(entities=entities, table_path=lambda found: found.path)
    spark: Any = None
    return SparkReads(runtime, spark, options)


def test_the_log_is_read_with_the_credentials(endpoint: str) -> None:
    logs = reader(credentials(endpoint))
    assert logs.version("silver.orders") == 1
    told = logs.metadata("silver.orders", before=0)
    assert (told["uri"], told["version"], told["rows"], told["files"]) == (
        "s3a://lake/silver/orders",
        1,
        4,
        2,
    )
    assert [commit["version"] for commit in told["commits"]] == [1]
    assert logs.size("silver.orders") == told["bytes"] > 0
    assert logs.version("silver.none") == NO_TABLE
    assert logs.user_metadata("silver.orders", 1) == ["who", ""]
    assert logs.user_metadata("silver.none", NO_TABLE) == []


def test_without_credentials_spark_reads(endpoint: str) -> None:
    logs = reader({})
    assert (logs.version("silver.orders"), logs.size("silver.orders")) == (1000, None)
    assert logs.user_metadata("silver.orders", 1000) == ["told by Spark"]
    assert "storage_options" in logs.metadata("silver.orders", 0)["unavailable"]


def test_with_wrong_credentials_spark_reads_and_it_is_told(endpoint: str) -> None:
    logs = reader(credentials(endpoint, "nobody"))
    assert (logs.version("silver.orders"), logs.size("silver.orders")) == (1000, None)
    assert logs.user_metadata("silver.orders", 1000) == ["told by Spark"]
    told = logs.metadata("silver.orders", 0)["unavailable"]
    assert "storage_options did not do" in told
    assert "403" in told or "AccessDenied" in told
    assert "\x1b" not in told


def test_a_key_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_KEY", KEY)
    seen: list[dict[str, str]] = []

    @op
    def look(kindling: KindlingResource) -> None:
        seen.append(kindling.storage_options)

    @job(resource_defs={"kindling": KindlingResource(storage_options={"access_key_id": EnvVar("LAKE_KEY")})})
    def looking() -> None:
        look()

    assert looking.execute_in_process().success
    assert seen == [{"access_key_id": KEY}]
