"""A `dagster dev` whose host of streams is killed: how long until another one runs them."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from kindling_dagster.streaming.model import HostInfo
from kindling_dagster.streaming.model import StreamingQueryState as State
from tests.e2e.driver import DagsterDev, wait_for
from tests.faults.harness import Flow, flow

DEFINITIONS = """
from kindling_dagster import (
    KindlingProject, KindlingStreamsResource, SupervisorPolicy, build_kindling_definitions
)

project = KindlingProject({app!r})
defs = build_kindling_definitions(
    project,
    streams_resource=KindlingStreamsResource(project, store_url={url!r}),
    supervisor=SupervisorPolicy(stable_after={stable}),
)
"""
STABLE_SECONDS = 10.0
"""After how long a host counts as one that stayed up, so that no backoff is due when it dies; 60 s by default."""


class KilledHosts:
    """The stack, and what is done to it."""

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._flow: Flow | None = None

    def up(self) -> None:
        """Start it and wait until all streams run."""
        folder = Path(self._undo.enter_context(tempfile.TemporaryDirectory(prefix="kindling-stack-")))
        self._flow = running = self._undo.enter_context(flow(folder))
        (folder / "defs.py").write_text(
            DEFINITIONS.format(app=str(running.app), url=running.url, stable=STABLE_SECONDS)
        )
        dev = DagsterDev(folder, folder / "defs.py")
        self._undo.callback(dev.stop)
        dev.start()
        running.ask("start")
        running.await_state(State.RUNNING, seconds=240)

    def settle(self) -> None:
        """Wait until the host counts as one that stayed up."""
        wait_for(
            "a host that stayed up",
            lambda: self._host().heartbeat_at - self._host().started_at > STABLE_SECONDS,
        )

    def kill(self) -> float:
        """Seconds from SIGKILL of the host's process to all streams running in the next one's."""
        assert self._flow is not None
        running, before = self._flow, self._host()
        running.land(5)
        killed = time.time()
        os.kill(before.pid, signal.SIGKILL)
        wait_for(
            "another host runs the streams",
            lambda: self._host().token > before.token and running.all_run(),
            240,
        )
        seconds = time.time() - killed
        [launch] = running.store.launches(limit=1)
        print(
            f"asked for the next host after {launch.at - killed:.1f} s, "
            f"it had the lease after {self._host().started_at - killed:.1f} s, "
            f"all streams ran after {seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )
        running.await_exact()
        return seconds

    def down(self) -> None:
        """Stop it."""
        self._undo.close()

    def _host(self) -> HostInfo:
        assert self._flow is not None
        host = self._flow.store.host()
        assert host is not None
        return host
