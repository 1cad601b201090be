"""Audits of an app: as data, as signals, on the command line and as Dagster's checks. No Spark anywhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from dagster import AssetKey, DagsterInstance, Definitions
from kindling.signaling import BlinkerSignalProvider
from lineage_tables import START, app_manifest, write

from kindling_dagster import KindlingProject
from kindling_dagster.cli import main
from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.auditor import LineageAuditor
from kindling_dagster.lineage.reprocess import check_reprocess
from kindling_dagster.lineage_checks import build_lineage_audit, build_lineage_checks
from kindling_dagster.manifest import Location, SecretRef


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    write(
        tmp_path / "orders",
        [("silver.clean", "1.0", 0)] * 3,
        [("silver.clean", "2.0", 5), ("silver.clean", "2.0", 5)],
        entity="silver.orders",
    )
    write(tmp_path / "totals", [("gold.total", "2.0", 5)], entity="gold.totals", layer="gold")
    return tmp_path


@pytest.fixture
def project(tables: Path, tmp_path: Path) -> KindlingProject:
    file = tmp_path / "manifest.json"
    app_manifest(tables).write(file)
    return KindlingProject(manifest=file)


@pytest.fixture
def arguments(project: KindlingProject) -> list[str]:
    return ["--manifest", str(project.manifest_path)]


def test_the_log_tells_the_current_version_and_who_wrote_which(tables: Path) -> None:
    auditor = LineageAuditor(app_manifest(tables), None)
    assert auditor.entity_ids == ("silver.orders", "gold.totals")
    assert auditor.current_versions("silver.orders") == {"silver.clean": "2.0"}
    first = auditor.writer_of("silver.orders", 0)
    assert first is not None
    assert (first.pipe, first.version, first.run_id) == ("silver.clean", "1.0", "run")
    assert auditor.writer_of("silver.orders", 9) is None


@pytest.mark.parametrize(("max_age", "stale"), [(None, 3), (timedelta(days=3), 3), (timedelta(days=7), 0)])
def test_an_audit_counts_and_tells(tables: Path, max_age: timedelta | None, stale: int) -> None:
    provider = BlinkerSignalProvider()
    heard: list[dict[str, Any]] = []

    def hear(sender: object, **payload: Any) -> None:
        heard.append(payload)

    provider.create_signal("datapipes.lineage_audit").connect(hear, weak=False)
    auditor = LineageAuditor(app_manifest(tables), None, signals=provider)
    found = auditor.audit("silver.orders", max_age=max_age, now=START + timedelta(days=6))
    assert (found.lineage.stale_rows, found.stale_share) == (stale, stale / 5)
    [payload] = heard
    assert payload["versions"] == ["1.0", "2.0"]
    assert (payload["current_version"], payload["oldest_version"]) == ("2.0", "1.0")
    assert (payload["row_count"], payload["stale_row_count"]) == (5, stale)


def test_other_entities_and_places_are_refused(tables: Path) -> None:
    auditor = LineageAuditor(app_manifest(tables), None)
    with pytest.raises(LineageError, match="takes no part"):
        auditor.audit("other")
    with pytest.raises(LineageError, match="no Delta table"):
        LineageAuditor(app_manifest(tables / "elsewhere"), None).audit("silver.orders", current={})


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["lineage", *arguments])


def test_the_report_as_table_and_as_json(arguments: list[str]) -> None:
    shown = invoke("report", *arguments)
    assert shown.exit_code == 0, shown.output
    assert "silver.orders at version 1: 5 rows" in shown.output
    assert "silver.clean" in shown.output
    [orders, totals] = json.loads(invoke("report", *arguments, "--json").output)
    assert [(item["version"], item["rows"]) for item in orders["versions"]] == [("1.0", 3), ("2.0", 2)]
    assert totals["files_read"] == 0


def test_tables_that_are_not_there_yet_are_named_unless_asked_for(arguments: list[str], tables: Path) -> None:
    shutil.rmtree(tables / "totals")
    shown = invoke("report", *arguments)
    assert (shown.exit_code, "silver.orders at version 1" in shown.output) == (0, True)
    assert "Not written yet: gold.totals." in shown.output
    assert invoke("report", *arguments, "--entity", "gold.totals").exit_code == 1


@pytest.mark.parametrize(
    "command",
    [
        ["report"],
        ["report", "--entity", "silver.orders"],
        ["stale", "--entity", "silver.orders"],
        ["find", "--entity", "silver.orders", "--table-version", "0"],
        ["reprocess", "--pipe", "silver.clean", "--version", "1.0"],
    ],
    ids=" ".join,
)
def test_a_table_that_cannot_be_read_is_named_and_no_traceback(
    arguments: list[str], tables: Path, command: list[str]
) -> None:
    (tables / "orders/_delta_log/00000000000000000001.json").write_text("{not json")
    found = invoke(*command, *arguments)
    assert (found.exit_code, type(found.exception)) == (1, SystemExit)
    assert "The table of silver.orders cannot be read: DeltaError" in found.output


def test_stale_rows_are_an_exit_code(arguments: list[str]) -> None:
    found = invoke("stale", *arguments, "--entity", "silver.orders", "--json")
    assert (found.exit_code, json.loads(found.output)[0]["stale_rows"]) == (1, 3)
    assert invoke("stale", *arguments, "--entity", "gold.totals").exit_code == 0
    assert invoke("stale", *arguments, "--current", "1.0", "--entity", "silver.orders").exit_code == 1
    assert invoke("stale", *arguments, "--older-than", "100000").exit_code == 0


def test_rows_are_stale_too_where_commits_do_not_tell_who_wrote_them(
    arguments: list[str], tables: Path
) -> None:
    shutil.rmtree(tables / "orders")
    write(
        tables / "orders", [("silver.clean", "2.0", 5)], [("silver.clean", "1.0", 0)] * 2
    )  # user_metadata: false
    assert LineageAuditor(app_manifest(tables), None).current_versions("silver.orders") == {
        "silver.clean": "2.0"
    }
    for more in [], ["--current", "2.0"]:
        found = invoke("stale", *arguments, "--entity", "silver.orders", "--json", *more)
        assert (found.exit_code, json.loads(found.output)[0]["stale_rows"]) == (1, 2)


def test_queries_for_spark(arguments: list[str], tables: Path) -> None:
    assert f"`delta`.`{tables}/orders`" in invoke("report", *arguments, "--sql").output
    assert "`version`" in invoke("find", *arguments, "--entity", "silver.orders", "--version", "1.0").output
    assert invoke("stale", *arguments, "--sql").exit_code == 1
    assert "'2.0'" in invoke("stale", *arguments, "--sql", "--current", "2.0").output


def test_who_wrote_a_version_of_a_table(arguments: list[str]) -> None:
    found = invoke("find", *arguments, "--entity", "silver.orders", "--table-version", "0")
    assert found.output.strip() == "silver.clean of acme 1.0, run run"
    missing = invoke("find", *arguments, "--entity", "silver.orders", "--table-version", "7")
    assert missing.exit_code == 1
    assert invoke("find", *arguments, "--entity", "silver.orders").exit_code == 1


def test_a_recomputation_is_counted_before(arguments: list[str]) -> None:
    found = invoke("reprocess", *arguments, "--pipe", "silver.clean", "--version", "1.0")
    assert found.exit_code == 0, found.output
    assert "3 rows of silver.orders" in found.output
    assert yaml.safe_load(found.output.splitlines()[-2] + "\n" + found.output.splitlines()[-1]) == {
        "reprocess": {"silver.clean": "1.0"}
    }


@pytest.mark.parametrize(
    ("pipe", "why"), [("gold.total", "does not merge"), ("no.such", "no lineage"), ("other", "no lineage")]
)
def test_what_cannot_be_recomputed_is_refused(tables: Path, pipe: str, why: str) -> None:
    with pytest.raises(LineageError, match=why):
        check_reprocess(app_manifest(tables), {pipe: "1.0"})


@pytest.mark.parametrize(("share", "passed"), [(0.0, False), (0.6, True)])
def test_the_check_warns_of_old_rows(project: KindlingProject, share: float, passed: bool) -> None:
    checks = build_lineage_checks(project, max_stale_share=share)
    schedule = build_lineage_audit(project, checks)
    defs = Definitions(asset_checks=checks, schedules=[schedule])
    with DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("acme_lineage_audit").execute_in_process(instance=instance)
    found = {evaluation.asset_key: evaluation for evaluation in result.get_asset_check_evaluations()}
    orders = found[AssetKey(["silver", "orders"])]
    assert (orders.check_name, orders.passed) == ("lineage_freshness", passed)
    assert orders.metadata["kindling/stale_share"].value == 0.6
    assert found[AssetKey(["gold", "totals"])].passed


@pytest.mark.parametrize(("broken", "told"), [(False, "no Delta table at @secret:"), (True, "DeltaError")])
def test_a_table_that_is_missing_or_broken_hides_no_other_and_no_secret_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool, told: str
) -> None:
    write(tmp_path / "totals", [("gold.total", "2.0", 5)], entity="gold.totals", layer="gold")
    monkeypatch.setenv("ORDERS_PATH", str(tmp_path / "orders"))
    if broken:
        write(tmp_path / "orders", [("silver.clean", "1.0", 0)], entity="silver.orders")
        (tmp_path / "orders/_delta_log/00000000000000000000.json").write_text("{not json")
    file = tmp_path / "manifest.json"
    app = app_manifest(tmp_path)
    secret = Location("secret", "ORDERS_PATH")
    replace(
        app,
        entities=tuple(replace(e, location=secret) if e.id == "silver.orders" else e for e in app.entities),
        secrets=(SecretRef("ORDERS_PATH", "silver.orders.tags.provider.path"),),
    ).write(file)
    checks = build_lineage_checks(KindlingProject(manifest=file))
    defs = Definitions(
        asset_checks=checks, schedules=[build_lineage_audit(KindlingProject(manifest=file), checks)]
    )
    with DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("acme_lineage_audit").execute_in_process(instance=instance)
    found = {evaluation.asset_key.path[-1]: evaluation for evaluation in result.get_asset_check_evaluations()}
    assert not found["orders"].passed
    assert told in (found["orders"].description or "")
    assert str(tmp_path) not in (found["orders"].description or "")
    assert found["totals"].passed
