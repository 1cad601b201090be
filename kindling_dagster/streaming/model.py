"""Plain data of streams: states, policies, what the store keeps and what the host reports. JSON-ready.

Times are Unix seconds, durations seconds, sizes bytes. A stream's id is the id of its pipe.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

RecoveryStrategy = Literal["restart", "alert", "ignore"]
CommandAction = Literal["start", "stop", "restart", "revive"]
ErrorKind = Literal["transient", "permanent", "unknown"]


class StreamingQueryState(str, Enum):
    """Where a stream is in its life.

    ``WAITING``: it failed and is started again when its backoff is over. ``DEAD_LETTER``: it is not
    started again until a person revives it. ``FAILED``: it ended by an error that nobody has judged
    yet, or whose strategy is ``alert``.
    """

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    WAITING = "waiting"
    DEAD_LETTER = "dead_letter"


class StreamHealth(str, Enum):
    """What the watchdog makes of a query that is up. ``IDLE`` is healthy: there is nothing to read."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    IDLE = "idle"
    UNHEALTHY = "unhealthy"
    STALLED = "stalled"
    EXCEPTION = "exception"


@dataclass(frozen=True)
class RecoveryPolicy:
    """How a stream that fails is brought back.

    Args:
        strategy: ``restart`` it, ``alert`` (leave it down, and say so), or ``ignore``.
        max_retries: How many restarts in a row may fail before the stream is a dead letter.
        initial_backoff: Seconds before the first restart.
        max_backoff: Seconds the backoff never exceeds.
        multiplier: By how much the backoff grows with each failed restart.
        jitter: Largest share of the backoff that is added or taken away at random, 0 to 1.
        cooldown: Seconds at least between two starts, whatever the backoff says.
        stable_after: Seconds a restarted query must stay up, and have made progress, to count as recovered.
    """

    strategy: RecoveryStrategy = "restart"
    max_retries: int = 5
    initial_backoff: float = 1.0
    max_backoff: float = 300.0
    multiplier: float = 2.0
    jitter: float = 0.1
    cooldown: float = 0.0
    stable_after: float = 60.0


@dataclass(frozen=True)
class StreamingQueryConfig:
    """How one stream is started and watched.

    Args:
        query_name: Spark's name of the query; the stream's id when empty.
        checkpoint_root: Folder under which the query's checkpoint lies (Kindling adds the pipe's id).
        trigger: As PySpark's ``DataStreamWriter.trigger`` takes it, such as ``{"processingTime": "10 seconds"}``.
        poll_interval: Seconds between two looks of the watchdog.
        stall_threshold: Seconds without a finished batch, while data waits, after which it counts as stalled.
        recovery: How it is brought back.
        options: Further options for Kindling's ``PipeStreamStarter``.
    """

    query_name: str = ""
    checkpoint_root: str = ""
    trigger: Mapping[str, Any] | None = None
    poll_interval: float = 30.0
    stall_threshold: float = 300.0
    recovery: RecoveryPolicy = field(default_factory=RecoveryPolicy)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamError:
    """An error a stream met: its class name, its text without secrets, when, and whether retrying can help."""

    type: str
    message: str
    at: float
    kind: ErrorKind = "unknown"
    suggestion: str = ""


@dataclass(frozen=True)
class StreamMetrics:
    """What a query's last batches say. None where Spark has not said it (yet).

    Args:
        batch_id: The last batch that ended.
        input_rows: Rows read by it.
        rows_total: Rows read since this query was started.
        input_rows_per_second: Rate at which rows arrive.
        processed_rows_per_second: Rate at which they are worked off.
        batch_seconds: How long the last batch took.
        backlog_bytes: Bytes that wait, where the source says so (Delta does).
        backlog_files: Files that wait, where the source says so.
        state_rows: Rows that stateful operators hold.
        last_progress_at: When the last batch that read something ended.
        last_event_at: When Spark last reported anything, also that the query is idle.
    """

    batch_id: int | None = None
    input_rows: int | None = None
    rows_total: int = 0
    input_rows_per_second: float | None = None
    processed_rows_per_second: float | None = None
    batch_seconds: float | None = None
    backlog_bytes: int | None = None
    backlog_files: int | None = None
    state_rows: int | None = None
    last_progress_at: float | None = None
    last_event_at: float | None = None


@dataclass(frozen=True)
class StreamingQueryInfo:
    """One stream as its query manager knows it.

    Args:
        query_id: The stream's id.
        state: Where it is in its life.
        query_name: Spark's name of the query.
        spark_query_id: Spark's id of the query: belongs to the checkpoint, lasts over restarts.
        spark_run_id: Spark's id of this start.
        start_time: When this query was started; None before the first start.
        checkpoint_path: Where its progress is kept.
        restart_count: How often it was started again in this host.
        last_error: The last error it met.
        metrics: What its last batches say.
    """

    query_id: str
    state: StreamingQueryState
    query_name: str = ""
    spark_query_id: str = ""
    spark_run_id: str = ""
    start_time: float | None = None
    checkpoint_path: str = ""
    restart_count: int = 0
    last_error: StreamError | None = None
    metrics: StreamMetrics = field(default_factory=StreamMetrics)


