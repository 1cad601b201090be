"""``kindling-dagster streams …`` on a terminal and in a pipe."""

from __future__ import annotations

import getpass
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from stream_apps import Host, open_store, running, shop

from kindling_dagster.cli import main
from kindling_dagster.project import KindlingProject
from kindling_dagster.streaming.checkpoints import load, remember
from kindling_dagster.streaming.model import DeadLetter, HistoryEntry, StreamError
from kindling_dagster.streaming.store import StreamStore


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KindlingProject:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.delenv("KINDLING_DAGSTER_STORE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    return shop(tmp_path)


@pytest.fixture
def store(project: KindlingProject, tmp_path: Path) -> StreamStore:
    return open_store(f"sqlite:///{tmp_path / 's.db'}", project)


def call(*arguments: str, store: bool = True) -> Result:
    where = ["--store", f"sqlite:///{Path.cwd() / 's.db'}"] if store else []
    # A manifest alone is the app; the argument for its directory stays unused.
    return CliRunner().invoke(main, ["streams", *arguments, "--manifest", "manifest.json", *where])


def test_ask_and_look(store: StreamStore) -> None:
    assert call("status").exit_code == 0
    done = call("start", "-s", "silver.*", "--reason", "go")
    assert (done.exit_code, "follow, alone" in done.output) == (0, True)
    host = Host(store, hostname="box", pid=7)
    host.report(running("follow", generation=0, input_rows_per_second=3.25))
    shown = call("status").output
    assert "Host running: box, process 7" in shown
    line = next(line for line in shown.splitlines() if " follow " in line)
    assert {"yes", "running", "healthy", "3.2"} <= set(line.split())
    assert call("stop", "--all").exit_code == 0
    assert not any(desired.running for desired in store.desired().values())
    assert call("restart", "-s", "follow", "--cascade").exit_code == 0
    assert store.desired()["follow"].running


@pytest.mark.parametrize("command", ["start", "stop", "restart", "revive"])
@pytest.mark.parametrize("names", [[], ["--all", "-s", "follow"]])
def test_all_streams_are_asked_for_on_purpose(store: StreamStore, command: str, names: list[str]) -> None:
    done = call(command, *names)
    assert (done.exit_code, "--all" in done.output) == (2, True)
    assert store.desired() == {}


def test_a_dead_letter_is_shown_with_what_to_do_and_revived(store: StreamStore) -> None:
    call("start", "--all")
    host = Host(store)
    error = StreamError("SparkException", "bad [row]", time.time())
    store.report(host.lease, dead_letters=[DeadLetter("alone", time.time(), 5, (error,), "Mend it.")])
    letters = call("dead-letters").output
    assert "alone" in letters
    assert "SparkException: bad [row]" in letters
    assert "Mend it." in letters
    assert call("status").exit_code == 1
    assert "revive: alone" in call("revive", "--all").output
    assert "There is none." in call("dead-letters").output
    assert "revive: nothing" in call("revive", "--all").output


def test_all_dead_letters_are_those_of_streams_that_the_app_still_has(store: StreamStore) -> None:
    host = Host(store)
    store.report(host.lease, dead_letters=[DeadLetter(id_, time.time(), 5) for id_ in ("alone", "removed")])
    assert "removed" not in call("dead-letters").output
    assert "revive: alone" in call("revive", "--all").output


def test_a_user_whom_the_system_has_no_name_for(store: StreamStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1000710000")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert call("start", "--all").exit_code == 0
    assert store.desired()["alone"].by.startswith("uid ")


def test_reviving_may_accept_that_the_checkpoint_is_gone(store: StreamStore) -> None:
    remember(store, "follow", "query-1", "/checkpoints/follow")
    call("revive", "-s", "follow")
    assert load(store, "follow").query_id == "query-1"
    call("revive", "-s", "follow", "--reset-checkpoint")
    assert load(store, "follow").query_id == ""
    assert load(store, "follow").accepted_by


def test_history_as_text_and_json(store: StreamStore) -> None:
    host = Host(store)
    store.report(
        host.lease,
        history=[HistoryEntry("follow", "started", 1.0), HistoryEntry("follow", "failed", 2.0, "[boom]")],
    )
    assert "[boom]" in call("history").output
    entries = json.loads(call("history", "-s", "follow", "--format", "json", "--limit", "1").output)
    assert [entry["event"] for entry in entries] == ["failed"]


def test_status_as_json(store: StreamStore) -> None:
    call("start", "-s", "follow")
    data = json.loads(call("status", "--format", "json").output)
    assert data["host"] is None
    assert {item["stream"]: (item["wanted"], item["state"]) for item in data["streams"]}["follow"] == (
        True,
        "no host",
    )


def test_a_stream_that_is_none_is_refused(store: StreamStore) -> None:
    done = call("start", "-s", "folow")
    assert done.exit_code == 1
    assert "Close to it: follow" in done.stderr


def test_nothing_says_where_the_store_is(project: KindlingProject) -> None:
    done = call("status", store=False)
    assert done.exit_code == 1
    assert "DAGSTER_HOME" in done.stderr


def test_the_store_is_found_by_dagsters_home_in_the_env_file(
    project: KindlingProject, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    (tmp_path / ".env").write_text(f"OTHER=1\nDAGSTER_HOME='{home}'\n")
    assert call("start", "--all", store=False).exit_code == 0
    assert (home / "storage" / "kindling_streams.db").is_file()
