"""StreamHost: the process that runs a project's streams, makes actual what is desired, and ends when it must."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kindling_dagster.engines.base import RunEvent
from kindling_dagster.errors import RunError
from kindling_dagster.project import KindlingProject

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class HostRefusedError(RunError):
    """Another host holds the project's lease."""


class HostLostError(RunError):
    """The host could not go on: its lease was lost, Spark's JVM ended, or the store is gone."""


@dataclass(frozen=True)
class HostSettings:
    """How a host behaves. Seconds.

    Args:
        lease: How long a lease holds without being renewed; what it takes at most until another host may start.
        lease_wait: How long to wait for another host's lease before giving up.
        reconcile: Pause between two looks at what is desired.
        report: Longest pause between two reports of a stream that runs.
        drain: How long batches under way may take to end when the host is stopped.
        starters: How many streams may be starting or stopping at once.
    """

    lease: float = 30.0
    lease_wait: float = 60.0
    reconcile: float = 1.0
    report: float = 5.0
    drain: float = 20.0
    starters: int = 4


@dataclass(frozen=True)
class HostEnd:
    """How a host ended in good order: why, and how many streams it stopped."""

    reason: str
    streams: int = 0


def run_host(
    project: KindlingProject,
    store_url: str,
    create_session: Callable[[], SparkSession],
    run_id: str = "",
    stop: threading.Event | None = None,
    *,
    settings: HostSettings | None = None,
    overrides: Mapping[str, Any] | None = None,
    emit: Callable[[RunEvent], None] | None = None,
) -> HostEnd:
    """Run a project's streams until ``stop`` is set; returns when the host has drained and ended.

    Args:
        project: The app.
        store_url: The store; see ``identity.store_url``.
        create_session: Gives the Spark session; called on the host's own thread.
        run_id: The Dagster run that holds the host, if any.
        stop: Ends the host when set. An exception in the waiting (main) thread ends it too.
        settings: How it behaves.
        overrides: Over the settings of streams, as for ``stream_configs``.
        emit: Takes signals and log lines as they happen; called from several threads.

    Raises:
        HostRefusedError: Another host holds the lease and keeps it.
        HostLostError: The lease was lost, or Spark's JVM or the store ended.
        KindlingDagsterError: Spark or the app cannot start.
    """
    raise NotImplementedError