@dataclass(frozen=True)
class RecoveryState:
    """What recovery remembers of one stream, also over hosts.

    Args:
        failures: Failed starts in a row; reset by proven stability.
        next_start_at: When it is started again; None when it is not waiting.
        last_start_at: When it was last started.
        progressed: Whether the present query has finished a batch.
        dead: Whether it is a dead letter.
        errors: The last errors, oldest first.
    """

    failures: int = 0
    next_start_at: float | None = None
    last_start_at: float | None = None
    progressed: bool = False
    dead: bool = False
    errors: tuple[StreamError, ...] = ()


@dataclass(frozen=True)
class Desired:
    """What should be.

    ``generation`` grows with each asked restart; a query of a lower one is restarted. ``revived`` is the
    generation that the last ``revive`` made, 0 for none.
    """

    stream_id: str
    running: bool
    generation: int = 0
    reason: str = ""
    by: str = ""
    at: float = 0.0
    revived: int = 0


@dataclass(frozen=True)
class StreamStatus:
    """What is, as the host last reported it.

    Args:
        stream_id: The stream.
        state: Where it is in its life.
        health: What the watchdog says.
        health_reason: Why, in words.
        generation: The generation of ``Desired`` that the present query fulfils.
        spark_query_id: Spark's lasting id of the query.
        spark_run_id: Spark's id of this start.
        started_at: When the present query was started.
        restarts: How often it was started again, by whatever cause, over all hosts.
        metrics: What its last batches say.
        rows_committed: Rows read over all hosts (grows for ever; heartbeats report the difference).
        last_error: The last error it met.
        next_start_at: When it is started again, while it waits.
        host_run_id: The Dagster run that holds it; empty for a host without Dagster.
        updated_at: When this was written.
        token: That of the lease under which it was written; 0 in what an older version has written.
    """

    stream_id: str
    state: StreamingQueryState
    health: StreamHealth = StreamHealth.UNKNOWN
    health_reason: str = ""
    generation: int = 0
    spark_query_id: str = ""
    spark_run_id: str = ""
    started_at: float | None = None
    restarts: int = 0
    metrics: StreamMetrics = field(default_factory=StreamMetrics)
    rows_committed: int = 0
    last_error: StreamError | None = None
    next_start_at: float | None = None
    host_run_id: str = ""
    updated_at: float = 0.0
    token: int = 0


@dataclass(frozen=True)
class Lease:
    """The right to run a project's streams. ``token`` grows with every new holder; the store refuses older ones."""

    host_id: str
    token: int
    expires_at: float


@dataclass(frozen=True)
class HostInfo:
    """The host that holds (or last held) the lease.

    ``state`` is ``starting``, ``running``, ``draining`` or ``ended``; ``detail`` says more in words.
    ``machine`` says where ``pid`` means this process (``processes.machine_id``); empty when not known.
    """

    host_id: str
    token: int
    run_id: str = ""
    pid: int = 0
    hostname: str = ""
    code_version: str = ""
    state: str = "starting"
    detail: str = ""
    started_at: float = 0.0
    heartbeat_at: float = 0.0
    expires_at: float = 0.0
    machine: str = ""

    def alive(self, now: float | None = None) -> bool:
        """Whether its lease still holds at ``now`` (Unix seconds)."""
        return self.state != "ended" and self.expires_at > (time.time() if now is None else now)


@dataclass(frozen=True)
class Command:
    """Something a person or a sensor asks for. The same id is obeyed once, however often it is sent."""

    id: str
    action: CommandAction
    stream_id: str
    reason: str = ""
    by: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class HistoryEntry:
    """One thing that happened to a stream: ``event`` such as ``started``, ``failed``, ``restarted``, ``dead_letter``."""

    stream_id: str
    event: str
    at: float
    detail: str = ""
    host_run_id: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeadLetter:
    """A stream that is not started again until it is revived, why, and what to do."""

    stream_id: str
    at: float
    failures: int
    errors: tuple[StreamError, ...] = ()
    suggestion: str = ""


@dataclass(frozen=True)
class HostLaunch:
    """One time the supervisor asked for a host: keeps its backoff.

    Args:
        at: When.
        run_id: The Dagster run that came of it; empty until it was seen.
        outcome: Why it was asked for, then what became of it, in words.
        attempt: Its number; the next one's is higher.
        failures: Launches in a row before it, and it, whose host ended without having been up for long.
        key: What marks its run, so that it is found again.
    """

    at: float
    run_id: str = ""
    outcome: str = ""
    attempt: int = 0
    failures: int = 0
    key: str = ""
