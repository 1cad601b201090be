"""A stream as a person sees it: what is wanted, what is reported, who holds it, and what is wrong. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from kindling_dagster.streaming.model import (
    DeadLetter,
    Desired,
    HostInfo,
    StreamHealth,
    StreamingQueryState,
    StreamStatus,
)

Severity = Literal["error", "warning"]

HOST_GRACE = 90.0
"""Seconds that a wanted stream may be without a host before that counts as a fault: a host needs about 40 to start."""


@dataclass(frozen=True)
class Verdict:
    """Whether a stream is as it should be, how bad it is if not, and why."""

    ok: bool
    reason: str
    severity: Severity = "error"
    suggestion: str = ""


@dataclass(frozen=True)
class StreamView:
    """One stream.

    Args:
        stream_id: The stream: its pipe's id.
        desired: What is wanted; None when nobody ever asked for it.
        status: What was last reported; None when no host ever had it.
        dead_letter: Why it is not started again, if it is a dead letter.
        host: Who holds, or last held, the project's streams.
        now: The moment of all this, Unix seconds.
    """

    stream_id: str
    desired: Desired | None = None
    status: StreamStatus | None = None
    dead_letter: DeadLetter | None = None
    host: HostInfo | None = None
    now: float = 0.0

    @property
    def wanted(self) -> bool:
        """Whether it should run."""
        return self.desired is not None and self.desired.running

    @property
    def hosted(self) -> bool:
        """Whether a host lives; what was reported before is the past otherwise."""
        return self.host is not None and self.host.alive(self.now)

    @property
    def reported(self) -> bool:
        """Whether what was reported is by the host that lives."""
        return (
            self.hosted
            and self.status is not None
            and self.host is not None
            and _is_by(self.status, self.host)
        )

    @property
    def current(self) -> bool:
        """Whether what was reported is about what is wanted now, and by the host that lives."""
        return (
            self.reported
            and self.status is not None
            and self.desired is not None
            and self.status.generation >= self.desired.generation
        )

    @property
    def state(self) -> str:
        """Where it is, in one or two words: a ``StreamingQueryState``, or ``not started`` or ``no host``."""
        if self.dead_letter is not None:
            return StreamingQueryState.DEAD_LETTER.value
        if self.wanted and not self.hosted:
            return "no host"
        if self.status is None and not self.wanted:
            return "not started"
        if self.status is not None and self.reported:
            return self.status.state.value
        # What a host before this one has told is the past.
        return StreamingQueryState.STARTING.value if self.wanted else StreamingQueryState.STOPPED.value

    @property
    def ended(self) -> bool:
        """Whether it is wanted and its query has ended by itself: it was to read what is there, and has."""
        return (
            self.wanted
            and self.current
            and self.status is not None
            and self.status.state is StreamingQueryState.STOPPED
        )

    @property
    def progressed(self) -> bool:
        """Whether its present query is up as wanted and has shown life: a batch, or that there is nothing to read.

        A query that was to read what is there and end (trigger ``availableNow``) has done so.
        """
        if not self.current or self.status is None or self.desired is None:
            return False
        metrics = self.status.metrics
        if self.status.state is StreamingQueryState.STOPPED:
            return (metrics.last_event_at or metrics.last_progress_at or 0.0) > self.desired.at
        # A query that has just started has neither; one that Spark says is idle has a rate of 0.
        heard = metrics.batch_id is not None or metrics.input_rows_per_second is not None
        return self.status.state is StreamingQueryState.RUNNING and heard

    @cached_property
    def verdict(self) -> Verdict:
        """Whether it is as it should be."""
        if self.dead_letter is not None:
            return _dead(self.dead_letter)
        if not self.wanted:
            return Verdict(True, "Not wanted, so it does not run.")
        if not self.hosted:
            return self._hostless()
        if self.status is None or not self.current:
            return Verdict(True, "It is being started.")
        return _reported(self.status)

    def _hostless(self) -> Verdict:
        since = self.desired.at if self.desired is not None else 0.0
        if self.host is not None:
            since = max(since, min(self.host.expires_at, self.now))
        if self.now - since <= HOST_GRACE:
            return Verdict(True, "It waits for a host, which is being started.")
        return Verdict(
            False,
            f"No host has held it for {self.now - since:.0f} s.",
            suggestion="See the supervisor sensor's last ticks and the stream host's last run.",
        )


def _is_by(status: StreamStatus, host: HostInfo) -> bool:
    """Whether the host that holds the lease has reported it.

    By the lease, not by the time: a host may start while the one before it still reports, and clocks are set.
    """
    return status.token == host.token if status.token else status.updated_at >= host.started_at


def _dead(letter: DeadLetter) -> Verdict:
    last = letter.errors[-1] if letter.errors else None
    error = f": {last.type}: {last.message}" if last else ""
    suggestion = letter.suggestion or (last.suggestion if last else "")
    return Verdict(
        False,
        f"Dead letter after {letter.failures} failures{error}",
        suggestion=f"{suggestion} Then revive it.".strip(),
    )


def _reported(status: StreamStatus) -> Verdict:
    error = status.last_error
    words = f": {error.type}: {error.message}" if error else ""
    match status.state:
        case StreamingQueryState.FAILED | StreamingQueryState.DEAD_LETTER:
            return Verdict(False, f"It failed{words}", suggestion=error.suggestion if error else "")
        case StreamingQueryState.WAITING:
            return Verdict(False, f"It failed and is started again by itself{words}", "warning")
        case StreamingQueryState.RUNNING:
            pass
        case other:
            return Verdict(True, f"It is {other.value}.")
    why = f": {status.health_reason}" if status.health_reason else ""
    match status.health:
        case StreamHealth.STALLED | StreamHealth.EXCEPTION:
            return Verdict(False, f"It is {status.health.value}{why}")
        case StreamHealth.UNHEALTHY:
            return Verdict(False, f"It is unhealthy{why}", "warning")
        case StreamHealth.IDLE:
            return Verdict(True, f"It runs{why or ', and there is nothing to read.'}")
        case StreamHealth.UNKNOWN:
            return Verdict(True, "It runs; its health is not known yet.")
    return Verdict(True, f"It runs{why}")


@dataclass(frozen=True)
class Snapshot:
    """All that the store says of a project's streams at one moment.

    Args:
        streams: Ids of the app's streams, in declaration order.
        desired: What is wanted, by stream.
        statuses: What was last reported, by stream.
        dead_letters: Dead letters, by stream.
        host: Who holds, or last held, the lease.
        now: When, Unix seconds.
    """

    streams: tuple[str, ...]
    desired: Mapping[str, Desired] = field(default_factory=dict)
    statuses: Mapping[str, StreamStatus] = field(default_factory=dict)
    dead_letters: Mapping[str, DeadLetter] = field(default_factory=dict)
    host: HostInfo | None = None
    now: float = 0.0

    @cached_property
    def views(self) -> tuple[StreamView, ...]:
        """Every stream, in declaration order."""
        return tuple(self.view(stream_id) for stream_id in self.streams)

    def view(self, stream_id: str) -> StreamView:
        """One stream."""
        return StreamView(
            stream_id,
            self.desired.get(stream_id),
            self.statuses.get(stream_id),
            self.dead_letters.get(stream_id),
            self.host,
            self.now,
        )

    @property
    def wanted(self) -> tuple[str, ...]:
        """Ids of the streams that should run and that a host would run: dead letters keep no host up."""
        return tuple(view.stream_id for view in self.views if view.wanted and view.dead_letter is None)
