"""The package as a whole: its public names, and which parts are free of Dagster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kindling_dagster

PACKAGE = Path(kindling_dagster.__file__).parent
FACES_DAGSTER = {
    "analysis.job",
    "assets",
    "automation",
    "conditions",
    "config",
    "definitions",
    "dimension_events",
    "dimension_sensor",
    "resources",
    "selection",
    "spark_resources",
    "step_run",
    "translator",
    "cli",
    "signals.bridge",
    "signals.bridge_outputs",
    "signals.bridge_rules",
    "signals.bridge_stream_rules",
    "signals.bridge_table",
    "signals.carrying",
    "signals.failure_report",
    "signals.materialization",
    "signals.reading",
    "signals.throttle",
    "checks",
    "components.attributes",
    "components.component",
    "components.scaffolder",
    "components.translation",
    "engine_resources",
    "pipes_engine",
    "submit_client",
    "testing.instance",
    "cli_streams",
    "ingestion.defs",
    "io_manager",
    "jobs",
    "lineage_checks",
    "op_jobs",
    "partitions",
    "reprocess_job",
    "restart_runs",
    "sensors",
    "stream_assets",
    "stream_definitions",
    "stream_events",
    "stream_resources",
    "table_checks.defs",
    "table_checks.events",
}


def modules() -> list[str]:
    names = [
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    ]
    return sorted(names)


def test_public_names_are_sorted_and_there() -> None:
    assert kindling_dagster.__all__ == sorted(kindling_dagster.__all__)
    for name in kindling_dagster.__all__:
        assert getattr(kindling_dagster, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        kindling_dagster.nothing_of_ours  # noqa: B018


def test_the_core_is_free_of_dagster() -> None:
    core = [f"kindling_dagster.{name}" for name in modules() if name not in FACES_DAGSTER]
    code = (
        f"import importlib, sys\nfor name in {core!r}: importlib.import_module(name)\n"
        "print(sorted({m.split('.')[0] for m in sys.modules if m.split('.')[0].startswith('dagster')} - {'dagster_pipes'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize("name", modules())
def test_no_private_dagster_module_is_imported(name: str) -> None:
    text = (PACKAGE / f"{name.replace('.', '/')}.py").read_text()
    assert "dagster._" not in text
    assert "dagster_shared" not in text
