"""Running pipes for real: what Dagster is told, what the tables hold, what a failure leaves behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    RetryPolicy,
    in_process_executor,
)
from deltalake import DeltaTable, write_deltalake

from kindling_dagster import (
    KindlingIOManager,
    KindlingProject,
    KindlingResource,
    build_kindling_definitions,
    kindling_assets,
)
from kindling_dagster.ingestion.batches import Batches
from kindling_dagster.signals.reading import read_step_records
from kindling_dagster.spark import build_session

pytestmark = pytest.mark.spark

ORDERS = "id,item,amount\n1,pen,10\n2,ink,20\n3,pen,30\n4,cap,0\n"
ORDERS_KEY = AssetKey(["silver", "orders"])
CLEAN = [(1, "pen", 10), (2, "ink", 20), (3, "pen", 30)]
GOOD = (
    "bronze/orders", "silver/orders", "silver/delta", "silver/both", "silver/flaky", "silver/after_flaky",
    "memory/recent", "gold/recent", "gold/totals", "ref/items",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[Any]:
    session = build_session({"spark.master": "local[2]"})
    yield session
    session.stop()


@pytest.fixture
def new_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The app, with its landed file and no tables."""
    # Kindling starts no app of which a secret is missing, whether or not a pipe needs it.
    monkeypatch.setenv("SHOP_SECRET_PATH", str(tmp_path / "hidden"))
    folder = tmp_path / "app"
    shutil.copytree(Path(__file__).parent / "app", folder)
    (folder / "data").mkdir()
    (folder / "data" / "orders.csv").write_text(ORDERS)
    return folder


@pytest.fixture
def app(new_app: Path, spark: Any) -> Path:
    """The app, of which bronze.orders and silver.orders have been written."""
    lake = new_app / "data" / "lake"
    schema = "id long, item string, amount long"
    landed = [(1, "pen", 10), (2, "ink", 20), (3, "pen", 30), (4, "cap", 0)]
    for table, held in (("bronze/orders", landed), ("silver/orders", CLEAN)):
        frame = spark.createDataFrame(held, schema).coalesce(1)
        # As Kindling makes its tables: it follows what has changed through the change feed.
        frame.write.format("delta").option("delta.enableChangeDataFeed", "true").save(str(lake / table))
    (new_app / "data" / "calls.txt").touch()
    return new_app


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as made:
        yield made


def run(
    app: Path,
    instance: DagsterInstance,
    *keys: str,
    config: Mapping[str, Any] | None = None,
    resource: KindlingResource | None = None,
    retry_policy: RetryPolicy | None = None,
) -> ExecuteInProcessResult:
    """Materialize assets of the app at ``app``, in this process."""

    @kindling_assets(project=KindlingProject(app), retry_policy=retry_policy)
    def shop(context, kindling: KindlingResource):  # type: ignore[no-untyped-def]
        yield from kindling.run(context).stream()

    defs = Definitions(
        assets=[shop], resources={"kindling": resource or KindlingResource()}, executor=in_process_executor
    )
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        run_config={"ops": {"shop": {"config": dict(config or {})}}},
        asset_selection=[AssetKey(key.split("/")) for key in keys],
        instance=instance,
        raise_on_error=False,
    )


