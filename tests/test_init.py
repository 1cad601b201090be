"""`kindling-dagster init`: what it writes, what it says, and that it overwrites nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from app_forms import small_app
from click.testing import CliRunner, Result

from kindling_dagster import cli_init
from kindling_dagster.cli import main
from kindling_dagster.errors import SparkSetupError
from kindling_dagster.scaffolding import NewProject, from_root, project_files

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings this one
    import tomli as tomllib  # type: ignore[no-redef]

MODULES = {"pipes/a.py": "A = 1\n"}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return small_app(tmp_path, MODULES, name="shop")


def init(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["init", *arguments])
    assert result.exit_code == code, result.output
    return result


def attributes(project: Path) -> dict[str, object]:
    (found,) = project.glob("*/defs/*/defs.yaml")
    stated = yaml.safe_load(found.read_text())
    assert stated["type"] == "kindling_dagster.KindlingProjectComponent"
    return dict(stated["attributes"])


def test_a_project_beside_the_app(app: Path, tmp_path: Path) -> None:
    before = sorted(app.rglob("*"))
    told = init("shop_app").output
    project = tmp_path / "shop_app_dagster"
    assert sorted(app.rglob("*")) == before
    assert attributes(project) == {"project": "{{ project_root }}/../shop_app", "environment": "local"}
    configuration = tomllib.loads((project / "pyproject.toml").read_text())
    module = configuration["tool"]["dg"]["project"]["root_module"]
    assert configuration["tool"]["dagster"]["module_name"] == f"{module}.definitions"
    compile((project / module / "definitions.py").read_text(), "definitions.py", "exec")
    assert (project / ".env").read_text().splitlines()[-1] == f'DAGSTER_HOME="{project / ".dagster_home"}"'
    assert (project / ".dagster_home").is_dir()
    assert ".env" in (project / ".gitignore").read_text().splitlines()
    for words in ("as Kindling scaffolds it", "shop", "cd shop_app_dagster", "dg dev"):
        assert words in told


@pytest.mark.parametrize("here", [".", "src/shop"])
def test_not_within_the_app(app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str) -> None:
    monkeypatch.chdir(app / here)
    init(str(app))
    assert (tmp_path / "shop_app_dagster" / "pyproject.toml").is_file()


def test_what_is_said_of_the_app_goes_into_the_yaml(app: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    init("shop_app", "-e", "prod", "--config-dir", "shared", "--package", "json", "-o", "deep/My Lake-2")
    assert attributes(tmp_path / "deep" / "My Lake-2") == {
        "project": "{{ project_root }}/../../shop_app",
        "environment": "prod",
        "config_dir": "{{ project_root }}/../../shared",
        "packages": ["json"],
    }
    assert (tmp_path / "deep" / "My Lake-2" / "my_lake_2" / "definitions.py").is_file()


@pytest.mark.parametrize("there", ["pyproject.toml", ".env", "shop_app_dagster/definitions.py"])
def test_nothing_is_overwritten(app: Path, tmp_path: Path, there: str) -> None:
    mine = tmp_path / "shop_app_dagster" / there
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    refused = init("shop_app", code=1)
    assert f"would be overwritten: {there}." in refused.output
    assert "--output" in refused.output
    assert sorted(tmp_path.rglob("*")) == before
    assert mine.read_text() == "mine"


def test_a_directory_with_other_files_is_taken(app: Path, tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "LICENSE").write_text("mine")
    init("shop_app", "-o", "lake")
    init("shop_app", "-o", "lake", code=1)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere"], 1, "no Kindling app"),
        ([".", "--manifest", "m.json"], 2, "around an app, not around a manifest"),
        (["shop_app", "-o", "shop_app/lake-reqs.txt/x"], 1, "cannot be written"),
    ],
)
def test_what_cannot_be_is_refused(app: Path, arguments: list[str], code: int, words: str) -> None:
    assert words in init(*arguments, code=code).output


def test_next_steps_name_what_is_missing(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise SparkSetupError("Spark needs Java 17: none was found.")

    monkeypatch.setattr(cli_init, "find_java", none)
    monkeypatch.setattr(cli_init, "_TOOLS", {"no_such_module": "dagster-webserver", "json": "dagster-dg-cli"})
    told = init("shop_app").output
    assert "pip install dagster-webserver 'kindling-dagster[java]'" in told
    assert "kindling-dagster[java]>=" in (Path("shop_app_dagster") / "pyproject.toml").read_text()


def test_packages_that_are_not_there_are_named(app: Path) -> None:
    (app / "lake-reqs.txt").write_text("shop\nabsent-package\n")
    assert "Not found: absent_package" in init("shop_app").output


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("lake", "lake"),
        ("My Lake-2", "my_lake_2"),
        ("2013 flights", "_2013_flights"),
        ("…", "kindling_project"),
    ],
)
def test_names_become_modules(tmp_path: Path, name: str, module: str) -> None:
    new = NewProject(tmp_path / name, tmp_path / "app", 'a "b" {c}')
    assert new.module == module
    files = project_files(new)
    tomllib.loads(files["pyproject.toml"])
    for path, text in files.items():
        if path.endswith(".py"):
            compile(text, path, "exec")


def test_a_path_leads_around_links(tmp_path: Path) -> None:
    (tmp_path / "real" / "apps" / "shop").mkdir(parents=True)
    (tmp_path / "project").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "apps")
    stated = from_root(tmp_path / "link" / "shop", tmp_path / "project")
    assert stated == "{{ project_root }}/../real/apps/shop"
    assert from_root(tmp_path / "project", tmp_path / "project") == "{{ project_root }}"
