"""The `demo` command: five steps, what each says when it cannot be done, and what is handed to Dagster."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from kindling_dagster_demo import feed, launcher

from kindling_dagster import spark
from kindling_dagster.class_archive import FOLDER_VARIABLE
from kindling_dagster.errors import SparkSetupError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "app.yaml").touch()
    (tmp_path / "workspace.yaml").touch()
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr(launcher, "find_root", lambda: tmp_path)
    monkeypatch.setattr(spark, "delta_jar_cached", lambda: True)
    monkeypatch.setenv(FOLDER_VARIABLE, "off")
    return tmp_path


def _started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str], Path]]:
    calls: list[tuple[list[str], dict[str, str], Path]] = []
    monkeypatch.setattr(
        os, "execve", lambda _file, command, environment: calls.append((command, environment, Path.cwd()))
    )
    monkeypatch.chdir(Path.cwd())  # the launcher changes it; the end of the test changes it back
    return calls


def test_a_first_start_says_how_far_it_is_and_becomes_dagster(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = _started(monkeypatch)
    launcher.run(["--days", "2", "-p", "3001"])
    said = capsys.readouterr().out
    positions = [
        said.index(f"[{step}/5] {what}")
        for step, what in enumerate(
            ("environment", "Java", "Delta's jars", "Spark's classes", "demo data"), 1
        )
    ]
    assert positions == sorted(positions)
    [(command, environment, where)] = calls
    assert command[1:] == ["-m", "dagster", "dev", "-w", "workspace.yaml", "-p", "3001"]
    assert where == root
    assert environment["DAGSTER_HOME"] == str(root / ".dagster_home")
    assert (Path(environment["JAVA_HOME"]) / "bin" / "java").exists()
    assert "enabled: false" in (root / ".dagster_home" / "dagster.yaml").read_text()
    assert (root / ".env").read_text() == f"DAGSTER_HOME={root / '.dagster_home'}\n"
    assert feed.landed_days(root / "demo") == 2


@pytest.mark.parametrize(("arguments", "live"), [([], False), (["--live"], True)])
def test_live_tells_the_definitions(
    root: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], live: bool
) -> None:
    monkeypatch.delenv("KINDLING_DEMO_LIVE", raising=False)
    calls = _started(monkeypatch)
    launcher.run(["--days", "1", *arguments])
    [(command, environment, _)] = calls
    assert (environment.get("KINDLING_DEMO_LIVE") == "1") is live
    assert "--live" not in command


def test_a_second_start_leaves_everything_as_it_is(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher.run(["--prepare", "--days", "1"])
    (root / ".dagster_home" / "dagster.yaml").write_text("mine: true\n")
    (root / ".env").write_text("MINE=1\n")
    capsys.readouterr()
    launcher.run(["--prepare", "--days", "1"])
    assert (root / ".dagster_home" / "dagster.yaml").read_text() == "mine: true\n"
    assert (root / ".env").read_text() == "MINE=1\n"
    assert capsys.readouterr().out.count("already here") == 2


def test_a_given_home_is_kept(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "elsewhere"))
    environment = launcher.prepare(root, 1)
    assert environment["DAGSTER_HOME"] == str(tmp_path / "elsewhere")
    assert not (root / ".env").exists()


def _no_java() -> None:
    raise SparkSetupError("Spark needs Java.", "Try pip install 'kindling-dagster[java]'.")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda patch: patch.setenv("DAGSTER_HOME", "relative"), "not absolute"),
        (
            lambda patch: patch.setattr(spark, "find_java", _no_java),
            "Try pip install 'kindling-dagster[java]'.",
        ),
        (lambda patch: patch.setattr(feed, "SOURCE_PACKAGE", "nycflights-absent"), "uv sync"),
    ],
    ids=["relative home", "no java", "no source data"],
)
def test_what_is_missing_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], break_it, words: str
) -> None:
    calls = _started(monkeypatch)
    break_it(monkeypatch)
    with pytest.raises(SystemExit) as stopped:
        launcher.run([])
    assert stopped.value.code == 1
    assert words in capsys.readouterr().out
    assert calls == []


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (
            "import sys; sys.exit('SETUP:Delta is out of reach. Name a mirror.')",
            "Delta is out of reach. Name a mirror.",
        ),
        ("raise RuntimeError('boom')", "boom"),
        ("import time; time.sleep(600)", "Maven Central"),
    ],
    ids=["known", "unknown", "too long"],
)
def test_jars_that_do_not_come_are_explained(
    root: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: str
) -> None:
    monkeypatch.setattr(spark, "delta_jar_cached", lambda: False)
    monkeypatch.setattr(launcher, "_FETCH_JARS", program)
    monkeypatch.setattr(launcher, "JARS_SECONDS", 3)
    with pytest.raises(launcher.LauncherError, match=words):
        launcher.step_jars(dict(os.environ))


@pytest.mark.parametrize(
    ("program", "says"),
    [("pass", "archived in"), ("raise SystemExit('no room for it')", "not archived: no room for it")],
)
def test_a_demo_without_archived_classes_starts_too(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    program: str,
    says: str,
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(root / "classes"))
    monkeypatch.setattr(launcher, "_ARCHIVE_CLASSES", program)
    launcher.step_classes(dict(os.environ))
    assert says in capsys.readouterr().out


def test_a_child_over_its_time_takes_its_own_children_along(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = (
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid))\n"
        "child.wait()\n"
    )
    code, _ = launcher._run_child(program, dict(os.environ), 10)
    assert code is None
    assert _gone(int(note.read_text()))


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.spark
def test_the_jars_program_starts_spark(root: Path) -> None:
    code, words = launcher._run_child(launcher._FETCH_JARS, dict(os.environ), 300)
    assert code == 0, words


@pytest.mark.parametrize(("answer", "removed"), [("y", True), ("n", False), ("", False)])
def test_reset_asks(root: Path, monkeypatch: pytest.MonkeyPatch, answer: str, removed: bool) -> None:
    launcher.prepare(root, 1)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(launcher.console, "input", lambda _question: answer)
    if removed:
        launcher.run(["--reset"])
    else:
        with pytest.raises(SystemExit):
            launcher.run(["--reset"])
    assert (root / "demo" / "data").exists() is not removed
    assert (root / ".dagster_home").exists() is not removed
    assert (root / "demo" / "app.yaml").exists()


def test_reset_without_a_keyboard_wants_yes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher.prepare(root, 1)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(SystemExit):
        launcher.run(["--reset"])
    assert (root / "demo" / "data").exists()
    launcher.run(["--reset", "--yes"])
    assert not (root / "demo" / "data").exists()
    launcher.run(["--reset", "--yes"])  # nothing there is no failure


def test_the_repository_is_found_from_where_the_package_is() -> None:
    assert launcher.find_root() == Path(__file__).parents[2]
