"""Checks of tables as Dagster sees them: their specs, their own step without a JVM, what holds back what."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from dagster import (
    AssetCheckKey,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    JobDefinition,
    RetryPolicy,
    asset,
)
from delta_tables import backdate, write
from manifests import entity, manifest, pipe

from kindling_dagster import (
    DagsterKindlingTranslator,
    KindlingProject,
    KindlingResource,
    build_kindling_definitions,
    build_table_checks,
    kindling_assets,
)
from kindling_dagster.assets import CHECKS_TAG
from kindling_dagster.dag.results import PipeError, PipeResult, PipeStatus
from kindling_dagster.engines.base import PipeFinished, RunEvent, RunRequest
from kindling_dagster.errors import DeclarationError
from kindling_dagster.manifest import Location, Manifest
from kindling_dagster.table_checks.events import evaluations_of
from kindling_dagster.table_checks.outcome import CheckOutcome
from kindling_dagster.translator import CheckData

ORDERS, RAW = AssetKey(["silver", "orders"]), AssetKey(["raw", "orders"])
UNIQUE = AssetCheckKey(ORDERS, "merge_keys_unique")
NOT_NULL = AssetCheckKey(ORDERS, "merge_keys_not_null")
FRESH = AssetCheckKey(RAW, "source_freshness")
SCHEMA = pa.schema([("id", pa.int64())])


def shop(folder: Path, tags: Mapping[str, str] | None = None, **more: Any) -> Manifest:
    """An app: raw.orders → silver.orders (keyed by id) → gold.totals."""
    return manifest(
        pipe("clean", "raw.orders", "silver.orders"),
        pipe("total", "silver.orders", "gold.totals"),
        entities=(
            entity(
                "silver.orders",
                merge_columns=("id",),
                location=Location("path", str(folder / "orders")),
                tags=dict(tags or {}),
            ),
            entity(
                "raw.orders",
                location=Location("path", str(folder / "raw")),
                tags={"dagster/max_age": "1h", **more.pop("raw", {})},
            ),
        ),
        **more,
    )


def project(folder: Path, tags: Mapping[str, str] | None = None, **more: Any) -> KindlingProject:
    file = folder / "manifest.json"
    file.write_text(shop(folder, tags, **more).to_json())
    app = folder / "shop"
    app.mkdir(exist_ok=True)
    (app / "app.py").touch()
    return KindlingProject(app, manifest=file)


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as made:
        yield made


def keys_of(defs: Definitions) -> set[AssetCheckKey]:
    return set(defs.resolve_asset_graph().asset_check_keys)


def check_alone(defs: Definitions) -> JobDefinition:
    """What "Execute" on the check's page runs."""
    job = defs.resolve_implicit_global_asset_job_def()
    return job.get_subset(asset_selection=set(), asset_check_selection={UNIQUE})


def test_definitions_have_the_checks_unless_told_not_to(tmp_path: Path) -> None:
    made = project(tmp_path)
    assert keys_of(build_kindling_definitions(made)) == {UNIQUE, NOT_NULL, FRESH}
    assert keys_of(build_kindling_definitions(made, checks=False)) == set()
    assert keys_of(build_kindling_definitions(made, select="gold.totals")) == {FRESH}
    (checks,) = build_table_checks(made)
    assert set(checks.check_keys) == {UNIQUE, NOT_NULL, FRESH}
    none = project(tmp_path, settings={"kindling.dagster.checks.enabled": False})
    assert build_table_checks(none) == ()


def test_each_check_runs_by_itself_and_starts_no_jvm(tmp_path: Path, instance: DagsterInstance) -> None:
    write(tmp_path / "orders", [{"id": 1}, {"id": 1}], SCHEMA)
    defs = build_kindling_definitions(project(tmp_path))
    result = check_alone(defs).execute_in_process(instance=instance)
    assert result.success  # not blocking: it is reported, and that is all
    (found,) = result.get_asset_check_evaluations()
    assert (found.passed, found.severity, found.blocking) == (False, AssetCheckSeverity.ERROR, False)
    assert found.description == "1 keys have more than one row, 1 rows too many."
    assert [each.data for each in found.metadata["kindling/examples"].records] == [{"id": 1, "rows": 2}]


