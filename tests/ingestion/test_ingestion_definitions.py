"""File ingestion in Dagster: assets, the step, the sensor. What Spark does is replaced."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRunStatus,
    build_sensor_context,
)
from dagster import DagsterInstance as Instance
from manifests import entity, manifest, pipe

from kindling_dagster import KindlingProject, build_kindling_definitions, build_kindling_ingestion
from kindling_dagster.errors import DeclarationError
from kindling_dagster.ingestion.batches import Batches
from kindling_dagster.ingestion.defs import look
from kindling_dagster.ingestion.landing import Entries, IngestionPaths
from kindling_dagster.manifest import IngestionSpec

SETTINGS = {
    "kindling.dagster.ingestion.landing": "landing",
    "kindling.dagster.ingestion.archive": "archive",
}
ENTRY = IngestionSpec("files", "files", (r"(?P<kind>\w+)_\d+\.csv",), "bronze.{kind}")


def app(**settings: Any) -> Any:
    return manifest(
        pipe("clean", "bronze.orders", "silver.orders"),
        pipe("make", "silver.orders", "bronze.made"),
        entities=(entity("bronze.orders"), entity("bronze.items")),
        ingestion=(ENTRY,),
        settings=settings or SETTINGS,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "landing").mkdir()
    return tmp_path


def project(root: Path, made: Any = None) -> KindlingProject:
    (made or app()).write(root / "manifest.json")
    return KindlingProject(manifest=root / "manifest.json", working_dir=root)


def drop(root: Path, *names: str) -> None:
    for name in names:
        path = root / "landing" / name
        path.write_text(name)
        os.utime(path, (time.time() - 60,) * 2)


@pytest.fixture
def instance() -> Any:
    with DagsterInstance.ephemeral() as made:
        yield made


def test_destinations_become_assets_of_their_own_step(root: Path) -> None:
    defs = build_kindling_definitions(project(root))
    graph = defs.resolve_asset_graph()
    for name, ingested in (("orders", True), ("items", True), ("made", False)):
        node = graph.get(AssetKey(["bronze", name]))
        assert node.is_materializable
        assert (defs.resolve_assets_def(node.key).op.name == "ingest_shop") is ingested
    assert {job.name for job in defs.resolve_all_job_defs()} >= {"shop_ingest", "shop_all"}
    without = build_kindling_definitions(project(root, app(**{"kindling.dagster.other": 1})))
    assert not without.resolve_asset_graph().get(AssetKey(["bronze", "orders"])).is_materializable
    with pytest.raises(DeclarationError, match="No files land for the app shop"):
        build_kindling_ingestion(project(root, app(**{"kindling.dagster.other": 1})))


def run(root: Path, instance: Instance, monkeypatch: pytest.MonkeyPatch, *, fail: bool = False) -> Any:
    written: list[list[str]] = []

    def write(_: Any, batches: Batches, todo: Any, create_session: Any) -> None:
        def files(directory: Path, *_: Any) -> None:
            written.append(sorted(path.name for path in directory.iterdir()))
            if fail:
                raise ValueError("bad file")

        for batch in todo:
            batches.run(batch, files)

    monkeypatch.setattr("kindling_dagster.ingestion.writing.write_batches", write)
    job = build_kindling_definitions(project(root)).resolve_job_def("shop_ingest")
    return job.execute_in_process(instance=instance, raise_on_error=False), written


def test_a_run_takes_what_fits_and_reports_the_rest(
    root: Path, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(root, "orders_1.csv", "orders_2.csv", "made_1.csv", "other_1.csv", "x.txt")
    result, written = run(root, instance, monkeypatch)
    assert result.success
    assert written == [["orders_1.csv", "orders_2.csv"]]
    [told] = result.get_asset_materialization_events()
    assert told.asset_key == AssetKey(["bronze", "orders"])
    assert told.materialization.metadata["kindling/files_ingested"].value == 2
    # A pipe writes bronze.made, and nobody declares bronze.other.
    assert sorted(os.listdir(root / "landing")) == ["made_1.csv", "other_1.csv", "x.txt"]  # noqa: PTH208
    again, written = run(root, instance, monkeypatch)
    assert (again.success, written) == (True, [])


def test_files_are_taken_though_nothing_can_be_told_of_their_tables(
    root: Path, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = root / "lake/bronze/orders/_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("{not json")
    drop(root, "orders_1.csv")
    result, _ = run(root, instance, monkeypatch)
    [told] = result.get_asset_materialization_events()
    assert "could not be read" in told.materialization.metadata["kindling/unavailable"].value


def test_a_batch_that_failed_comes_first_and_then_what_has_landed_since(
    root: Path, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(root, "orders_1.csv")
    assert not run(root, instance, monkeypatch, fail=True)[0].success
    drop(root, "items_1.csv")
    result, written = run(root, instance, monkeypatch)
    assert written == [["orders_1.csv"], ["items_1.csv"]]
    assert len(result.get_asset_materialization_events()) == 2


def test_the_sensor(root: Path, instance: Instance) -> None:
    paths = IngestionPaths.of(app(), root)
    assert paths is not None
    cursor: str | None = "nonsense"

    def tick(after: float = 0.0) -> Any:
        nonlocal cursor
        context = build_sensor_context(instance=instance, cursor=cursor)
        result = look(context, Entries(app()), paths, "shop_ingest", {"bronze.orders"}, time.time() + after)
        cursor = result.cursor
        return result

    assert f"No files in {paths.landing}." in str(tick().skip_reason)
    drop(root, "x.txt")
    assert "1 files in" in str(tick().skip_reason)
    assert "are left there: x.txt" in str(tick().skip_reason)
    drop(root, "orders_1.csv")
    assert len(tick().run_requests) == 1
    assert "another one is asked for after five minutes" in str(tick().skip_reason)
    assert len(tick(after=301).run_requests) == 1
    drop(root, "orders_2.csv")
    assert len(tick(after=302).run_requests) == 1
    drop(root, "orders_3.csv")
    from dagster import job, op

    @op
    def nothing() -> None:
        """Does nothing."""

    @job
    def shop_ingest() -> None:
        nothing()

    instance.create_run_for_job(job_def=shop_ingest, status=DagsterRunStatus.STARTED)
    assert "A run takes files already." in str(tick(after=303).skip_reason)
