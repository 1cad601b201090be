"""The engine's hold of its session, with stand-ins for session and app: what Spark does is tested on Spark."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from manifests import manifest, pipe

from kindling_dagster import KindlingProject
from kindling_dagster.engines import in_process, session
from kindling_dagster.engines.base import RunRequest
from kindling_dagster.engines.in_process import InProcessEngine
from kindling_dagster.errors import ProjectError


class Process:
    """A process in which a session may be up, and an app that does not start."""

    def __init__(self, up: bool) -> None:
        self.up = up
        self.session: Any = SimpleNamespace(
            version="3.5", sparkContext=SimpleNamespace(master="local"), stop=self.stop
        )

    def create_session(self) -> Any:
        self.up = True
        return self.session

    def stop(self) -> None:
        self.up = False

    def start(self, _project: KindlingProject, make: Any) -> None:
        make()
        raise ProjectError("The app does not start.")


@pytest.mark.parametrize("was_up", [False, True])
@pytest.mark.parametrize("tries", [1, 2])
def test_a_session_that_the_engine_started_ends_with_it_also_when_the_app_never_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tries: int, was_up: bool
) -> None:
    process = Process(was_up)
    monkeypatch.setattr(session, "session_is_up", lambda: process.up)
    monkeypatch.setattr(in_process.KindlingRuntime, "start", process.start)
    recorded = tmp_path / "manifest.json"
    manifest(pipe("a", "bronze.a", "silver.a")).write(recorded)
    (tmp_path / "app.py").touch()
    engine = InProcessEngine(KindlingProject(tmp_path, manifest=recorded), process.create_session)
    for number in range(tries):
        with pytest.raises(ProjectError, match="does not start"):
            list(engine.run(RunRequest(f"r{number}", ("a",))))
    engine.close()
    assert process.up == was_up
