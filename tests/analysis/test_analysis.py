"""A dry run of an app with one pipe per kind of finding, on real Spark: what is found, where, and that nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from click.testing import CliRunner
from dagster import DagsterInstance
from deltalake import write_deltalake
from kindling_dagster_demo import feed

from kindling_dagster import KindlingProject, build_kindling_definitions
from kindling_dagster.analysis import analyzer
from kindling_dagster.analysis.findings import AnalysisResult, Finding, PipeAnalysis, Verdict
from kindling_dagster.analysis.run import analyze_project
from kindling_dagster.cli import main
from kindling_dagster.spark import build_session

pytestmark = pytest.mark.spark

APP = Path(__file__).parent / "app"
DEMO = Path(__file__).parents[2] / "demo"
BROKEN = APP / "shop" / "pipes" / "broken.py"
TABLES = {
    "raw/orders": {"id": "1", "item": "pen", "amount": "10"},
    "sound/wide": {"id": 1, "item": "pen", "amount": 10, "old_column": "old"},
    "broken/drift": {"id": 1, "item": "pen", "amount": 10},
    "broken/live_type": {"id": 1, "amount": 10},
}
SOUND = {
    "land": {"raw.orders": "live"},
    "history": {"bronze.orders": "derived"},
    "current": {"sound.history.current": "derived"},
    "keyless": {"bronze.orders": "derived"},
    "memory": {"bronze.orders": "derived"},
    "view": {"sound.memory": "derived", "bronze.orders": "derived"},
    "derived": {"sound.view": "derived"},
    "stream": {"bronze.orders": "derived"},
    "cloned": {"bronze.orders": "derived"},
    "extended": {"bronze.orders": "derived", "sound.keyless": "derived"},
    "wide": {"bronze.orders": "derived"},
    "after_wide": {"sound.wide": "derived"},
    "counts": {"bronze.orders": "derived"},
    "from_sql": {"sound.sql": "derived"},
    "audited": {"bronze.orders": "derived"},
    "after_declared": {"broken.column": "declared"},
    "caught": {"bronze.orders": "derived"},
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analysis") / "app"
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for place, row in TABLES.items():
        (lake := folder / "data" / "lake" / place).mkdir(parents=True)
        write_deltalake(str(lake), pd.DataFrame([row]))
    return folder


@pytest.fixture(scope="module")
def spark(app: Path) -> Iterator[Any]:
    warehouse = str(app.parent / "warehouse")
    session = build_session({"spark.master": "local[2]", "spark.sql.warehouse.dir": warehouse})
    yield session
    session.stop()


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "refused.txt"
    }


def analyze(
    app: Path, spark: Any, *pipes: str, timeout: float = 120.0, watermarks: bool = False
) -> AnalysisResult:
    *_, result = analyze_project(
        KindlingProject(app), lambda: spark, pipes or None, timeout=timeout, watermarks=watermarks
    )
    assert isinstance(result, AnalysisResult)
    return result


@pytest.fixture(scope="module")
def result(app: Path, spark: Any) -> AnalysisResult:
    everything = [pipe.id for pipe in KindlingProject(app).manifest.pipes if pipe.id != "hangs"]
    before = files_below(app.parent)
    tables = spark.catalog.listTables()
    made = analyze(app, spark, *everything)
    assert files_below(app.parent) == before
    assert spark.catalog.listTables() == tables  # no table and no temp view is left behind
    return made


def of(result: AnalysisResult, pipe_id: str) -> PipeAnalysis:
    return next(pipe for pipe in result.pipes if pipe.pipe_id == pipe_id)


def line_of(marker: str, file: Path = BROKEN) -> int:
    lines = file.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if marker in line)


@pytest.mark.parametrize("pipe_id", SOUND)
def test_nothing_is_wrong_with_a_sound_pipe(result: AnalysisResult, pipe_id: str) -> None:
    analysis = of(result, pipe_id)
    assert (analysis.findings, analysis.reason, analysis.verdict) == ((), "", Verdict.OK)
    assert analysis.inputs == SOUND[pipe_id]


FINDINGS = [
    # pipe, kind, severity, column, line, part of the message, part of the suggestion
    ("column", "missing_column", "error", "amuont", "# line: column", "bronze.orders has id, item", "`amount`"),
    ("attribute", "missing_column", "error", "itme", "# line: attribute", "no column `itme`", "`item`"),
    ("wrong_type", "wrong_type", "error", "amount", "# line: wrong_type", "DATATYPE_MISMATCH", "cast"),
    ("raises", "pipe_error", "error", "", "# line: raises", "KeyError: 'rates'", "key is asked for"),
    ("none", "no_frame", "error", "", 'pipe("bronze.orders", "broken.none")', "gives None", "Return the frame"),
    ("key", "missing_key", "error", "id", '"broken.key"', "merge column of broken.key", "`ids`"),
    ("cast", "output_type", "error", "amount", '"broken.cast"', "is string, and the entity declares bigint", 'cast("bigint")'),
    ("twice", "output_columns", "error", "amount", '"broken.twice"', "twice", "Drop or rename"),
    ("partition", "layout_column", "error", "day", '"broken.partition"', "partition column", "`days`"),
    ("cluster", "layout_column", "error", "day", '"broken.cluster"', "cluster column", "id, item, amount"),
    ("sequence", "missing_key", "error", "day", '"broken.sequence"', "scd.sequence_by", "id, item"),
    ("slices", "missing_key", "error", "day", '"broken.slices"', "derived.replace_keys", "id, item"),
    ("surrogate", "pipe_error", "error", "", '"broken.surrogate"', "country", ""),
    ("incremental", "missing_column", "error", "SourceVersion", "def incremental", "no column", ""),
    ("broken_view", "missing_column", "error", "itm", "DataPipes.view", "no column `itm`", "`item`"),
    ("drift", "output_columns", "error", "extra", '"broken.drift"', "schema.drift: fail", "evolve"),
    ("live_type", "output_type", "error", "amount", '"broken.live_type"', "date, and the table has bigint", "cast"),
    ("lacks", "output_columns", "warning", "amount", '"broken.lacks"', "it stays empty", "`amont`"),
    ("bare", "missing_column", "error", "nothing_like_it", "# line: bare", "no column", "At that point there are `"),
]  # fmt: skip


@pytest.mark.parametrize("case", FINDINGS, ids=lambda case: case[0])
def test_what_is_wrong_is_told_with_its_line(
    result: AnalysisResult, app: Path, case: tuple[str, ...]
) -> None:
    pipe_id, kind, severity, column, marker, message, suggestion = case
    analysis = of(result, pipe_id)
    [finding] = [each for each in analysis.findings if each.column == column]
    assert (finding.kind.value, finding.severity) == (kind, severity)
    assert message in finding.message
    assert suggestion in finding.suggestion
    assert Path(finding.file) == app / "shop" / "pipes" / "broken.py"
    # A declaration begins at its decorator or its call; Python versions differ by a line or so.
    assert abs(finding.line - line_of(marker)) <= (0 if marker.startswith("#") else 2)
    assert analysis.verdict is (Verdict.BROKEN if severity == "error" else Verdict.OK)


def test_an_error_in_a_helper_is_told_with_the_helpers_line(result: AnalysisResult, app: Path) -> None:
    [finding] = of(result, "helper").findings
    assert finding.where == f"{app / 'shop' / 'pipes' / 'helpers.py'}:2"
    assert (finding.kind.value, finding.column, finding.entity_id) == (
        "missing_column",
        "cost",
        "bronze.orders",
    )


def test_broken_sql_of_an_input_is_told_with_its_declaration(result: AnalysisResult) -> None:
    [finding] = of(result, "from_broken_sql").findings
    assert (finding.kind.value, finding.column, finding.entity_id) == (
        "missing_column",
        "amont",
        "broken.sql",
    )
    assert Path(finding.file).name == "tables.py"
    assert finding.suggestion == "Did you mean `amount`?"


@pytest.mark.parametrize(
    ("pipe_id", "reason"),
    [
        (
            "after_bare",
            "because of behind.bare: bare, which writes it, failed in this dry run, and behind.bare has no",
        ),
        ("rows", "its own code looks at rows, and a dry run has none: TypeError: 'NoneType' object is not"),
        ("writes", "its own code writes: it calls a writer of a DataFrame"),
        (
            "after_writes",
            "because of behind.writes: writes, which writes it, was not analysed, and behind.writes has",
        ),
    ],
)
def test_what_cannot_be_analysed_says_why(result: AnalysisResult, pipe_id: str, reason: str) -> None:
    analysis = of(result, pipe_id)
    assert (analysis.verdict, analysis.findings) == (Verdict.NOT_ANALYSED, ())
    assert analysis.reason.startswith(reason)


def test_every_way_to_write_is_refused(result: AnalysisResult, app: Path) -> None:
    refused = (app.parent / "refused.txt").read_text().splitlines()
    assert len(refused) == 8
    assert all(line.startswith("WriteRefusedError: A dry run writes nothing") for line in refused)


def test_the_result_is_plain_data(result: AnalysisResult) -> None:
    data = json.loads(result.to_json())
    assert data["ok"] is False
    assert tuple(PipeAnalysis.from_data(pipe) for pipe in data["pipes"]) == result.pipes
    assert of(result, "wide").columns == {
        "id": "bigint",
        "item": "string",
        "amount": "bigint",
        "country": "string",
    }


def test_a_pipe_that_never_ends_is_ended(app: Path, spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyzer, "_GRACE", 0.3)
    [analysis] = analyze(app, spark, "hangs", timeout=3.0).pipes
    [finding] = analysis.findings
    assert (finding.kind.value, finding.line) == ("timed_out", line_of("# line: hangs"))
    assert "did not finish within 3 s" in finding.message
    assert analysis.inputs == {}


def test_alone_a_pipe_is_analysed_against_what_its_inputs_declare_or_have(app: Path, spark: Any) -> None:
    result = analyze(app, spark, "stream", "after_wide", "after_bare")
    assert of(result, "stream").inputs == {"bronze.orders": "declared"}
    # The table has no column `country` yet: only a run of `wide` before it adds it.
    assert [finding.column for finding in of(result, "after_wide").findings] == ["country"]
    assert of(result, "after_bare").reason == "because behind.bare has no table yet and declares no schema"


def test_an_incremental_read_has_the_columns_that_kindling_adds(app: Path, spark: Any) -> None:
    assert analyze(app, spark, "incremental", watermarks=True).ok


def test_a_fixture_file_stands_for_the_entity_as_in_a_run(app: Path, spark: Any) -> None:
    fixture = app / "tests" / "entities" / "raw" / "orders.csv"
    fixture.parent.mkdir(parents=True)
    try:
        fixture.write_text("id,item\n1,pen\n")
        assert [finding.column for finding in analyze(app, spark, "land").findings] == ["amount"]
        fixture.write_text("id,item\n")  # no row: Kindling takes the entity
        assert analyze(app, spark, "land").ok
    finally:
        fixture.unlink()


def test_the_command_prints_findings_and_fails(app: Path, spark: Any, tmp_path: Path) -> None:
    KindlingProject(app).manifest.write(manifest := tmp_path / "manifest.json")
    arguments = ["check", str(app), "--manifest", str(manifest), "--analyze", "--pipe", "land"]
    done = CliRunner().invoke(main, [*arguments, "--pipe", "column"])
    assert done.exit_code == 1
    assert "ok land" in done.output
    assert "broken column: 1 finding" in done.output
    assert "→ Did you mean `amount`?" in done.output
    assert "2 pipes analysed on empty frames, 1 error." in done.output
    done = CliRunner().invoke(main, [*arguments, "--format", "json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["analysis"]["pipes"][0]["pipe_id"] == "land"


def test_the_job_fails_with_every_finding_named(app: Path, spark: Any) -> None:
    job = build_kindling_definitions(KindlingProject(app)).get_job_def("dry_analyze")

    def run(*pipes: str) -> Any:
        config = {"ops": {"dry_analyze_pipes": {"config": {"pipes": list(pipes)}}}}
        return job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)

    with DagsterInstance.ephemeral() as instance:
        good, bad = run("land", "keyless"), run("land", "column", "key", "after_bare")
    assert good.success
    [output] = [event for event in good.all_events if event.is_successful_output]
    assert output.step_output_data.metadata["pipes"].value == 2
    assert output.step_output_data.metadata["findings"].value.records == []
    assert not bad.success
    [failed] = [event for event in bad.all_events if event.is_step_failure]
    failure = failed.step_failure_data.user_failure_data
    assert "4 pipes analysed on empty frames, 2 errors, 1 not analysed." in failure.description
    assert "column (" in failure.description
    assert "merge column of broken.key" in failure.description
    records = failure.metadata["findings"].value.records
    assert {(record.data["pipe"], record.data["kind"]) for record in records} == {
        ("column", "missing_column"), ("key", "missing_key"),
    }  # fmt: skip
    assert failure.metadata["not_analysed"].value.records[0].data["pipe"] == "after_bare"


def test_a_receiver_that_adds_columns_is_heard(
    app: Path, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspark.sql import functions as F

    from kindling_dagster.runtime import KindlingRuntime

    start = KindlingRuntime.start

    def started(*args: Any, **kwargs: Any) -> Any:
        runtime = start(*args, **kwargs)
        for name, column in (("read.after_read", "day"), ("persist.before_persist", "seen")):

            def add(_: Any, df: Any, column: str = column, **__: Any) -> Any:
                return df.withColumn(column, F.current_date())

            runtime.signals.create_signal(name).connect(add, weak=False)
        return runtime

    monkeypatch.setattr(KindlingRuntime, "start", started)
    result = analyze(app, spark, "slices", "audited")
    assert result.ok, result.findings
    assert list(of(result, "audited").columns) == ["id", "item", "amount", "day"]


@pytest.mark.timeout(900)
def test_nothing_is_wrong_with_the_demo(tmp_path: Path, spark: Any) -> None:
    app = tmp_path / "demo"
    shutil.copytree(DEMO, app, ignore=shutil.ignore_patterns("data", "launcher", "__pycache__"))
    feed.ensure_landed(app, 1)
    before = files_below(app)
    result = analyze(app, spark)
    assert len(result.pipes) == len(KindlingProject(app).manifest.pipes) >= 17
    findings: tuple[Finding, ...] = result.findings
    assert (findings, result.not_analysed) == ((), ())
    assert files_below(app) == before
