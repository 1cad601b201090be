"""The notebooks and the page on testing, run on one Spark session; and what that page says of PipeTester."""

from __future__ import annotations

import os
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from app_forms import manifest_cache, quick_recorder  # noqa: F401  # a fixture
from test_pages import blocks_of

from kindling_dagster.dag.results import PipeStatus
from kindling_dagster.errors import RunError, SelectionError
from kindling_dagster.spark import build_session
from kindling_dagster.testing import PipeTester

pytestmark = [pytest.mark.spark, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
ORDERS = [
    {"id": 1, "item": "pen", "amount": 10},
    {"id": 2, "item": "ink", "amount": 20},
    {"id": 3, "item": "cap", "amount": 0},
]


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[Any]:
    session = build_session({"spark.master": "local[2]"})
    yield session
    session.stop()


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kindling_dagster.project.run_recorder", quick_recorder)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("SHOP_SECRET_PATH", "nowhere")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    # Set it to docs/images to make the pictures of the pages anew.
    images = Path(os.environ.get("KINDLING_DAGSTER_IMAGES") or tmp_path)
    monkeypatch.setenv("KINDLING_DAGSTER_IMAGES", str(images))
    runpy.run_path(str(notebook))
    assert (images / f"notebook_{notebook.stem}.png").stat().st_size > 5_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The app, which notes in its folder which pipes were called."""
    copied = tmp_path_factory.mktemp("pages") / "app"
    shutil.copytree(ROOT / "tests" / "running" / "app", copied)
    (copied / "data").mkdir()
    return copied


@pytest.fixture(scope="module")
def app(folder: Path, spark: Any) -> Iterator[PipeTester]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kindling_dagster.project.run_recorder", quick_recorder)
        patch.setenv("SHOP_SECRET_PATH", "nowhere")
        with PipeTester(folder) as started:
            yield started


def test_the_tests_of_the_page_pass(tmp_path: Path, folder: Path, spark: Any) -> None:
    """The page's first block as a test file, in a run of pytest within this one: it shares the session."""
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "app").symlink_to(folder)
    file = tmp_path / "test_page_on_pipes.py"
    file.write_text(blocks_of(ROOT / "docs" / "testing.md")[0].text)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", "--rootdir", str(tmp_path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert pytest.main([*options, "-c", os.devnull, str(file)]) == pytest.ExitCode.OK


def test_failures_are_raised_or_told(app: PipeTester, tmp_path: Path) -> None:
    app.reset()
    given = {"silver.orders": ORDERS}
    with pytest.raises(RunError, match="misnamed"):
        app.run(given, pipes=["misnamed"])
    after = app.run(given, pipes=["misnamed"], raise_on_failure=False)
    assert (after.statuses, dict(after)) == ({"misnamed": PipeStatus.FAILED}, {})


def test_memory_entities_and_history_work_as_in_a_run(app: PipeTester) -> None:
    app.reset()
    after = app.run({"silver.orders": ORDERS}, pipes=["recent", "keep_recent"])
    assert after.rows("gold.recent", "id") == [(2,), (3,)]
    after = app.run({"memory.recent": ORDERS[:1]}, pipes=["keep_recent"])  # in a table, since rows are given
    assert (1,) in after.rows("gold.recent", "id")
    app.run({"gold.totals": [{"item": "pen", "amount": 1}]}, pipes=["items"])
    after = app.run({"gold.totals": [{"item": "pen", "amount": 2}]}, pipes=["items"])
    assert after.rows("ref.items", "amount", "__is_current") == [(1, False), (2, True)]


@pytest.mark.parametrize(
    ("method", "asked", "message"),
    [
        ("frame", ("bronze.orders", [{"id": 1, "price": 2}]), "no column price"),
        ("frame", ("bronze.nothing", [{"id": 1}]), "no entity 'bronze.nothing'"),
        ("call", ("clean", {}), "also reads bronze.orders"),
        ("call", ("cleen", {}), "no pipe 'cleen'"),
    ],
)
def test_wrong_inputs_are_refused(app: PipeTester, method: str, asked: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        getattr(app, method)(*asked)


def test_pandas_rows_and_missing_columns(app: PipeTester) -> None:
    import pandas as pd

    frame = pd.DataFrame({"id": [1, 2], "amount": [None, 5]})
    rows = [tuple(row) for row in app.frame("bronze.orders", frame).collect()]
    assert rows == [(1, None, None), (2, None, 5)]
