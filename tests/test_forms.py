"""Every form of app: what is recorded equals what Kindling holds after a real start, and Dagster runs it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from app_forms import APPS, SECRETS, dynamic, finished_scaffold, manifest_cache, quick, recorded, scaffold
from dagster import DagsterInstance, ExecuteInProcessResult
from deltalake import DeltaTable, write_deltalake

from kindling_dagster import KindlingProject, build_kindling_definitions
from kindling_dagster.manifest import Location, Manifest
from kindling_dagster.runtime import KindlingRuntime

__all__ = ["manifest_cache", "quick"]

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("quick")]


def live_entities(runtime: KindlingRuntime) -> dict[str, dict[str, Any]]:
    """Kindling's entity registry, as plain data."""
    found = {}
    for entity_id in runtime.entities.get_entity_ids():
        entity = runtime.entities.get_entity_definition(entity_id)
        schema = entity.schema
        if isinstance(schema, list):
            schema = type(runtime.spark.range(0).schema)(schema)
        derivations = runtime.entities.derivations_for(entity_id)
        found[entity_id] = {
            "name": entity.name,
            "tags": dict(entity.tags),
            "merge_columns": tuple(entity.merge_columns or ()),
            "partition_columns": tuple(entity.partition_columns or ()),
            "cluster_columns": tuple(entity.cluster_columns or ()),
            "schema": None if schema is None else json.loads(schema.json())["fields"],
            "sql": entity.sql,
            "clone_of": next((d.clone_of for d in derivations if d.is_clone), ""),
            "location": live_location(runtime, entity),
        }
    return found


def live_location(runtime: KindlingRuntime, entity: Any) -> tuple[str, str] | None:
    """Where Kindling's Delta provider would read and write."""
    if entity.sql is not None or entity.tags.get("provider_type", "delta") != "delta":
        return None
    reference = runtime.providers.get_provider("delta")._get_table_reference(entity)
    if reference.access_mode == "storage":
        return ("path", reference.table_path)
    return ("table", reference.table_name)


def live_pipes(runtime: KindlingRuntime) -> dict[str, dict[str, Any]]:
    from kindling.data_pipes import resolve_driving_entity_ids

    found = {}
    for pipe_id in runtime.pipes.get_pipe_ids():
        pipe = runtime.pipes.get_pipe_definition(pipe_id)
        derivations = runtime.pipes.derivations_for(pipe_id)
        found[pipe_id] = {
            "name": pipe.name,
            "tags": dict(pipe.tags),
            "input_entity_ids": tuple(pipe.input_entity_ids),
            "output_entity_id": pipe.output_entity_id,
            "output_type": pipe.output_type,
            "driving_entity_ids": tuple(resolve_driving_entity_ids(pipe)),
            "use_watermark": pipe.use_watermark,
            "clone_of": next((d.clone_of for d in derivations if d.is_clone), ""),
            "extended": any(not d.is_clone for d in derivations),
        }
    return found


def manifest_entities(manifest: Manifest, secrets: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    return {
        entity.id: {
            "name": entity.name,
            "tags": {name: secrets.get(value[8:], value) for name, value in entity.tags.items()},
            "merge_columns": entity.merge_columns,
            "partition_columns": entity.partition_columns,
            "cluster_columns": entity.cluster_columns,
            "schema": None if entity.schema is None else [dict(field) for field in entity.schema],
            "sql": entity.sql,
            "clone_of": entity.clone_of,
            "location": None if entity.provider != "delta" else manifest_location(entity.location, secrets),
        }
        for entity in manifest.entities
    }


def manifest_location(location: Location, secrets: Mapping[str, str]) -> tuple[str, str]:
    return ("path", secrets[location.value]) if location.kind == "secret" else (location.kind, location.value)


def manifest_pipes(manifest: Manifest) -> dict[str, dict[str, Any]]:
    names = (
        "name",
        "input_entity_ids",
        "output_entity_id",
        "output_type",
        "driving_entity_ids",
        "use_watermark",
    )
    return {
        pipe.id: {name: getattr(pipe, name) for name in (*names, "clone_of", "extended")}
        | {"tags": dict(pipe.tags)}
        for pipe in manifest.pipes
    }


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from kindling_dagster.spark import build_session

    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("spark"))
    session = build_session({"spark.master": "local[2]", "spark.sql.shuffle.partitions": 2})
    yield session
    os.chdir(before)
    session.stop()


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as made:
        yield made


