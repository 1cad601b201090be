"""Runs of ingestion killed by SIGKILL, on real Spark: the next ones take each file exactly once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable

pytestmark = [pytest.mark.spark, pytest.mark.faults, pytest.mark.timeout(600)]

APP = Path(__file__).parents[1] / "running" / "app"
PATHS = "  dagster:\n    ingestion: {landing: data/landing, archive: data/taken, settle: 0}\n"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    shutil.copytree(APP, folder)
    settings = folder / "settings.yaml"
    settings.write_text(settings.read_text().replace("kindling:\n", f"kindling:\n{PATHS}", 1))
    (folder / "data" / "landing").mkdir(parents=True)
    return folder


def ingest(app: Path, moment: str, *names: str) -> int:
    """Let files land, and take what lies there in a process of its own; gives its exit code."""
    for name in names:
        (app / "data" / "landing" / f"notes_{name}.csv").write_text(f"note\n{name}\n")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_ingestion.py")), str(app), moment],
        env={**os.environ, "SHOP_SECRET_PATH": str(app / "hidden")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stdout[-4000:]
    return done.returncode


def notes(app: Path) -> list[str]:
    table = app / "data" / "lake" / "dropped" / "notes"
    if not DeltaTable.is_deltatable(str(table)):
        return []
    return sorted(DeltaTable(str(table)).to_pyarrow_table()["note"].to_pylist())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_each_file_is_taken_exactly_once_whenever_a_run_was_killed(app: Path) -> None:
    landing, taken = app / "data" / "landing", app / "data" / "taken"
    assert ingest(app, "moving", "1", "2") == -signal.SIGKILL
    assert (notes(app), names(landing)) == ([], {"notes_2.csv"})
    # What was begun is taken up first, and is all that this one comes to.
    assert ingest(app, "committed", "3") == -signal.SIGKILL
    assert (notes(app), names(landing)) == (["1", "2"], {"notes_3.csv"})
    assert not list((taken / "_batches").glob("*.done.json"))
    assert ingest(app, "never", "4") == 0
    assert (notes(app), names(landing)) == (["1", "2", "3", "4"], set())
    version = DeltaTable(str(app / "data" / "lake" / "dropped" / "notes")).version()
    assert ingest(app, "never") == 0
    assert DeltaTable(str(app / "data" / "lake" / "dropped" / "notes")).version() == version
    kept = {path.name: path.parent.name for path in taken.glob("batch-*/*.csv")}
    assert kept == {
        "notes_1.csv": "batch-00000001",
        "notes_2.csv": "batch-00000001",
        "notes_3.csv": "batch-00000002",
        "notes_4.csv": "batch-00000002",
    }