def materialized(result: ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    return {
        "/".join(event.asset_key.path): {k: v.value for k, v in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
    }


def failure(result: ExecuteInProcessResult) -> Any:
    [event] = [e for e in result.all_events if e.event_type == DagsterEventType.STEP_FAILURE]
    return event.event_specific_data.user_failure_data


def rows(app: Path, entity: str) -> list[tuple[Any, ...]]:
    table = DeltaTable(str(app / "data" / "lake" / entity.replace(".", "/"))).to_pyarrow_table()
    return sorted(tuple(row.values()) for row in table.select(table.column_names[:3]).to_pylist())


def calls(app: Path) -> list[str]:
    made = (app / "data" / "calls.txt").read_text().split()
    (app / "data" / "calls.txt").unlink()
    return made


def test_everything_green_and_a_second_run_changes_no_row(new_app: Path, instance: DagsterInstance) -> None:
    app = new_app
    first = run(app, instance, *GOOD)
    assert first.success
    told = materialized(first)
    assert set(told) == set(GOOD)
    assert told["silver/orders"]["dagster/row_count"] == 3
    assert told["silver/orders"]["dagster/uri"] == str(app / "data/lake/silver/orders")
    assert [column.name for column in told["silver/orders"]["dagster/column_schema"].columns] == [
        "id", "item", "amount",
    ]  # fmt: skip
    assert "only Delta tables" in told["memory/recent"]["kindling/unavailable"]
    before = {
        entity: rows(app, entity) for entity in ("silver.orders", "silver.both", "ref.items", "gold.recent")
    }
    assert before["silver.orders"] == CLEAN
    assert before["gold.recent"] == CLEAN[1:]
    second = run(app, instance, "silver/orders", "silver/both", "ref/items")
    assert second.success
    assert {entity: rows(app, entity) for entity in before} == before


def test_a_subset_runs_only_that(app: Path, instance: DagsterInstance) -> None:
    result = run(app, instance, "gold/totals")
    assert result.success
    assert (list(materialized(result)), calls(app)) == (["gold/totals"], ["totals"])


def test_both_writers_make_one_materialization(app: Path, instance: DagsterInstance) -> None:
    result = run(app, instance, "silver/both")
    assert result.success
    told = materialized(result)["silver/both"]
    assert told["kindling/pipes"] == ["both_first", "both_second"]
    assert told["dagster/row_count"] == 7
    (app / "data" / "break_second").touch()
    broken = run(app, instance, "silver/both")
    assert not broken.success
    assert materialized(broken) == {}
    assert "both_second: failed, ValueError: the second writer is broken" in failure(broken).description


@pytest.mark.parametrize(
    ("strategy", "ran", "statuses"),
    [
        ("skip_dependents", {"flaky", "totals"}, {"flaky": "failed", "after_flaky": "upstream_failed"}),
        ("continue", {"flaky", "after_flaky", "totals"}, {"flaky": "failed", "after_flaky": "failed"}),
        (
            "fail_fast",
            {"flaky"},
            {"flaky": "failed", "after_flaky": "upstream_failed", "totals": "not_started"},
        ),
    ],
)
def test_a_failed_pipe_under_every_error_strategy(
    app: Path, instance: DagsterInstance, strategy: str, ran: set[str], statuses: dict[str, str]
) -> None:
    (app / "data" / "fail").write_text("always")
    result = run(
        app,
        instance,
        "silver/flaky",
        "silver/after_flaky",
        "gold/totals",
        config={"error_strategy": strategy},
    )
    assert not result.success
    if strategy == "continue":
        ran = ran - {
            "after_flaky"
        }  # it runs, but its input's table is not there, so its function is not called
    assert set(calls(app)) == ran
    told = {item["pipe"]: item["status"] for item in failure(result).metadata["kindling/failures"].value}
    assert told == statuses
    assert "flaky failed as asked" in failure(result).description
    assert ("gold/totals" in materialized(result)) is ("totals" in ran)


def test_an_error_names_the_line_and_what_to_do(app: Path, instance: DagsterInstance) -> None:
    (app / "data" / "fail").write_text("column")
    [told] = failure(run(app, instance, "silver/flaky")).metadata["kindling/failures"].value
    assert (told["error"]["type"], "no_such_column" in told["error"]["message"]) == (
        "AnalysisException",
        True,
    )
    assert "shop/pipes/steps.py:" in told["error"]["where"]
    assert told["error"]["suggestion"]


def test_a_wrong_signature_fails_that_pipe_alone(app: Path, instance: DagsterInstance) -> None:
    result = run(app, instance, "silver/mended", "gold/totals")
    assert set(materialized(result)) == {"gold/totals"}
    assert "misnamed: failed" in failure(result).description
    assert "silver_orders" in failure(result).description
    assert "misnamed" not in calls(app)


def test_incremental_skips_what_has_no_new_data(app: Path, instance: DagsterInstance) -> None:
    incremental = {"mode": "incremental"}
    assert list(materialized(run(app, instance, "silver/delta", config=incremental))) == ["silver/delta"]
    nothing = run(app, instance, "silver/delta", config=incremental)
    assert (nothing.success, materialized(nothing)) == (True, {})
    full = run(app, instance, "silver/delta", config={**incremental, "full_refresh_pipes": ["follow"]})
    assert list(materialized(full)) == ["silver/delta"]
    with (app / "data" / "orders.csv").open("a") as orders:
        orders.write("5,nib,50\n")
    more = run(app, instance, "bronze/orders", "silver/delta", config=incremental)
    assert list(materialized(more)) == ["bronze/orders", "silver/delta"]
    assert (5, "nib", 50) in rows(app, "silver.delta")


def test_a_memory_entity_needs_its_writer_in_the_run(app: Path, instance: DagsterInstance) -> None:
    result = run(app, instance, "gold/recent")
    assert not result.success
    message = str(next(e for e in result.all_events if e.event_type == DagsterEventType.STEP_FAILURE))
    assert "memory.recent" in message
    assert "recent" in message
    assert calls(app) == []


def test_a_step_retry_runs_only_what_did_not_commit(app: Path, instance: DagsterInstance) -> None:
    (app / "data" / "fail").write_text("once")
    result = run(
        app, instance, "silver/orders", "silver/flaky", "silver/after_flaky",
        retry_policy=RetryPolicy(max_retries=1),
    )  # fmt: skip
    assert result.success
    assert calls(app) == ["clean", "flaky", "flaky", "after_flaky"]


def test_a_pipe_retry_stays_in_the_run(app: Path, instance: DagsterInstance) -> None:
    (app / "data" / "fail").write_text("once")
    config = {"retries": 2, "backoff": 0.0}
    result = run(app, instance, "silver/flaky", config=config)
    assert result.success
    assert calls(app) == ["flaky", "flaky"]
    assert materialized(result)["silver/flaky"]["kindling/attempts"] == 2


def test_a_time_limit_ends_python_that_hangs(app: Path, instance: DagsterInstance) -> None:
    (app / "data" / "fail").write_text("hang")
    result = run(app, instance, "silver/flaky", "gold/totals", config={"pipe_timeout": 15.0})
    told = {item["pipe"]: item["status"] for item in failure(result).metadata["kindling/failures"].value}
    assert told == {"flaky": "timed_out"}
    assert list(materialized(result)) == ["gold/totals"]
    assert not DeltaTable.is_deltatable(str(app / "data/lake/silver/flaky"))


def test_shared_entities_are_cached_on_request_and_the_step_tells(
    app: Path, instance: DagsterInstance
) -> None:
    config = {"auto_cache": True}
    result = run(app, instance, "silver/flaky", "gold/totals", config=config)
    assert result.success
    assert rows(app, "gold.totals") == [("ink", 20), ("pen", 40)]
    (record,) = read_step_records(instance, result.run_id)
    assert record["cache"] == {"silver.orders": {"hits": 1, "misses": 1}}
    found = [each.asset_observation for each in instance.fetch_observations(ORDERS_KEY, limit=9).records]
    told = [
        each.metadata["kindling/cache"].value for each in found if each and "kindling/cache" in each.metadata
    ]
    assert {"hits": 1, "misses": 1} in [
        {name: part.get(name) for name in ("hits", "misses")} for part in told
    ]


def test_parallel_pipes_give_the_same(app: Path, instance: DagsterInstance) -> None:
    keys = ("silver/delta", "silver/both", "gold/totals")
    result = run(app, instance, *keys, resource=KindlingResource(parallel=True, max_workers=3))
    assert result.success
    assert set(materialized(result)) == set(keys)
    assert rows(app, "silver.both")[:3] == CLEAN


def test_a_run_of_some_partitions_reads_and_replaces_these_alone(
    app: Path, instance: DagsterInstance
) -> None:
    job = build_kindling_definitions(KindlingProject(app), checks=False).resolve_job_def("shop_all")
    arguments: dict[str, Any] = {
        "asset_selection": [AssetKey(["gold", "by_item"])],
        "instance": instance,
        "raise_on_error": False,
    }
    span = {"dagster/asset_partition_range_start": "ink", "dagster/asset_partition_range_end": "pen"}
    assert job.execute_in_process(tags=span, **arguments).success
    assert rows(app, "gold.by_item") == [("ink", 20), ("pen", 40)]
    more = pa.table({"id": [5, 6], "item": ["pen", "ink"], "amount": [60, 80]})
    write_deltalake(str(app / "data/lake/silver/orders"), more, mode="append")
    result = job.execute_in_process(partition_key="pen", **arguments)
    assert rows(app, "gold.by_item") == [("ink", 20), ("pen", 100)]
    told = materialized(result)["gold/by_item"]["kindling/window"]
    assert (told["partitions"], told["columns"]) == (["pen"], {"silver.orders": "item"})
    key = AssetKey(["gold", "by_item"])
    assert instance.get_materialized_partitions(key) == {"ink", "pen"}


def test_landed_files_are_ingested_exactly_once_also_when_a_run_ends_before_it_is_recorded(
    app: Path, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = app / "settings.yaml"
    paths = "  dagster:\n    ingestion: {landing: data/landing, archive: data/taken, settle: 0}\n"
    settings.write_text(settings.read_text().replace("kindling:\n", f"kindling:\n{paths}", 1))
    (app / "data/landing").mkdir()
    job = build_kindling_definitions(KindlingProject(app), checks=False).resolve_job_def("shop_ingest")

    def ingest(name: str, text: str) -> ExecuteInProcessResult:
        (app / "data/landing" / name).write_text(f"note\n{text}\n")
        return job.execute_in_process(instance=instance, raise_on_error=False)

    def notes() -> list[str]:
        table = DeltaTable(str(app / "data/lake/dropped/notes")).to_pyarrow_table()
        return sorted(table["note"].to_pylist())

    first = ingest("notes_1.csv", "one")
    assert first.success
    assert materialized(first)["dropped/notes"]["dagster/row_count"] == 1
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "finish", lambda *_: 1 / 0)  # after the commit, before the record
        assert not ingest("notes_2.csv", "two").success
    assert notes() == ["one", "two"]
    assert ingest("notes_3.csv", "three").success
    assert notes() == ["one", "three", "two"]
    assert not list((app / "data/landing").iterdir())


def test_a_secret_location_is_resolved_where_it_is_used(
    app: Path, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SHOP_SECRET_PATH")
    missing = run(app, instance, "gold/secret")
    message = str(next(e for e in missing.all_events if e.event_type == DagsterEventType.STEP_FAILURE))
    assert "SHOP_SECRET_PATH" in message
    assert "gold.secret" in message
    monkeypatch.setenv("SHOP_SECRET_PATH", str(tmp_path / "hidden"))
    result = run(app, instance, "gold/secret")
    assert result.success
    assert DeltaTable(str(tmp_path / "hidden")).version() >= 0
    told = str(materialized(result)) + KindlingProject(app).manifest.to_json()
    assert str(tmp_path / "hidden") not in told


def test_two_apps_in_one_run_are_refused(app: Path, instance: DagsterInstance, tmp_path: Path) -> None:
    shutil.copytree(app, tmp_path / "other")
    (tmp_path / "other" / "app.yaml").write_text("name: other\n")

    from kindling_dagster import AssetData, DagsterKindlingTranslator

    class Other(DagsterKindlingTranslator):
        def get_asset_key(self, data: AssetData) -> AssetKey:
            return super().get_asset_key(data).with_prefix("other")

    first = build_kindling_definitions(KindlingProject(app))
    second = build_kindling_definitions(KindlingProject(tmp_path / "other"), translator=Other())
    defs = Definitions(
        assets=[*(first.assets or []), *(second.assets or [])],
        resources={
            "kindling": KindlingResource(),
            "kindling_io_manager": KindlingIOManager(KindlingProject(app)),
        },
        executor=in_process_executor,
    )
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        asset_selection=[AssetKey(["bronze", "orders"]), AssetKey(["other", "bronze", "orders"])],
        instance=instance,
        raise_on_error=False,
    )
    assert len(materialized(result)) == 1
    message = str(next(e for e in result.all_events if e.event_type == DagsterEventType.STEP_FAILURE))
    assert "cannot run in this process" in message
