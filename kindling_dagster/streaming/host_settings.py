"""How a stream host behaves, how it ends, and what it raises when it cannot go on."""

from __future__ import annotations

from dataclasses import dataclass

from kindling_dagster.errors import RunError


class HostRefusedError(RunError):
    """Another host holds the project's lease."""


class HostLostError(RunError):
    """The host could not go on: its lease was lost, Spark's JVM ended, or the store is gone."""


@dataclass(frozen=True)
class HostSettings:
    """How a host behaves. Seconds.

    Args:
        lease: How long a lease holds without being renewed: a host that cannot reach the store for longer
            ends, and another machine's host waits at most so long before it takes over.
        lease_wait: How long to wait for another host's lease before giving up.
        reconcile: Longest pause between two looks at what is desired.
        report: Longest pause between two reports of a stream that runs.
        drain: How long batches under way may take to end when the host is stopped.
        close: How long streams, app and session may then take to be closed.
        starters: How many streams may be starting or stopping at once.
    """

    lease: float = 45.0
    lease_wait: float = 60.0
    reconcile: float = 1.0
    report: float = 5.0
    drain: float = 20.0
    close: float = 10.0
    starters: int = 4


@dataclass(frozen=True)
class HostEnd:
    """How a host ended in good order: why, and how many streams it stopped."""

    reason: str
    streams: int = 0
