"""What is sent to a driver elsewhere, and what stays here. Neither Java nor Kindling."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from manifests import manifest, pipe

from kindling_dagster import KindlingProject
from kindling_dagster.remote.package import MANIFEST, build_package

SENT = ("app.yaml", "settings.yaml", "shop/data/__init__.py", "shop/data/pipes.py", "shop/data/rates.csv")
KEPT = (
    ".env",
    ".env.local",
    ".git/config",
    ".venv/lib/site.py",
    "data/orders.csv",
    "shop/.secrets/key",
    "shop/__pycache__/pipes.pyc",
    "spark-warehouse/orders/part.parquet",
)


def sent(folder: Path, *files: str) -> set[str]:
    """The names in an app's archive."""
    app = folder / "app"
    for name in ("app.yaml", "settings.yaml", "app.py", *files):
        path = app / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("name: shop\n" if name == "app.yaml" else "")
    recorded = folder / "recorded.json"
    manifest(pipe("a", "bronze.a", "silver.a")).write(recorded)
    project = KindlingProject(app, manifest=recorded)
    return set(zipfile.ZipFile(build_package(project, folder / "dist").app).namelist())


def test_code_is_sent_whatever_its_package_is_called_and_secrets_and_data_stay(tmp_path: Path) -> None:
    assert sent(tmp_path, *SENT, *KEPT) == {*SENT, "app.py", MANIFEST}


@pytest.mark.parametrize("files", [("data/__init__.py", "data/pipes.py")])
def test_a_package_data_at_the_top_is_code(tmp_path: Path, files: tuple[str, ...]) -> None:
    assert set(files) <= sent(tmp_path, *files)
