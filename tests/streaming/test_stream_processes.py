"""Whether a host's process is known to have died."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kindling_dagster.streaming import processes
from kindling_dagster.streaming.model import HostInfo
from kindling_dagster.streaming.processes import machine_id, process_gone


@pytest.fixture
def ended() -> int:
    """The id of a process that has ended, and that its parent has asked about."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def host(pid: int, **changes: Any) -> HostInfo:
    return HostInfo("h", 1, pid=pid, **{"machine": machine_id(), **changes})


def test_one_that_lives_is_not_gone() -> None:
    assert not process_gone(host(os.getpid()))


def test_one_that_has_ended_is_gone(ended: int) -> None:
    assert process_gone(host(ended))


def test_one_whose_parent_has_not_asked_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_gone(host(child.pid))
    child.wait()


@pytest.mark.parametrize("machine", ["", "elsewhere", machine_id().replace("[", "[9")])
def test_nothing_is_known_of_one_elsewhere(ended: int, machine: str) -> None:
    """Another machine, one that does not say, another container of the same name."""
    assert not process_gone(host(ended, machine=machine))


@pytest.mark.parametrize("pid", [0, -1])
def test_no_process_is_no_dead_one(pid: int) -> None:
    assert not process_gone(host(pid))


def test_without_proc_the_name_must_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "_BOOT", tmp_path / "absent")
    machine_id.cache_clear()
    try:
        assert "/" not in machine_id()
        assert not process_gone(host(os.getpid()))
    finally:
        machine_id.cache_clear()
