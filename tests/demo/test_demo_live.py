"""The demo's streams give what pandas gives on the same files, over two hosts, each flight once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable

sys.path.insert(0, str(Path(__file__).parent))
import expected

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]

DEMO = Path(__file__).parents[2] / "demo"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("live")
    shutil.copy(DEMO.parent / "definitions.py", root)
    shutil.copytree(DEMO, root / "demo", ignore=shutil.ignore_patterns("data", "launcher", "__pycache__"))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_live.py"))],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return root / "demo"


def table(app: Path, entity_id: str) -> pd.DataFrame:
    return DeltaTable(app / "data" / "lake" / Path(*entity_id.split("."))).to_pandas()


@pytest.fixture(scope="module")
def landed(app: Path) -> pd.DataFrame:
    return expected.read_daily(app / "data" / "landing", "flights")


def test_each_flight_is_followed_once(app: Path, landed: pd.DataFrame) -> None:
    live = table(app, "silver.flights_live")
    assert len(live) == len(landed) == len(live.drop_duplicates(["time_hour", "carrier", "flight"]))
    assert live["flight_date"].nunique() == 11
    assert live["airline"].notna().all()
    planes = pd.read_csv(app / "data" / "landing" / "planes.csv").set_index("tailnum")["manufacturer"]
    built = landed["tailnum"].map(planes).value_counts()
    assert live["manufacturer"].value_counts().to_dict() == built.to_dict()


def test_delays_by_day_equal_pandas(app: Path, landed: pd.DataFrame) -> None:
    landed = landed.assign(
        cancelled=landed["dep_time"].isna(),
        late=landed["arr_delay"] >= 15,
        arrived=landed["arr_delay"].notna(),
    )
    want = landed.groupby(["date", "carrier"], as_index=False).agg(
        flights=("flight", "size"),
        cancelled=("cancelled", "sum"),
        arrived=("arrived", "sum"),
        late=("late", "sum"),
        arr_delay_total_min=("arr_delay", "sum"),
    )
    got = table(app, "gold.live_delays").assign(date=lambda frame: frame["flight_date"].astype(str))
    columns = list(want.columns)
    assert len(got) == len(want) > 0
    for frame in (got, want):
        frame.sort_values(["date", "carrier"], inplace=True, ignore_index=True)
    for column in columns:
        assert got[column].tolist() == want[column].tolist(), column


@pytest.mark.parametrize("entity_id", ["silver.flights_live", "gold.live_delays", "gold.live_board"])
def test_rows_of_streams_say_who_wrote_them(app: Path, entity_id: str) -> None:
    frame = table(app, entity_id)
    stamps = list(frame[f"_{entity_id.split('.')[0]}_lineage"])
    assert {(stamp["pipe"], stamp["package"]) for stamp in stamps} == {(entity_id, "flights")}
    assert all(stamp["version"] and stamp["timestamp"] for stamp in stamps)


def test_the_batch_asset_reads_what_the_streams_committed(app: Path, landed: pd.DataFrame) -> None:
    board = table(app, "gold.live_board").sort_values("rank")
    assert board["flights"].sum() == len(landed)
    assert board["late_share"].is_monotonic_increasing
    assert board["carrier"].nunique() == len(board) == landed["carrier"].nunique()
