"""Assets of one's own that take entities as inputs, through Dagster; no Spark but where it is asked for."""

from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from dagster import (
    AssetIn,
    AssetKey,
    AssetSpec,
    DagsterInstance,
    DailyPartitionsDefinition,
    Definitions,
    MaterializeResult,
    SpecificPartitionsPartitionMapping,
    TimeWindowPartitionMapping,
    asset,
    build_output_context,
)
from manifests import entity, manifest, pipe
from table_checks.delta_tables import write

from kindling_dagster import (
    AssetData,
    DagsterKindlingTranslator,
    KindlingIOManager,
    KindlingProject,
    build_kindling_definitions,
)
from kindling_dagster.errors import RunError
from kindling_dagster.manifest import Location, SecretRef

SCHEMA = pa.schema([("id", pa.int64()), ("amount", pa.int64())])
APP = manifest(
    pipe("clean", "bronze.orders", "silver.orders"),
    entities=(
        entity("silver.items", scd2=True, tags={"scd.current_col": "now"}, layer="silver"),
        entity(
            "silver.items.current",
            provider="current_view",
            companion_of="silver.items",
            location=Location("none"),
        ),
        entity("bronze.pages", provider="csv"),
    ),
)


class Prefixed(DagsterKindlingTranslator):
    def get_asset_key(self, data: AssetData) -> AssetKey:
        return super().get_asset_key(data).with_prefix("lake")


@pytest.fixture
def project(tmp_path: Path) -> KindlingProject:
    APP.write(tmp_path / "manifest.json")
    rows = [{"id": number, "amount": number * 10} for number in (1, 2, 3)]
    write(tmp_path / "lake/silver/orders", rows, SCHEMA)
    write(tmp_path / "lake/bronze/orders", rows[:1], SCHEMA)
    history = [{"id": 1, "now": False}, {"id": 1, "now": True}]
    write(tmp_path / "lake/silver/items", history, pa.schema([("id", pa.int64()), ("now", pa.bool_())]))
    return KindlingProject(manifest=tmp_path / "manifest.json", working_dir=tmp_path)


def materialize(project: KindlingProject, *assets: Any, translator: Any = None, **arguments: Any) -> Any:
    """Materialize assets of one's own, in definitions that hold the app's too."""
    app = build_kindling_definitions(project, translator=translator)
    defs = Definitions.merge(app, Definitions(assets=assets))
    with DagsterInstance.ephemeral() as instance:
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=[key for one in assets if not isinstance(one, AssetSpec) for key in one.keys],
            instance=instance,
            raise_on_error=False,
            **arguments,
        )


def error_of(result: Any) -> str:
    [event] = [event for event in result.all_events if event.is_step_failure]
    return event.event_specific_data.error.to_string()


def test_annotations_decide_and_metadata_narrows_and_the_default_io_manager_keeps_the_rest(
    project: KindlingProject,
) -> None:
    @asset(ins={"orders": AssetIn(["silver", "orders"], metadata={"filters": [("id", ">", 1)]})})
    def total(orders: pd.DataFrame) -> int:
        return int(orders["amount"].sum())

    @asset(
        ins={
            "raw": AssetIn(["bronze", "orders"], metadata={"columns": ["id"]}),
            "items": AssetIn(["silver", "items"], metadata={"current": True}),
        }
    )
    def report(total: int, raw: pa.Table, items: pa.Table) -> MaterializeResult:
        return MaterializeResult(
            metadata={"total": total, "columns": raw.column_names, "items": items.num_rows}
        )

    result = materialize(project, total, report)
    assert result.success
    [told] = result.asset_materializations_for_node("report")
    found = {name: value.value for name, value in told.metadata.items()}
    assert found == {"total": 50, "columns": ["id"], "items": 1}


def test_keys_of_a_translator_lead_to_the_entity(project: KindlingProject) -> None:
    @asset(ins={"orders": AssetIn(["lake", "silver", "orders"])})
    def count(orders: pa.Table) -> None:
        assert orders.num_rows == 3

    assert materialize(project, count, translator=Prefixed()).success


def test_a_partitioned_asset_reads_the_whole_entity(project: KindlingProject) -> None:
    @asset(
        ins={"orders": AssetIn(["silver", "orders"])}, partitions_def=DailyPartitionsDefinition("2024-01-01")
    )
    def count(orders: pa.Table) -> None:
        assert orders.num_rows == 3

    assert materialize(project, count, partition_key="2024-01-02").success


