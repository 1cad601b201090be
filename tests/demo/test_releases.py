"""Two releases of the demo's package, installed as wheels one after the other: each row says which one wrote it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable
from kindling_dagster_demo import feed

from kindling_dagster.lineage.audit import audit_table
from kindling_dagster.lineage.commits import commit_lineage

pytestmark = [pytest.mark.spark, pytest.mark.faults, pytest.mark.timeout(1500)]

DEMO = Path(__file__).parents[2] / "demo"
FIRST, SECOND = "7.0.0", "7.1.0"
DAYS = ("2013-01-01", "2013-01-02")


def uv(*arguments: str) -> None:
    done = subprocess.run(["uv", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def build(source: Path, version: str, wheels: Path) -> Path:
    """A release of the flights package as it stands in ``source``."""
    project = source / "pyproject.toml"
    text = re.sub(r'^version = ".*"$', f'version = "{version}"', project.read_text(), flags=re.MULTILINE)
    project.write_text(text)
    uv("build", "--wheel", "--out-dir", str(wheels), str(source))
    return wheels / f"flights-{version}-py3-none-any.whl"


def change_what_is_late(source: Path) -> None:
    """The second release's change: it counts flights as late from five minutes later."""
    file = source / "src" / "flights" / "transforms" / "facts.py"
    text = file.read_text()
    assert "LATE_FROM_MIN = 15" in text
    file.write_text(text.replace("LATE_FROM_MIN = 15", "LATE_FROM_MIN = 20"))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The app after a day under each release."""
    root = tmp_path_factory.mktemp("releases")
    app, source, environment = root / "app", root / "source", root / "environment"
    shutil.copytree(DEMO, app, ignore=shutil.ignore_patterns("data", "launcher", "packages", "__pycache__"))
    shutil.copytree(DEMO / "packages" / "flights", source)
    first = build(source, FIRST, root)
    change_what_is_late(source)
    second = build(source, SECOND, root)
    uv("venv", "--python", sys.executable, str(environment))
    python = environment / "bin" / "python"
    site = next((environment / "lib").glob("python3*")) / "site-packages"
    for days, wheel, run_id in ((1, first, "run-1"), (2, second, "run-2")):
        uv("pip", "install", "--python", str(python), "--no-deps", str(wheel))
        feed.ensure_landed(app, days)
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("run_release.py")), str(app), run_id],
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            timeout=700,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
    return app


def table(app: Path, entity_id: str) -> DeltaTable:
    return DeltaTable(app / "data" / "lake" / Path(*entity_id.split(".")))


def rows(app: Path, entity_id: str) -> pd.DataFrame:
    """The table's rows with their lineage as columns, and the day as text."""
    frame = table(app, entity_id).to_pandas()
    lineage = pd.json_normalize(list(frame[f"_{entity_id.split('.')[0]}_lineage"]))
    return frame.assign(**lineage).assign(
        day=frame.get("flight_date", pd.Series("", frame.index)).astype(str)
    )


WRITTEN = {DAYS[0]: (FIRST, "run-1"), DAYS[1]: (SECOND, "run-2")}


@pytest.mark.parametrize("entity_id", ["bronze.flights", "silver.flights_live", "gold.live_delays"])
def test_rows_of_each_day_are_of_the_release_that_saw_it(app: Path, entity_id: str) -> None:
    frame = rows(app, entity_id)
    assert set(frame["pipe"]) == {entity_id}
    assert set(frame["package"]) == {"flights"}
    assert {day: set(zip(of["version"], of["run_id"], strict=True)) for day, of in frame.groupby("day")} == {
        day: {written} for day, written in WRITTEN.items()
    }
    by_version = frame.groupby("version")["timestamp"].agg(["min", "max"])
    assert by_version["max"][FIRST] < by_version["min"][SECOND]


def test_of_merged_rows_only_what_changed_is_of_the_second_release(app: Path) -> None:
    frame = rows(app, "silver.flights")
    changed = frame["arr_delay_min"].between(15, 19)
    assert 0 < changed[frame["day"] == DAYS[0]].sum() < (frame["day"] == DAYS[0]).sum()
    is_new = changed | (frame["day"] == DAYS[1])
    assert set(frame["version"][is_new]) == {SECOND}
    assert set(frame["version"][~is_new]) == {FIRST}
    assert not frame["late"][changed].any()
    assert set(zip(frame["version"], frame["run_id"], strict=True)) == set(WRITTEN.values())


def test_what_is_replaced_as_a_whole_is_of_the_second_release(app: Path) -> None:
    frame = rows(app, "gold.live_board")
    assert set(zip(frame["pipe"], frame["version"], frame["run_id"], strict=True)) == {
        ("gold.live_board", SECOND, "run-2")
    }


@pytest.mark.parametrize("entity_id", ["silver.flights", "silver.flights_live", "gold.live_delays"])
def test_commits_and_the_audit_tell_both_releases(app: Path, entity_id: str) -> None:
    told = [
        commit_lineage(entry.get("userMetadata", ""), entity_id) for entry in table(app, entity_id).history()
    ]
    assert {found.version for found in told if found is not None} == {FIRST, SECOND}
    found = audit_table(table(app, entity_id).table_uri, entity_id.split(".")[0])
    counts = {count.version: count.rows for count in found.counts}
    assert counts == rows(app, entity_id)["version"].value_counts().to_dict()


def test_what_takes_no_part_has_no_column(app: Path) -> None:
    assert not [
        name for name in table(app, "ref.airlines").to_pyarrow_table().column_names if "lineage" in name
    ]
