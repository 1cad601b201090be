"""Lineage columns and commits of a real app: who wrote each row, and that lineage alone rewrites none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from deltalake import DeltaTable

from kindling_dagster import KindlingProject
from kindling_dagster.engines.base import PipeFinished, PipeOptions, RunOptions, RunRequest, SignalSeen
from kindling_dagster.engines.in_process import InProcessEngine
from kindling_dagster.lineage.commits import CommitLineage, commit_lineage
from kindling_dagster.spark import build_session

pytestmark = pytest.mark.spark

PIPES = ("bronze.land", "silver.clean", "silver.count", "gold.total", "gold.plain")
AGAIN = ("silver.clean", "silver.count", "gold.plain")
FIRST = "id,item,amount\n1,pen,10\n2,ink,20\n3,pen,30\n4,cap,0\n"
SECOND = "id,item,amount\n1,pen,10\n2,ink,25\n3,pen,30\n4,cap,0\n5,ink,1\n"


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    session = build_session({"spark.master": "local[2]"})
    yield session
    session.stop()


class App:
    """The app in a folder of its own, run again and again under versions of its package."""

    def __init__(self, folder: Path, spark: Any) -> None:
        self.folder = folder
        self.spark = spark

    def run(self, run_id: str, version: str, *pipes: str, **options: Any) -> list[Any]:
        project = KindlingProject(self.folder, settings={"kindling.lineage.version": version})
        engine = InProcessEngine(project, lambda: self.spark)
        refresh = {pipe: PipeOptions(full_refresh=True) for pipe in PIPES}
        request = RunRequest(run_id, pipes or PIPES, RunOptions(pipes=refresh, **options))
        try:
            events = list(engine.run(request))
        finally:
            engine.close()
        for event in events:
            if isinstance(event, PipeFinished):
                assert event.result.status == "succeeded", event.result
        return events

    def table(self, entity: str) -> DeltaTable:
        return DeltaTable(str(self.folder / "data" / "lake" / entity.replace(".", "/")))

    def rows(self, entity: str) -> list[dict[str, Any]]:
        return self.table(entity).to_pyarrow_table().to_pylist()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, spark: Any) -> App:
    """Three runs: the first, the same again under another version, and one over changed data."""
    folder = tmp_path_factory.mktemp("lineage") / "app"
    shutil.copytree(Path(__file__).parent / "app", folder)
    (folder / "data").mkdir()
    made = App(folder, spark)
    (folder / "data" / "orders.csv").write_text(FIRST)
    made.events = [made.run("run-1", "1.0"), made.run("run-2", "2.0", *AGAIN)]  # type: ignore[attr-defined]
    made.before = {entity: made.rows(entity) for entity in ("silver.orders", "silver.items")}  # type: ignore[attr-defined]
    (folder / "data" / "orders.csv").write_text(SECOND)
    made.events.append(made.run("run-3", "3.0", *PIPES[:4]))  # type: ignore[attr-defined]
    return made


def stamp(row: dict[str, Any], layer: str) -> tuple[str, str, str, str]:
    found = row[f"_{layer}_lineage"]
    return found["pipe"], found["package"], found["version"], found["run_id"]


def test_equal_input_leaves_rows_and_their_lineage_alone(app: Any) -> None:
    for row in app.before["silver.orders"]:
        assert stamp(row, "silver") == ("silver.clean", "ledger", "1.0", "run-1")
        assert stamp(row, "bronze") == ("bronze.land", "ledger", "1.0", "run-1")
    assert len(app.before["silver.items"]) == 3
    for row in app.before["silver.items"]:
        assert stamp(row, "silver") == ("silver.count", "ledger", "1.0", "run-1")


def test_changed_rows_carry_the_version_that_changed_them(app: Any) -> None:
    found = {row["id"]: stamp(row, "silver")[2] for row in app.rows("silver.orders")}
    assert found == {1: "1.0", 2: "3.0", 3: "1.0", 5: "3.0"}


def test_history_grows_with_data_alone(app: Any) -> None:
    versions = sorted(
        (row["item"], row["amount"], stamp(row, "silver")[2]) for row in app.rows("silver.items")
    )
    assert versions == [("cap", 0, "1.0"), ("ink", 20, "1.0"), ("ink", 26, "3.0"), ("pen", 40, "1.0")]


def test_what_is_replaced_as_a_whole_is_of_the_last_version(app: Any) -> None:
    rows = app.rows("gold.totals")
    assert {row["item"]: row["amount"] for row in rows} == {"ink": 26, "pen": 40}
    assert {stamp(row, "gold") for row in rows} == {("gold.total", "ledger", "3.0", "run-3")}
    assert not [name for name in rows[0] if name in ("_silver_lineage", "_bronze_lineage")]


def test_who_does_not_take_part_gets_no_column(app: Any) -> None:
    assert set(app.rows("gold.plain")[0]) == {"item", "amount"}


def test_merges_of_equal_input_update_no_row(app: Any) -> None:
    merges = [entry for entry in app.table("silver.orders").history() if entry["operation"] == "MERGE"]
    last, same = merges[0], merges[1]
    assert int(same["operationMetrics"]["numTargetRowsUpdated"]) == 0
    assert int(last["operationMetrics"]["numTargetRowsUpdated"]) == 1


def test_commits_say_who_wrote_them(app: Any) -> None:
    texts = [entry.get("userMetadata", "") for entry in app.table("gold.plain").history()]
    found = [commit_lineage(text, "gold.plain") for text in texts]
    assert found[0] == CommitLineage("gold.plain", "gold.plain", "ledger", "2.0", "run-2")
    assert found[-1] == CommitLineage("gold.plain", "gold.plain", "ledger", "1.0", "run-1")


def test_signals_tell_of_lineage_and_of_a_new_version(app: Any) -> None:
    told = [
        [(seen.name, seen.payload["fields"]["pipe_id"]) for seen in events if isinstance(seen, SignalSeen)
         and seen.name in ("datapipes.lineage_applied", "datapipes.version_changed")]
        for events in app.events
    ]  # fmt: skip
    stamped = {("datapipes.lineage_applied", pipe) for pipe in PIPES if pipe != "gold.plain"}
    assert set(told[0]) == stamped
    assert set(told[1]) == {
        ("datapipes.lineage_applied", "silver.clean"),
        ("datapipes.lineage_applied", "silver.count"),
        *(("datapipes.version_changed", pipe) for pipe in AGAIN),
    }
    assert set(told[2]) == stamped | {("datapipes.version_changed", pipe) for pipe in PIPES[:4]}


def test_results_name_package_and_version(app: Any) -> None:
    finished = [event.result for event in app.events[0] if isinstance(event, PipeFinished)]
    assert {(result.metadata["package"], result.metadata["package_version"]) for result in finished} == {
        ("ledger", "1.0")
    }


def test_the_session_is_left_as_it_was(app: Any, spark: Any) -> None:
    from kindling import entity_provider_delta
    from kindling.data_entities import scd_change_columns

    assert spark.conf.get("spark.databricks.delta.commitInfo.userMetadata", None) is None
    assert entity_provider_delta.scd_change_columns is scd_change_columns


def test_only_rows_of_a_version_are_recomputed(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_FACTOR", "10")
    app.run("run-4", "4.0", "silver.clean", reprocess={"silver.clean": "1.0"})
    found = {row["id"]: (row["amount"], stamp(row, "silver")[2]) for row in app.rows("silver.orders")}
    assert found == {1: (100, "4.0"), 2: (25, "3.0"), 3: (300, "4.0"), 5: (1, "3.0")}
