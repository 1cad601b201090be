"""The demo, computed on each engine from the same files: all tables equal, row for row."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable
from engines.warm_folder import own_warm_folder
from kindling_dagster_demo import feed

pytestmark = [pytest.mark.spark, pytest.mark.faults, pytest.mark.timeout(1800)]

DEMO = Path(__file__).parents[2] / "demo"
DAYS = 5
ENGINES = ("in_process", "warm", "pipes")


def computed(root: Path, engine: str) -> tuple[list[str], dict[str, pd.DataFrame]]:
    """The assets that Dagster was told of, and the tables."""
    shutil.copytree(DEMO, root / "demo", ignore=shutil.ignore_patterns("data", "launcher", "__pycache__"))
    shutil.copy(DEMO.parent / "definitions.py", root)
    feed.ensure_landed(root / "demo", DAYS)
    with own_warm_folder():
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("run_engine.py")), engine],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    lake = root / "demo" / "data" / "lake"
    tables = {
        ".".join(log.parent.relative_to(lake).parts): rows(log.parent)
        for log in sorted(lake.rglob("_delta_log"))
    }
    return json.loads(done.stdout.splitlines()[-1]), tables


def rows(table: Path) -> pd.DataFrame:
    """Sorted, without what tells when and in which run a row came to be."""
    frame = DeltaTable(table).to_pandas()
    left_out = [name for name in frame.columns if name.endswith("_lineage") or name.startswith("__effective")]
    frame = frame.drop(columns=left_out)
    frame = frame[sorted(frame.columns)]
    return frame.sort_values(list(frame.columns), ignore_index=True)


def test_all_engines_write_the_same_tables(tmp_path: Path) -> None:
    found = {}
    for engine in ENGINES:
        (tmp_path / engine).mkdir()
        found[engine] = computed(tmp_path / engine, engine)
    assets, tables = found["in_process"]
    # All of the job ``main``.
    assert len(assets) == 16
    assert {"bronze.flights", "silver.flights", "gold.carrier_scorecard"} <= set(tables)
    assert all(len(table) for table in tables.values())
    for engine in ENGINES[1:]:
        told, written = found[engine]
        assert told == assets, engine
        assert set(written) == set(tables), engine
        for name, table in tables.items():
            # Sums of floating point come in the order of the tasks.
            pd.testing.assert_frame_equal(written[name], table, rtol=1e-12, obj=f"{name} by {engine}")