def kitchen(directory: Path) -> Path:
    return APPS / "kitchen"


@dataclass(frozen=True)
class Form:
    """An app and how it loads; with ``given`` and ``made`` it is run, too: rows by entity."""

    make: Callable[[Path], Path]
    form: str
    recorded_by: str = "recorder"
    environment: str = "local"
    given: Mapping[str, list[dict[str, Any]]] | None = None
    made: Mapping[str, list[dict[str, Any]]] | None = None


RAW = [{"id": 1, "code": "x"}, {"id": 2, "code": "y"}]
FORMS = {
    "scaffold": Form(scaffold, "scaffold"),
    "scaffold that is finished": Form(
        finished_scaffold,
        "scaffold",
        given={"bronze.orders": [{"id": "1"}, {"id": "2"}]},
        made={"bronze.to_silver_output": [{"id": "1"}, {"id": "2"}]},
    ),
    "kitchen": Form(kitchen, "scaffold"),
    "kitchen in catalog mode": Form(kitchen, "scaffold", environment="prod"),
    "entry point": Form(
        lambda _: APPS / "counter",
        "entry_point",
        given={"words": [{"word": "a"}, {"word": "b"}, {"word": "a"}]},
        made={"counts": [{"word": "a", "n": 2}, {"word": "b", "n": 1}]},
    ),
    "packages": Form(lambda _: APPS / "kitchen" / "src" / "kitchen", "packages"),
    "dynamic": Form(
        dynamic, "dynamic", "initialized", given={"raw.a": RAW}, made={"clean.a": RAW, "clean.b": RAW}
    ),
}


@pytest.mark.parametrize("case", FORMS)
def test_it_is_recorded_as_kindling_holds_it_and_runs(
    case: str, spark: Any, instance: DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = FORMS[case]
    secrets = {**SECRETS, "DYNAMIC_ROOT": str(tmp_path / "raw")}
    for key, value in secrets.items():
        monkeypatch.setenv(key, value)
    project = KindlingProject(form.make(tmp_path), environment=form.environment, working_dir=tmp_path)
    manifest = project.manifest
    with KindlingRuntime.start(project, spark) as runtime:
        entities, pipes = live_entities(runtime), live_pipes(runtime)
        entries = set(runtime.ingestion.get_entry_ids())
    assert entities
    assert manifest_entities(manifest, secrets) == entities
    assert manifest_pipes(manifest) == pipes
    assert {entry.id for entry in manifest.ingestion} == entries
    assert (manifest.app.form, manifest.app.recorded_by) == (form.form, form.recorded_by)
    text = manifest.to_json()
    assert [value for value in secrets.values() if value in text] == []
    if form.given and form.made:
        paths = {entity: tmp_path / location[1] for entity, location in locations(manifest, secrets).items()}
        for entity_id, rows in form.given.items():
            write_deltalake(str(paths[entity_id]), pd.DataFrame(rows))
        result = materialize_all(project, instance)
        assert result.success
        told = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
        assert told == {entity_id.replace(".", "/") for entity_id in form.made}
        assert {entity_id: rows_of(paths[entity_id]) for entity_id in form.made} == form.made


def locations(manifest: Manifest, secrets: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {entity.id: manifest_location(entity.location, secrets) for entity in manifest.entities}


def materialize_all(project: KindlingProject, instance: DagsterInstance) -> ExecuteInProcessResult:
    job = build_kindling_definitions(project).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, raise_on_error=False)


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(str(path)).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: str(row))


def test_an_unfinished_scaffold_is_refused_by_what_is_missing(
    spark: Any, instance: DagsterInstance, tmp_path: Path
) -> None:
    app = scaffold(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = materialize_all(KindlingProject(app, working_dir=tmp_path), instance)
    [failure] = [event for event in result.all_events if event.is_step_failure]
    error = failure.event_specific_data.error
    told = error.to_string() if error is not None else ""
    assert "Pipe 'bronze.to_silver' reads entity 'bronze.orders', which is not declared" in told
    assert "Declare it with DataEntities.entity" in told
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == []


def test_a_real_start_records_the_same_also_without_some_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in SECRETS.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("KITCHEN_API_TOKEN")
    initialized = KindlingProject(APPS / "kitchen", form="dynamic").manifest
    assert initialized.app.recorded_by == "initialized"
    for part in ("entities", "pipes", "ingestion", "settings", "secrets", "problems"):
        assert getattr(initialized, part) == getattr(recorded("kitchen"), part), part
