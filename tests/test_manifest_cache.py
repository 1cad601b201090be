"""The cache of manifests: what changes its key, and that it never gets in the way."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from kindling_dagster.apps import locate_app
from kindling_dagster.manifest import AppRef, Manifest
from kindling_dagster.manifest_cache import KEPT_PER_APP, ManifestCache, app_fingerprint

MANIFEST = Manifest(app=AppRef("x", "local", "scaffold", "recorder"), entities=(), pipes=())


@pytest.fixture
def app(tmp_path: Path) -> Path:
    for name, text in {
        "x/app.yaml": "name: x",
        "x/lake-reqs.txt": "lib",
        "x/settings.yaml": "path: '@secret:LAKE'\nb: '@format {env[FROM_FORMAT]}'\n",
        "x/app.py": "import os\nA = os.environ['FROM_CODE']\nB = os.getenv(\"FROM_GETENV\")\n",
        "packages/lib/src/lib/__init__.py": "",
        "packages/lib/src/lib/query.sql": "SELECT 1",
        "shared/settings.yaml": "a: 1",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path / "x"


def fingerprint(app: Path, **request: str) -> str:
    return app_fingerprint(locate_app(app), app, {"environment": "local", **request})


@pytest.mark.parametrize("name", ["build", "site", "dist"])
def test_a_package_counts_though_tools_have_folders_of_its_name(app: Path, name: str) -> None:
    folder = app / "pipes" / name
    folder.mkdir(parents=True)
    before = fingerprint(app)
    (folder / "made.py").write_text("A = 1")
    assert fingerprint(app) == before
    (folder / "__init__.py").touch()
    packaged = fingerprint(app)
    (folder / "made.py").write_text("A = 2")
    assert len({before, packaged, fingerprint(app)}) == 3


def test_links_that_lead_nowhere_or_back_and_files_that_may_not_be_read_do_no_harm(app: Path) -> None:
    before = fingerprint(app)
    (app / ".#app.py").symlink_to("me@here.4711:1700000000")  # Emacs, while app.py is edited
    for name in ("one", "two"):
        (app / name).symlink_to(app)
    assert fingerprint(app) == before
    (app / "shut.py").write_text("A = 1")
    (app / "shut.py").chmod(0)
    assert fingerprint(app) != before


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("x/app.py", True),
        ("x/settings.yaml", True),
        ("x/settings.dev.yaml", True),
        ("x/.env", True),
        ("x/sub/new.py", True),
        ("packages/lib/src/lib/query.sql", True),
        ("packages/lib/src/lib/new.py", True),
        ("shared/settings.yaml", True),
        ("x/data/rows.csv", False),
        ("x/data/table/_delta_log/0.json", False),
        ("x/.venv/lib/a.py", False),
        ("x/__pycache__/a.py", False),
        ("packages/other/a.py", False),
    ],
)
def test_which_files_count(app: Path, file: str, counts: bool) -> None:
    shared = {"config_dir": str(app.parent / "shared")}
    before = fingerprint(app, **shared)
    path = app.parent / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# changed\n")
    assert (fingerprint(app, **shared) != before) is counts


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("FROM_CODE", True),
        ("FROM_GETENV", True),
        ("FROM_FORMAT", True),
        ("LAKE", True),
        ("KINDLING_SECRET_LAKE", True),
        ("KINDLING_KINDLING__EXECUTION__MAX_WORKERS", True),
        ("KINDLING_DAGSTER_REFRESH", False),
        ("KINDLING_ENV", False),
        ("SOMETHING_ELSE", False),
    ],
)
def test_which_environment_variables_count(
    app: Path, name: str, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name, raising=False)
    before = fingerprint(app)
    monkeypatch.setenv(name, "value")
    assert (fingerprint(app) != before) is counts


def test_the_request_counts(app: Path) -> None:
    assert (
        len({fingerprint(app), fingerprint(app, environment="prod"), fingerprint(app, form="dynamic")}) == 3
    )


def test_touching_a_file_without_changing_it_does_not_count(app: Path) -> None:
    before = fingerprint(app)
    os.utime(app / "app.py", (1, 1))
    assert fingerprint(app) == before


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = ManifestCache(tmp_path / "cache")
    assert cache.get("my app/1", "k1") is None
    cache.put("my app/1", "k1", MANIFEST)
    assert cache.get("my app/1", "k1") == MANIFEST
    assert cache.get("my app/1", "k2") is None


def test_a_damaged_file_is_a_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ManifestCache(tmp_path)
    cache.put("x", "k", MANIFEST)
    cache.path("x", "k").write_text("{")
    with caplog.at_level(logging.WARNING, "kindling_dagster"):
        assert cache.get("x", "k") is None
    assert "not valid JSON" in caplog.text


def test_many_writers_at_once(tmp_path: Path) -> None:
    cache = ManifestCache(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: (cache.put("x", "k", MANIFEST), cache.get("x", "k"))[1], range(40)))
    assert seen == [MANIFEST] * 40
    assert [path.name for path in cache.path("x", "k").parent.iterdir()] == ["x-k.json"]


def test_a_directory_that_cannot_be_used_is_told_and_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    cache = ManifestCache(tmp_path / "file")
    with caplog.at_level(logging.WARNING, "kindling_dagster"):
        cache.put("x", "k", MANIFEST)
    assert cache.get("x", "k") is None
    assert "KINDLING_DAGSTER_CACHE" in caplog.text


def test_old_manifests_go(tmp_path: Path) -> None:
    cache = ManifestCache(tmp_path)
    for number in range(KEPT_PER_APP + 3):
        cache.put("x", f"k{number}", replace(MANIFEST, settings={"n": number}))
        os.utime(cache.path("x", f"k{number}"), (number + 1, number + 1))
    cache.put("y", "k", MANIFEST)
    kept = {path.name for path in (tmp_path / "manifests").glob("x-*.json")}
    assert len(kept) == KEPT_PER_APP
    assert f"x-k{KEPT_PER_APP + 2}.json" in kept
    assert cache.get("y", "k") == MANIFEST


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"KINDLING_DAGSTER_CACHE": "/a", "DAGSTER_HOME": "/b"}, "/a"),
        ({"DAGSTER_HOME": "/b"}, "/b/.kindling_dagster"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/kindling-dagster"),
    ],
)
def test_where_the_cache_is(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("KINDLING_DAGSTER_CACHE", "DAGSTER_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ManifestCache.default().directory == Path(expected)
