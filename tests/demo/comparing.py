"""The demo in a place of its own, and how its gold tables are compared with pandas."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from deltalake import DeltaTable

DEMO = Path(__file__).parents[2] / "demo"
TABLES = {
    "gold.delay_by_carrier_month": ["carrier", "month"],
    "gold.worst_routes": ["rank"],
    "gold.weather_delay": ["visibility", "precipitation"],
    "gold.carrier_punctuality": ["rank"],
    "gold.plane_age_delay": ["age_from"],
    "gold.daily_operations": ["flight_date", "origin"],
    "gold.carrier_scorecard": ["rank"],
}
"""The gold tables that are compared, and what identifies their rows."""
PARTITIONED = "gold.daily_operations"
"""The one that is partitioned by day, which the job ``main`` leaves out."""


def copy_demo(root: Path) -> Path:
    """The demo and its definitions below ``root``, without data; gives the app's directory."""
    shutil.copy(DEMO.parent / "definitions.py", root)
    shutil.copytree(DEMO, root / "demo", ignore=shutil.ignore_patterns("data", "launcher", "__pycache__"))
    return root / "demo"


@contextmanager
def running_demo(root: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[DemoProcess]:
    """``run_app.py`` over a copy of the demo, in a process of its own: one process runs one app."""
    # Files, not pipes: nobody has to read them for the process to go on.
    output, errors = root / "output.txt", root / "errors.txt"
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("run_app.py")), *arguments],
            cwd=root,
            env=env,
            stdout=out,
            stderr=err,
        )
    try:
        yield DemoProcess(process, output, errors)
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class DemoProcess:
    """A process that runs the demo."""

    process: subprocess.Popen[bytes]
    output: Path
    errors: Path

    def report(self, seconds: float) -> dict[str, Any]:
        """What it prints when it has ended well within so many seconds."""
        code = self.process.wait(seconds)
        assert code == 0, self.errors.read_text()[-4000:]
        found: dict[str, Any] = json.loads(self.output.read_text().strip().splitlines()[-1])
        return found


def table_path(app: Path, entity_id: str) -> Path:
    """Where the demo keeps an entity's table."""
    return app / "data" / "lake" / Path(*entity_id.split("."))


def with_lineage(app: Path, entity_id: str, version: int | None = None) -> pd.DataFrame:
    """A table's rows."""
    return DeltaTable(table_path(app, entity_id), version=version).to_pandas()


def rows_of(app: Path, entity_id: str, version: int | None = None) -> pd.DataFrame:
    """A table's rows without their lineage, which is another in each run."""
    frame = with_lineage(app, entity_id, version)
    return frame.drop(columns=[name for name in frame.columns if name.endswith("_lineage")])


def assert_equals_pandas(got: pd.DataFrame, want: pd.DataFrame, keys: list[str]) -> None:
    """The same columns, rows and values; floats within rounding."""
    assert set(got.columns) == set(want.columns)
    assert len(got) == len(want) > 0
    got = got.sort_values(keys, ignore_index=True)
    want = want.sort_values(keys, ignore_index=True)
    for column in want.columns:
        if pd.api.types.is_float_dtype(got[column]):
            pd.testing.assert_series_equal(
                got[column], want[column].astype(float), rtol=1e-9, atol=1e-9, check_names=False
            )
        else:
            assert _plain(got[column]) == _plain(want[column]), column


def _plain(values: pd.Series) -> list[object]:
    return [None if pd.isna(value) else value for value in values]
