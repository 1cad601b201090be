"""KindlingProject: cheap to make, never imports the app, records when something changed and only then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from app_forms import APPS, ENTITY, PIPE, manifest_cache, quick, quick_recorder, recorded, small_app

from kindling_dagster import project as project_module
from kindling_dagster.errors import ManifestError, ProjectError
from kindling_dagster.project import REFRESH_VARIABLE, KindlingProject

__all__ = ["manifest_cache", "quick"]

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return small_app(tmp_path, {"entities/e.py": ENTITY, "pipes/a.py": PIPE})


@pytest.fixture
def recordings(quick: None, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests a recorder was started for."""
    asked: list[Any] = []

    def count(request: Any, seconds: float) -> dict[str, Any]:
        asked.append(request)
        return quick_recorder(request, seconds)

    monkeypatch.setattr(project_module, "run_recorder", count)
    return asked


def test_making_one_reads_nothing() -> None:
    project = KindlingProject("not/there")
    assert project.app_path == Path.cwd() / "not" / "there"
    with pytest.raises(ProjectError, match="does not exist"):
        _ = project.manifest


def test_it_needs_an_app_or_a_manifest() -> None:
    with pytest.raises(ProjectError, match="needs an app or a manifest"):
        KindlingProject()


def test_an_unchanged_app_is_recorded_once(app: Path, recordings: list[Any]) -> None:
    first = KindlingProject(app).manifest
    again = KindlingProject(app)
    assert again.manifest == first
    assert again.manifest is again.manifest
    assert len(recordings) == 1
    assert recordings[0]["environment"] == "local"


def test_a_change_is_seen_by_the_next_project(app: Path, recordings: list[Any]) -> None:
    assert len(KindlingProject(app).manifest.pipes) == 1
    (app / "src/tiny/pipes/b.py").write_text(PIPE.replace('"a"', '"b"'))
    assert [pipe.id for pipe in KindlingProject(app).manifest.pipes] == ["a", "b"]
    assert len(recordings) == 2


def test_refresh_records_anew(app: Path, recordings: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    project = KindlingProject(app)
    project.load_manifest()
    project.load_manifest(refresh=True)
    monkeypatch.setenv(REFRESH_VARIABLE, "1")
    KindlingProject(app).load_manifest()
    assert len(recordings) == 3


def test_progress_is_told(
    app: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project_module.logger, "disabled", True)
    _ = KindlingProject(app).manifest
    told = capfd.readouterr().err
    assert "Recording Kindling app 'tiny_app' (environment local)" in told
    assert "1 pipes, 2 entities, 0 problems" in told


def test_a_failed_recording_is_not_kept(app: Path, recordings: list[Any]) -> None:
    broken = app / "src/tiny/pipes/b.py"
    broken.write_text("1 / 0\n")
    for _ in range(2):
        with pytest.raises(ProjectError, match="ZeroDivisionError"):
            KindlingProject(app).load_manifest()
    assert len(recordings) == 2
    broken.unlink()
    assert KindlingProject(app).manifest.pipes


def test_from_a_manifest_file_neither_app_nor_kindling_is_imported(app: Path, tmp_path: Path) -> None:
    KindlingProject(app).manifest.write(tmp_path / "m.json")
    code = (
        "import sys\n"
        "from kindling_dagster.project import KindlingProject\n"
        f"project = KindlingProject(manifest={str(tmp_path / 'm.json')!r})\n"
        "assert [pipe.id for pipe in project.manifest.pipes] == ['a'], project\n"
        "assert project.name == 'tiny_app'\n"
        "heavy = [name for name in ('kindling', 'pyspark', 'delta', 'dagster', 'tiny') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_from_an_app_the_process_itself_imports_nothing_of_it(app: Path) -> None:
    code = (
        "import sys\n"
        "from kindling_dagster.project import KindlingProject\n"
        f"assert KindlingProject({str(app)!r}).manifest.pipes\n"
        "heavy = [name for name in ('kindling', 'pyspark', 'py4j', 'dagster', 'tiny') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_a_manifest_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        KindlingProject(manifest=tmp_path / "none.json").load_manifest()


def test_a_project_of_a_manifest_alone_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="names no app"):
        _ = KindlingProject(manifest=tmp_path / "none.json").layout


def test_equality_is_by_what_is_loaded() -> None:
    one = KindlingProject(APPS / "kitchen", packages=["a"])
    assert one == KindlingProject(str(APPS / "kitchen"), packages=("a",))
    assert (
        len({one, KindlingProject(APPS / "kitchen"), KindlingProject(APPS / "kitchen", environment="x")}) == 3
    )
    manifests = [KindlingProject(APPS / "kitchen", manifest=name) for name in ("a.json", "b.json")]
    assert len({*manifests, KindlingProject(APPS / "kitchen"), KindlingProject(manifest="a.json")}) == 4


def test_relative_paths_count_from_where_it_was_made(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(app.parent)
    project = KindlingProject(app.name, config_dir="conf")
    monkeypatch.chdir("/")
    assert project.run_dir == app
    assert project.config_path == app.parent / "conf"


def test_shared_settings_and_parameters_apply(app: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "settings.yaml").write_text(
        "kindling: {execution: {max_workers: 7, parallel: true}}\n"
    )
    settings = {"kindling.execution.max_workers": 9}
    project = KindlingProject(app, config_dir=tmp_path / "shared", settings=settings)
    found = project.manifest.settings
    assert (found["kindling.execution.max_workers"], found["kindling.execution.parallel"]) == (9, True)


def test_two_apps_with_one_package_name_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = small_app(tmp_path / "one", {"entities/e.py": ENTITY, "pipes/a.py": PIPE})
    two = small_app(tmp_path / "two", {"entities/e.py": ENTITY, "pipes/b.py": PIPE.replace('"a"', '"b"')})
    assert [[p.id for p in KindlingProject(app).manifest.pipes] for app in (one, two)] == [["a"], ["b"]]


def test_explicit_packages_of_a_directory(tmp_path: Path) -> None:
    app = small_app(tmp_path, {"entities/e.py": ENTITY, "pipes/a.py": PIPE})
    (app / "lake-reqs.txt").write_text("")
    assert KindlingProject(app, packages=["tiny"]).manifest.pipes_by_id.keys() == {"a"}


def test_a_child_that_dies_or_hangs_is_told(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    request = KindlingProject(app)._request(real=False) | {"fallback_paths": []}
    (app / "src/tiny/pipes/b.py").write_text("import os\nprint('about to die', flush=True)\nos._exit(9)\n")
    with pytest.raises(ProjectError) as caught:
        project_module.run_recorder(request, 60)
    assert "exit code 9" in str(caught.value)
    assert "about to die" in str(caught.value)
    with pytest.raises(ProjectError, match=r"took more than 0\.01 s"):
        project_module.run_recorder(request, 0.01)


def test_sources_are_found_on_this_machine() -> None:
    project = KindlingProject(APPS / "kitchen")
    source = recorded("kitchen").pipes_by_id["silver.orders"].source
    assert source is not None
    assert project.source_path(source) == APPS / "kitchen/src/kitchen/pipes/silver.py"