@pytest.mark.parametrize(
    ("mapping", "days"),
    [
        (None, ["2024-01-02"]),
        (TimeWindowPartitionMapping(start_offset=-1), ["2024-01-01", "2024-01-02"]),
        # Partitions that do not follow one another: those between them are not read.
        (SpecificPartitionsPartitionMapping(["2024-01-03", "2024-01-01"]), ["2024-01-01", "2024-01-03"]),
        # Before the first: there is none, and no row.
        (TimeWindowPartitionMapping(-5, -5, allow_nonexistent_upstream_partitions=True), []),
    ],
)
def test_of_a_partitioned_entity_the_partitions_are_read_that_the_input_maps_to(
    tmp_path: Path, mapping: Any, days: list[str]
) -> None:
    tags = {
        "dagster/partitions": "daily",
        "dagster/partitions.start": "2024-01-01",
        "dagster/partition_column": "day",
    }
    sales = entity("silver.sales", tags=tags, merge_columns=("day",))
    manifest(pipe("clean", "bronze.sales", "silver.sales"), entities=(sales,)).write(
        tmp_path / "manifest.json"
    )
    rows = [{"day": date(2024, 1, number)} for number in (1, 2, 3)]
    write(tmp_path / "lake/silver/sales", rows, pa.schema([("day", pa.date32())]))

    @asset(
        ins={"sales": AssetIn(["silver", "sales"], partition_mapping=mapping)},
        partitions_def=DailyPartitionsDefinition("2024-01-01"),
    )
    def found(sales: pa.Table) -> None:
        assert [str(day) for day in sales["day"].to_pylist()] == days

    project = KindlingProject(manifest=tmp_path / "manifest.json", working_dir=tmp_path)
    assert materialize(project, found, partition_key="2024-01-02").success


def test_inputs_that_cannot_be_read_fail_with_advice(project: KindlingProject) -> None:
    @asset(ins={"orders": AssetIn(["silver", "orders"])})
    def as_dict(orders: dict) -> None:  # type: ignore[type-arg]
        """Never called."""

    @asset(ins={"pages": AssetIn(["bronze", "pages"])})
    def of_csv(pages: pd.DataFrame) -> None:
        """Never called."""

    @asset(ins={"other": AssetIn("other", input_manager_key="kindling_io_manager")})
    def of_another(other: pd.DataFrame) -> None:
        """Never called."""

    assert "Annotate it with one of pandas.DataFrame, pyarrow.Table" in error_of(
        materialize(project, as_dict)
    )
    assert "Take it as a pyspark DataFrame." in error_of(materialize(project, of_csv))
    assert "is no entity of the Kindling app" in error_of(
        materialize(project, of_another, AssetSpec("other"))
    )


def test_a_location_that_is_a_secret_shows_in_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERS_PATH", str(tmp_path / "hidden"))
    orders = entity("silver.orders", location=Location("secret", "ORDERS_PATH"))
    manifest(
        pipe("clean", "bronze.orders", "silver.orders"),
        entities=(orders,),
        secrets=(SecretRef("ORDERS_PATH", "silver.orders.tags.provider.path"),),
    ).write(tmp_path / "manifest.json")
    write(tmp_path / "hidden", [{"id": 1, "amount": 1}], SCHEMA)
    next((tmp_path / "hidden").glob("*.parquet")).unlink()

    @asset(ins={"found": AssetIn(["silver", "orders"])})
    def report(found: pa.Table) -> None:
        """Never called."""

    project = KindlingProject(manifest=tmp_path / "manifest.json", working_dir=tmp_path)
    told = error_of(materialize(project, report))
    assert "silver.orders cannot be read" in told
    assert "the location of silver.orders is a secret" in told
    assert "hidden" not in told


def test_nothing_is_written(project: KindlingProject) -> None:
    @asset(io_manager_key="kindling_io_manager")
    def mine() -> int:
        return 1

    assert "The KindlingIOManager writes nothing" in error_of(materialize(project, mine))
    with pytest.raises(RunError):
        KindlingIOManager(project).handle_output(build_output_context(name="x", step_key="x"), 1)


def test_a_spark_frame_is_refused_without_starting_spark_where_only_pipes_can_read(
    project: KindlingProject,
) -> None:
    from pyspark.sql import DataFrame

    from kindling_dagster.spark import session_is_up

    @asset(ins={"pages": AssetIn(["bronze", "pages"])})
    def of_csv(pages: DataFrame) -> None:
        """Never called."""

    assert "which only the app's own pipes read" in error_of(materialize(project, of_csv))
    assert not session_is_up()
