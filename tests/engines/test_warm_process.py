"""Warm processes without a run, so without Spark: found, started once, closed to others, ended in time."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from click.testing import CliRunner
from cluster.standalone import wait_for
from engines.warm_folder import own_warm_folder

from kindling_dagster.cli import main
from kindling_dagster.engines.warm.channel import ChannelClosed, greet
from kindling_dagster.engines.warm.process import ask, connect, ensure
from kindling_dagster.engines.warm.spec import FOLDER_VARIABLE, WarmPlace, WarmSpec, warm_folder
from kindling_dagster.errors import RunError
from kindling_dagster.project import KindlingProject

APP = Path(__file__).parents[1] / "running" / "app"
WAIT = 30.0
SECRET = {"spark.hadoop.fs.s3a.secret.key": "s3cr3t-5f1c"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with own_warm_folder(WAIT) as base:
        yield base / "own"


@pytest.fixture
def project(tmp_path: Path) -> KindlingProject:
    shutil.copytree(APP, tmp_path / "app")
    return KindlingProject(tmp_path / "app")


def status(place: WarmPlace) -> dict[str, object]:
    answer = ask(place, {"ask": "status"})
    assert answer is not None
    return answer["status"]


def test_one_process_serves_all_who_ask_at_once(folder: Path, project: KindlingProject) -> None:
    spec = WarmSpec.of(project, SECRET, {})
    started: list[bool] = []

    def come() -> None:
        channel, _, is_new = ensure(spec)
        channel.close()
        started.append(is_new)

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(started) == [False, False, False, True]
    place = WarmPlace(folder, spec.key)
    assert status(place)["runs"] == 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.token.stat().st_mode) == stat.S_IMODE(place.log.stat().st_mode) == 0o600
    # Settings, which can be secret, stand neither in the process's arguments nor in its environment or files.
    pid = status(place)["pid"]
    seen = [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
    seen += [file.read_bytes() for file in folder.iterdir() if file.is_file()]
    assert not [text for text in seen if b"s3cr3t" in text]


def test_garbage_and_wrong_tokens_are_refused_and_it_lives(folder: Path, project: KindlingProject) -> None:
    channel, place, _ = ensure(WarmSpec.of(project, {}, {}))
    with closing(channel):
        pid = status(place)["pid"]
        for bytes_sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\4abcd", os.urandom(4096)):
            end = socket.socket(socket.AF_UNIX)
            end.connect(str(place.socket))
            end.sendall(bytes_sent)
            end.close()
        stranger = socket.socket(socket.AF_UNIX)
        stranger.connect(str(place.socket))
        with pytest.raises(ChannelClosed):
            greet(stranger, b"0" * 64, first=False)
        # Who knows the token and talks nonsense does no harm either.
        for message in ({"ask": "dance"}, {"ask": "run", "request": {"pipe_ids": 7}}, {}):
            assert (ask(place, message) or {}).keys() <= {"unknown", "end"}
        raw = connect(place)
        assert raw is not None
        raw._connection.send_bytes(b"not json")
        raw.close()
        assert status(place)["pid"] == pid
    wait_for(
        "four refusals in the log", lambda: place.log.read_text().count("Refused a connection") >= 4, WAIT
    )


def test_it_ends_when_nobody_needs_it(folder: Path, project: KindlingProject) -> None:
    channel, place, _ = ensure(WarmSpec.of(project, {}, {}, idle_seconds=0.5))
    channel.close()
    wait_for("its end", lambda: not place.socket.exists(), WAIT)
    assert connect(place) is None


def test_new_code_gets_a_new_process_and_the_old_one_ends(folder: Path, project: KindlingProject) -> None:
    channel, old, _ = ensure(WarmSpec.of(project, {}, {}))
    channel.close()
    with (project.run_dir / "shop" / "pipes" / "steps.py").open("a") as source:
        source.write("\n# another version\n")
    channel, new, started = ensure(WarmSpec.of(KindlingProject(project.app_path), {}, {}))
    channel.close()
    assert started
    assert new != old
    wait_for("the end of the old one", lambda: not old.socket.exists(), WAIT)
    assert status(new)["runs"] == 0


def test_other_settings_get_another_key(project: KindlingProject) -> None:
    specs = [
        WarmSpec.of(project, {}, {}),
        WarmSpec.of(project, {"spark.master": "local[1]"}, {}),
        WarmSpec.of(project, {}, {"region": "x"}),
    ]
    assert len({spec.key for spec in specs}) == 3
    assert len({spec.family for spec in specs}) == 1
    assert all(WarmSpec.from_json(spec.to_json()) == spec for spec in specs)


def test_what_runs_write_changes_no_key(project: KindlingProject) -> None:
    before = WarmSpec.of(project, {}, {}).key
    data = project.run_dir / "data"
    data.mkdir()
    for name in ("landed.json", "notes.txt", "rows.csv"):
        (data / name).write_text("{}")
    assert WarmSpec.of(KindlingProject(project.app_path), {}, {}).key == before


def test_a_folder_that_others_may_enter_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(RunError, match="chmod 700"):
        warm_folder()
    folder.chmod(0o700)
    (folder.parent / "link").symlink_to(folder)
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder.parent / "link"))
    with pytest.raises(RunError, match="chmod 700"):
        warm_folder()


def test_a_folder_too_deep_for_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / ("deep" * 30)))
    with pytest.raises(RunError, match="shorter"):
        warm_folder()


def test_the_command_line(folder: Path, project: KindlingProject) -> None:
    def command(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["engine", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "None is there" in command("status")
    assert "Started" in command("start", str(project.app_path), "--conf", "spark.driver.memory=1g")
    assert "Already there" in command("start", str(project.app_path), "--conf", "spark.driver.memory=1g")
    (found,) = json.loads(command("status", "--format", "json"))
    assert (found["runs"], found["running"]) == (0, "")
    assert str(found["pid"]) in command("status")
    assert "1 told to end" in command("stop")
    wait_for("the end of all", lambda: not list(folder.glob("*.sock")), WAIT)
    assert "None is there" in command("stop")