def test_checking_starts_neither_kindling_nor_a_jvm(tmp_path: Path) -> None:
    write(tmp_path / "orders", [{"id": 1}], SCHEMA)
    project(tmp_path)
    code = """
import sys
from dagster import AssetCheckKey, AssetKey
from kindling_dagster import KindlingProject, build_kindling_definitions
defs = build_kindling_definitions(KindlingProject(manifest="manifest.json"))
job = defs.resolve_implicit_global_asset_job_def()
check = {AssetCheckKey(AssetKey(["silver", "orders"]), "merge_keys_unique")}
result = job.get_subset(asset_selection=set(), asset_check_selection=check).execute_in_process()
assert [each.passed for each in result.get_asset_check_evaluations()] == [True]
from pyspark import SparkContext
assert "kindling" not in sys.modules and SparkContext._gateway is None
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=tmp_path)


class Told:
    """An engine whose pipes end as told, run by run: nothing is done."""

    def __init__(self, *results: Mapping[str, PipeResult]) -> None:
        self.requests: list[RunRequest] = []
        self._results = results

    def run(self, request: RunRequest) -> Iterator[RunEvent]:
        results = self._results[min(len(self.requests), len(self._results) - 1)]
        self.requests.append(request)
        for pipe_id in request.pipe_ids:
            yield PipeFinished(results[pipe_id])

    def close(self) -> None:
        """Nothing to let go of."""


HELD = CheckOutcome("merge_keys_unique", False, "1 keys …", severe=True, blocking=True)


def ended(pipe_id: str, outcome: CheckOutcome | None = None, **metadata: Any) -> PipeResult:
    """A pipe that has committed, and what the step has found of its table."""
    metadata = {"commits": [], **metadata}
    if outcome is not None:
        metadata["checks"] = [outcome.to_data()]
    held = outcome is not None and outcome.holds_back
    error = PipeError(pipe_id, "CheckFailed", "a blocking check failed") if held else None
    status = PipeStatus.FAILED if held else PipeStatus.SUCCEEDED
    return PipeResult(
        pipe_id, status, started_at=1.0, ended_at=2.0, attempts=1, error=error, metadata=metadata
    )


NOT_RUN = PipeResult("total", PipeStatus.UPSTREAM_FAILED, cause="clean")
BROKEN = PipeResult("total", PipeStatus.FAILED, error=PipeError("total", "ValueError", "broken"))


def resource(engine: Told) -> KindlingResource:
    class Resource(KindlingResource):
        def engine_for(self, project: KindlingProject, context: AssetExecutionContext) -> Any:
            return engine

    return Resource()


def run(
    made: KindlingProject, engine: Told, instance: DagsterInstance, **options: Any
) -> ExecuteInProcessResult:
    @asset(deps=[ORDERS])
    def report() -> None:
        """Something of another code location."""

    defs = Definitions.merge(
        build_kindling_definitions(made, resource=resource(engine)), Definitions(assets=[report])
    )
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, raise_on_error=False, **options)


BLOCKED = {"dagster/blocking_checks": "merge_keys_unique"}


def test_the_step_is_asked_for_what_blocks(tmp_path: Path, instance: DagsterInstance) -> None:
    write(tmp_path / "orders", [{"id": 1}], SCHEMA)
    results = {"clean": ended("clean"), "total": ended("total")}
    engine = Told(results)
    run(project(tmp_path), engine, instance)
    run(project(tmp_path, BLOCKED), engine, instance)
    assert [request.checks for request in engine.requests] == [
        {},
        {"silver.orders": {"merge_keys_unique": True}},
    ]


def test_a_blocking_check_that_failed_in_the_step_keeps_the_materialization_and_ends_the_run(
    tmp_path: Path, instance: DagsterInstance
) -> None:
    result = run(
        project(tmp_path, BLOCKED), Told({"clean": ended("clean", HELD), "total": NOT_RUN}), instance
    )
    assert not result.success
    assert [event.asset_key for event in result.get_asset_materialization_events()] == [ORDERS]
    (found,) = evaluations_of(instance, result.run_id).values()
    assert (found.passed, found.blocking, found.description) == (False, True, "1 keys …")
    ran = {event.step_key for event in result.all_events if event.is_step_start}
    assert ran == {"kindling_shop"}  # neither the checks' own step nor what is outside


def test_what_the_step_has_found_is_not_looked_for_again(tmp_path: Path, instance: DagsterInstance) -> None:
    passed = CheckOutcome("merge_keys_unique", True, "as the step saw it", severe=True, blocking=True)
    engine = Told({"clean": ended("clean", passed), "total": ended("total")})
    result = run(project(tmp_path, BLOCKED), engine, instance)
    assert result.success  # there is no table: looked for again, it could not be checked
    told = evaluations_of(instance, result.run_id)
    assert told[UNIQUE].description == "as the step saw it"
    assert told[NOT_NULL].description.startswith("Could not be checked.")
    assert "report" in {event.step_key for event in result.all_events if event.is_step_success}


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({"clean": ended("clean", HELD), "total": NOT_RUN}, ("clean", "total")),
        ({"clean": ended("clean"), "total": BROKEN}, ("total",)),
    ],
)
def test_a_step_that_is_tried_again_builds_upon_nothing_that_was_held_back(
    tmp_path: Path, instance: DagsterInstance, first: dict[str, PipeResult], again: tuple[str, ...]
) -> None:
    engine = Told(first, {"clean": ended("clean"), "total": ended("total")})

    @kindling_assets(project=project(tmp_path, BLOCKED), retry_policy=RetryPolicy(max_retries=1))
    def shop(context, kindling: KindlingResource):  # type: ignore[no-untyped-def]
        yield from kindling.run(context).stream()

    defs = Definitions(assets=[shop], resources={"kindling": resource(engine)})
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance).success
    assert [request.pipe_ids for request in engine.requests] == [("clean", "total"), again]


def test_a_source_that_must_be_fresh_goes_first(tmp_path: Path, instance: DagsterInstance) -> None:
    made = project(tmp_path, raw={"dagster/blocking_checks": "true"})
    defs = build_kindling_definitions(made)
    assert FRESH in defs.resolve_job_def("shop_all").asset_layer.asset_graph.asset_check_keys
    old = tmp_path / "raw"
    write(old, [{"id": 1}], SCHEMA)
    backdate(old, 0, hours=5)
    engine = Told({})
    result = run(made, engine, instance)
    assert not result.success
    assert engine.requests == []


def test_a_step_without_checks_has_no_tag_for_them(tmp_path: Path) -> None:
    def step(made: KindlingProject, **options: Any) -> Mapping[str, str]:
        @kindling_assets(project=made, **options)
        def shop(context):  # type: ignore[no-untyped-def]
            yield from ()

        return shop.op.tags

    assert CHECKS_TAG not in step(project(tmp_path))
    assert CHECKS_TAG in step(project(tmp_path, BLOCKED))
    assert CHECKS_TAG not in step(project(tmp_path, BLOCKED), blocking_checks=False)


def test_the_translator_decides_what_blocks_and_renames_nothing(tmp_path: Path) -> None:
    class Strict(DagsterKindlingTranslator):
        def get_asset_check_spec(self, data: CheckData) -> AssetCheckSpec:
            return super().get_asset_check_spec(data)._replace(blocking=data.name == "merge_keys_unique")

    class Renaming(DagsterKindlingTranslator):
        def get_asset_check_spec(self, data: CheckData) -> AssetCheckSpec:
            return AssetCheckSpec(f"my_{data.name}", asset=self.get_asset_key(data.asset))

    (checks,) = build_table_checks(project(tmp_path), translator=Strict())
    assert [spec.name for spec in checks.check_specs if spec.blocking] == ["merge_keys_unique"]
    with pytest.raises(DeclarationError, match=r"names the check merge_keys_not_null of silver\.orders my_"):
        build_table_checks(project(tmp_path), translator=Renaming())
