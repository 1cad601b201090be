"""The host's run and `kindling-dagster host`: what they pass on, how they end. A stand-in is the host; no Spark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, ExecuteInProcessResult, JobDefinition
from stream_apps import shop

from kindling_dagster import KindlingResource, KindlingStreamsResource, build_stream_jobs
from kindling_dagster.engines.base import LogLine, SignalSeen
from kindling_dagster.errors import SparkSetupError
from kindling_dagster.project import KindlingProject
from kindling_dagster.signals.payloads import decode
from kindling_dagster.streaming import host as hosting
from kindling_dagster.streaming.host_settings import HostEnd, HostRefusedError


def seen(name: str, **kwargs: Any) -> SignalSeen:
    """A signal as it leaves the host."""
    return SignalSeen(name, decode(name, kwargs).to_data())


OPTIONS = {"trigger": "5 seconds", "recovery.max_retries": 3}
FakeHost = Callable[..., HostEnd]
Run = Callable[[FakeHost], ExecuteInProcessResult]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KindlingProject:
    monkeypatch.delenv("KINDLING_DAGSTER_STORE_URL", raising=False)
    return shop(tmp_path)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as made:
        yield made


@pytest.fixture
def run(project: KindlingProject, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Run:
    job: JobDefinition = build_stream_jobs(project)[0]
    resources = {
        "kindling": KindlingResource(),
        "kindling_streams": KindlingStreamsResource(project, options=OPTIONS),
    }

    def run_with(fake: FakeHost) -> ExecuteInProcessResult:
        monkeypatch.setattr(hosting, "run_host", fake)
        return job.execute_in_process(instance=instance, resources=resources, raise_on_error=False)

    return run_with


def log_of(instance: DagsterInstance, run_id: str) -> str:
    return "\n".join(entry.user_message for entry in instance.all_logs(run_id))


def test_the_host_gets_what_it_needs_on_a_thread_of_its_own(run: Run, instance: DagsterInstance) -> None:
    seen: dict[str, Any] = {}

    def host(project: KindlingProject, url: str, session: Any, **options: Any) -> HostEnd:
        seen.update(options, url=url, session=session, thread=threading.current_thread())
        options["emit"](LogLine("info", "Spark is up"))
        options["emit"](LogLine("warning", "postgresql://me:s3cr3t@db"))
        return HostEnd("all is done", 2)

    result = run(host)
    assert result.success
    assert seen["url"].startswith(f"sqlite:///{instance.storage_directory()}")
    assert seen["run_id"] == result.run_id
    assert seen["overrides"] == OPTIONS
    assert seen["thread"] is not threading.main_thread()
    log = log_of(instance, result.run_id)
    assert "Spark is up" in log
    assert "The host ended: all is done (2 streams stopped)." in log
    assert "s3cr3t" not in log


def test_signals_become_events_of_the_streams_assets(run: Run, instance: DagsterInstance) -> None:
    def host(*_: Any, emit: Callable[[Any], None], **__: Any) -> HostEnd:
        emit(seen("streaming.query_failed", query_id="follow", query_name="follow", error="boom"))
        emit(seen("streaming.query_healthy", query_id="follow", query_name="follow"))
        return HostEnd("over")

    result = run(host)
    observed = [
        entry.dagster_event.event_specific_data.asset_observation  # type: ignore[union-attr]
        for entry in instance.all_logs(result.run_id)
        if entry.dagster_event is not None and entry.dagster_event.event_type_value == "ASSET_OBSERVATION"
    ]
    assert [event.asset_key.to_user_string() for event in observed] == ["silver/live"]
    assert "boom" in str(observed[0].description)


def test_a_refused_host_is_no_failure(run: Run, instance: DagsterInstance) -> None:
    def host(*_: Any, **__: Any) -> HostEnd:
        raise HostRefusedError("Another host holds the lease.")

    result = run(host)
    assert result.success
    assert "Another host holds the lease." in log_of(instance, result.run_id)


def test_a_host_that_cannot_start_fails_and_says_why(run: Run) -> None:
    def host(*_: Any, **__: Any) -> HostEnd:
        raise SparkSetupError("Spark needs Java.", "Install one.")

    result = run(host)
    assert not result.success
    [event] = result.get_step_failure_events()
    failure = event.step_failure_data.user_failure_data
    assert failure is not None
    assert "Spark needs Java. Install one." in str(failure.description)


def test_an_interrupt_drains_the_host(run: Run, instance: DagsterInstance) -> None:
    ended = threading.Event()

    def host(*_: Any, stop: threading.Event, emit: Callable[[Any], None], **__: Any) -> HostEnd:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(30)
        emit(LogLine("info", "Draining"))
        ended.set()
        return HostEnd("told to")

    run(host)
    assert ended.is_set()
    [record] = instance.get_run_records()
    assert "Draining" in log_of(instance, record.dagster_run.run_id)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_drains_on_a_signal(project: KindlingProject, tmp_path: Path, number: int) -> None:
    program = """
import signal, sys
# As a foreground process has it; a background job of a shell would ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from kindling_dagster.streaming import host
from kindling_dagster.streaming.host_settings import HostEnd
from kindling_dagster.engines.base import LogLine
def run_host(project, url, session, *, stop, emit):
    emit(LogLine("info", "up"))
    print("ready", flush=True)
    assert stop.wait(60)
    return HostEnd("drained", 3)
host.run_host = run_host
from kindling_dagster.cli import main
main(["host", "--manifest", sys.argv[1], "--store", "postgresql://me:s3cr3t@db/x"])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "manifest.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Ended: drained (3 streams stopped)." in said
    assert "INFO" in said
    assert "s3cr3t" not in said
