"""A Kindling app in a real `dagster dev`: load, launch, watch, terminate, retry, restart."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable
from driver import DagsterDev, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

DEFINITIONS = """
from kindling_dagster import KindlingProject, build_kindling_definitions

defs = build_kindling_definitions(KindlingProject({app!r}))
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dev") / "app"
    shutil.copytree(Path(__file__).parent / "app", folder)
    (folder / "data").mkdir()
    (folder / "data" / "numbers.csv").write_text("id,value\n1,10\n2,20\n3,30\n")
    return folder


@pytest.fixture(scope="module")
def dev(app: Path) -> Iterator[DagsterDev]:
    definitions = app.parent / "defs.py"
    definitions.write_text(DEFINITIONS.format(app=str(app)))
    server = DagsterDev(app.parent, definitions)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def past() -> list[str]:
    """Runs that later tests look back at."""
    return []


def rows(app: Path, entity: str) -> list[dict[str, int]]:
    table = DeltaTable(str(app / "data" / "lake" / entity.replace(".", "/")))
    return sorted(table.to_pyarrow_table().to_pylist(), key=lambda row: row["id"])


def test_loading_starts_no_jvm(dev: DagsterDev) -> None:
    assert dev.assets() == {"silver/numbers", "silver/late", "gold/endless"}
    assert dev.jvms() == []


def test_commits_show_while_the_run_goes_on(dev: DagsterDev, app: Path) -> None:
    run_id = dev.launch("silver/numbers", "silver/late")
    first = wait_for("the first asset shows", lambda: dev.materialized(run_id).get("silver/numbers"))
    assert (dev.status(run_id), list(dev.materialized(run_id))) == ("STARTED", ["silver/numbers"])
    assert first["dagster/row_count"] == 3
    (app / "data" / "go").touch()
    assert dev.wait(run_id) == "SUCCESS", dev.messages(run_id)
    assert set(dev.materialized(run_id)) == {"silver/numbers", "silver/late"}
    assert "[1/2] numbers committed" in dev.messages(run_id)
    assert rows(app, "silver.late") == [{"id": i, "value": i * 10} for i in (1, 2, 3)]
    wait_for("the run's JVM is gone", lambda: not dev.jvms())


def test_terminate_ends_the_spark_job_and_commits_nothing(dev: DagsterDev, app: Path) -> None:
    run_id = dev.launch("gold/endless")
    wait_for("the endless job runs", (app / "data" / "endless_started").exists)
    assert dev.jvms()
    dev.terminate(run_id)
    assert dev.wait(run_id, 60) == "CANCELED"
    wait_for("the JVM is gone", lambda: not dev.jvms(), 60)
    assert not DeltaTable.is_deltatable(str(app / "data" / "lake" / "gold" / "endless")) or not rows(
        app, "gold.endless"
    )


def test_retry_from_failure_runs_only_what_did_not_commit(
    dev: DagsterDev, app: Path, past: list[str]
) -> None:
    """Its first run is also the clean one that follows a terminated one."""
    (app / "data" / "go").touch()
    (app / "data" / "broken").touch()
    failed = dev.launch("silver/numbers", "silver/late")
    assert dev.wait(failed) == "FAILURE"
    assert list(dev.materialized(failed)) == ["silver/numbers"]
    (app / "data" / "broken").unlink()
    again = dev.retry_from_failure(failed)
    assert dev.wait(again) == "SUCCESS", dev.messages(again)
    assert list(dev.materialized(again)) == ["silver/late"]
    assert "not run again: silver.numbers" in dev.messages(again)
    past.append(again)


def test_past_runs_are_there_after_a_restart(dev: DagsterDev, app: Path, past: list[str]) -> None:
    [run_id] = past
    dev.stop()
    dev.start()
    assert dev.status(run_id) == "SUCCESS"
    assert set(dev.materialized(run_id)) == {"silver/late"}
    again = dev.launch("silver/numbers")
    assert dev.wait(again) == "SUCCESS", dev.messages(again)
    assert rows(app, "silver.numbers") == [{"id": i, "value": i * 10} for i in (1, 2, 3)]
