"""A real `dagster dev`, started, driven over GraphQL and stopped as a person would."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
import requests

Found = TypeVar("Found")

_LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
_REEXECUTE = """
mutation ($params: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
_EVENTS = """
query ($id: ID!) {
  logsForRun(runId: $id, limit: 1000) {
    ... on EventConnection { events {
      __typename
      ... on MessageEvent { message eventType timestamp }
      ... on MaterializationEvent { assetKey { path } metadataEntries { label
        ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text } } }
      ... on ObservationEvent { assetKey { path } label }
    } }
  }
}"""


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def wait_for(what: str, look: Callable[[], Found | None], seconds: float = 120) -> Found:
    """Poll until ``look`` gives something; fails with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


CODE_SERVER = ("code-server start", "api grpc")
"""The code server under `dagster dev`: what the others speak to, and what it has the definitions in."""


class DagsterDev:
    """One `dagster dev` process over a definitions file."""

    def __init__(self, folder: Path, definitions: Path, arguments: Sequence[str] = ()) -> None:
        self.folder = folder
        self.home = folder / "dagster_home"
        self.log = folder / "dev.log"
        self._definitions = definitions
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._sessions: set[int] = set()
        self.url = ""

    def start(self) -> None:
        """Start it and wait until its code location is loaded."""
        self.home.mkdir(exist_ok=True)
        (self.home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/graphql"
        command = [sys.executable, "-m", "dagster", "dev", "-f", str(self._definitions), "-h", "127.0.0.1"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-p", str(port), *self._arguments],
                cwd=self.folder,
                env={**os.environ, "DAGSTER_HOME": str(self.home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A shell's background job ignores SIGINT, and with it everything Dagster does on it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # type: ignore[arg-type, return-value]
            )
        self._sessions.add(self._process.pid)
        wait_for("the code location is loaded", self.location, 180)

    def location(self) -> str | None:
        """The code location's name, once it is loaded."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"dagster dev ended:\n{self.log.read_text()[-4000:]}")
        try:
            data = self.query(
                "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus"
                " locationOrLoadError { __typename ... on PythonError { message } } } } } }"
            )
        except requests.ConnectionError:
            return None
        entries = data["workspaceOrError"]["locationEntries"]
        if not entries or entries[0]["loadStatus"] != "LOADED":
            return None
        if "DagsterUserCodeUnreachableError" in entries[0]["locationOrLoadError"].get("message", ""):
            return None  # its code server has just been killed, and the next one is not known yet
        if entries[0]["locationOrLoadError"]["__typename"] != "RepositoryLocation":
            raise AssertionError(entries[0]["locationOrLoadError"])
        return str(entries[0]["name"])

    def query(self, text: str, **variables: Any) -> dict[str, Any]:
        """The data of a GraphQL query."""
        answer = requests.post(self.url, json={"query": text, "variables": variables}, timeout=60).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def assets(self) -> set[str]:
        """Keys of the assets that can be materialized, slashes between the parts."""
        nodes = self.query("{ assetNodes { assetKey { path } isMaterializable } }")["assetNodes"]
        return {"/".join(node["assetKey"]["path"]) for node in nodes if node["isMaterializable"]}

    def launch(self, *keys: str, config: Mapping[str, Any] | None = None) -> str:
        """Materialize assets; gives the run's id."""
        selected = {"assetSelection": [{"path": key.split("/")} for key in keys], "assetCheckSelection": []}
        return self._launch("__ASSET_JOB", selected, config)

    def launch_job(self, name: str, config: Mapping[str, Any] | None = None) -> str:
        """Launch a job; gives the run's id."""
        return self._launch(name, {}, config)

    def _launch(self, job: str, selected: Mapping[str, Any], config: Mapping[str, Any] | None) -> str:
        params = {
            "selector": {
                "repositoryLocationName": self.location(),
                "repositoryName": "__repository__",
                "jobName": job,
                **selected,
            },
            "runConfigData": dict(config or {}),
        }
        result = self.query(_LAUNCH, params=params)["launchRun"]
        assert result["__typename"] == "LaunchRunSuccess", result
        return str(result["run"]["runId"])

    def retry_from_failure(self, run_id: str) -> str:
        """Re-execute a run "from failure", as the button in the UI does; gives the new run's id."""
        params = {"parentRunId": run_id, "strategy": "FROM_FAILURE"}
        result = self.query(_REEXECUTE, params=params)["launchRunReexecution"]
        assert result["__typename"] == "LaunchRunSuccess", result
        return str(result["run"]["runId"])

    def status(self, run_id: str) -> str:
        """The run's status."""
        run = self.query("query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id)
        return str(run["runOrError"]["status"])

    def wait(self, run_id: str, seconds: float = 180) -> str:
        """The run's final status."""
        final = ("SUCCESS", "FAILURE", "CANCELED")
        return wait_for(
            f"run {run_id} ends",
            lambda: status if (status := self.status(run_id)) in final else None,
            seconds,
        )

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """The run's events so far."""
        events: list[dict[str, Any]] = self.query(_EVENTS, id=run_id)["logsForRun"]["events"]
        return events

    def messages(self, run_id: str) -> str:
        """The run's messages so far, a line each."""
        return "\n".join(event.get("message") or "" for event in self.events(run_id))

    def materialized(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Metadata of the assets materialized so far, by key."""
        return {
            "/".join(event["assetKey"]["path"]): {
                entry["label"]: entry.get("intValue", entry.get("text")) for entry in event["metadataEntries"]
            }
            for event in self.events(run_id)
            if event["__typename"] == "MaterializationEvent"
        }

    def terminate(self, run_id: str) -> None:
        """Terminate a run, as the button in the UI does."""
        result = self.query("mutation ($id: String!) { terminateRun(runId: $id) { __typename } }", id=run_id)[
            "terminateRun"
        ]
        assert result["__typename"] == "TerminateRunSuccess", result

    def reload(self) -> None:
        """Reload the code location, as the button in the UI does; returns when it is loaded."""
        query = "mutation ($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"
        result = self.query(query, name=self.location())["reloadRepositoryLocation"]
        assert result["__typename"] == "WorkspaceLocationEntry", result
        wait_for("the code location is loaded", self.location, 60)

    def processes(self) -> list[psutil.Process]:
        """Every process that it has started, now or before; also those whose parent has died."""
        return [each for each in psutil.process_iter() if self._ours(each)]

    def _ours(self, process: psutil.Process) -> bool:
        try:
            # A dead one that nobody has asked how it ended is none any more.
            ended = process.status() == psutil.STATUS_ZOMBIE
            return (
                process.pid not in self._sessions and os.getsid(process.pid) in self._sessions and not ended
            )
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False

    def find(self, *words: str) -> list[psutil.Process]:
        """Its processes with one of the words in their command line."""
        return [each for each in self.processes() if any(word in " ".join(_command(each)) for word in words)]

    def kill(self, *words: str) -> None:
        """SIGKILL to the processes that ``find`` gives."""
        found = self.find(*words)
        assert found, f"no process of {words}"
        for process in found:
            process.kill()

    def kill_all(self) -> None:
        """SIGKILL to everything of it at once, as when the machine goes."""
        assert self._process is not None
        everything = self.processes()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        _, alive = psutil.wait_procs(everything, timeout=10)
        assert not alive
        self._process = None

    def wait_for_end(self, seconds: float) -> None:
        """Wait until it has ended by itself; runs may go on."""
        assert self._process is not None
        self._process.wait(seconds)
        self._process = None

    def jvms(self) -> list[psutil.Process]:
        """The JVMs under it."""
        found = []
        for process in self.processes():
            try:
                if process.name() == "java":
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def stop(self) -> None:
        """Ctrl-C: SIGINT to the whole group, as a terminal sends it; then make sure that all is gone."""
        everything = self.processes()
        if self._process is None:
            for process in everything:  # what a test that failed has left behind
                process.kill()
            return
        os.killpg(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(60)
        finally:
            _, alive = psutil.wait_procs(everything, timeout=30)
            for process in alive:
                process.kill()
            self._process = None
        assert not alive, f"still running after Ctrl-C: {alive}"
