"""A stand-in for the stream host: it takes the lease and reports what a test wants. No Spark."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from kindling_dagster.errors import SelectionError
from kindling_dagster.streaming.client import StreamsClient
from kindling_dagster.streaming.model import (
    DeadLetter,
    HistoryEntry,
    HostInfo,
    StreamError,
    StreamHealth,
    StreamingQueryState,
    StreamMetrics,
    StreamStatus,
)
from kindling_dagster.streaming.processes import machine_id
from kindling_dagster.streaming.store import StoreError


class FakeStreamHost:
    """Speaks the host's side of an app's store, for tests of sensors, jobs, checks and ops without Spark.

    Args:
        client: The app's streams: ``KindlingStreamsResource.client(instance=…)``.
        run_id: The Dagster run that it claims to be, if any.
        ttl: Seconds that its lease holds.

    Raises:
        StoreError: Another host has the lease, or the store cannot be used.

    Example::

        streams = KindlingStreamsResource(project)
        with throwaway_instance() as instance:
            client = streams.client(instance=instance)
            client.start(["silver.live"])
            with FakeStreamHost(client) as host:
                host.obey(rows=100)
                assert client.status("silver.live").progressed
    """

    def __init__(self, client: StreamsClient, *, run_id: str = "", ttl: float = 60.0) -> None:
        self._client = client
        self._store = client.store
        self._run_id = run_id
        self._statuses: dict[str, StreamStatus] = {}
        now = time.time()
        self.info = HostInfo(
            host_id=uuid.uuid4().hex,
            token=0,
            run_id=run_id,
            pid=os.getpid(),
            hostname=socket.gethostname(),
            state="running",
            started_at=now,
            heartbeat_at=now,
            machine=machine_id(),
        )
        lease = self._store.acquire_lease(self.info, ttl)
        if lease is None:
            raise StoreError("Another host has the lease of these streams.", "End that one first.")
        self.lease = lease
        self._ttl = ttl

    def obey(self, rows: int = 0, **metrics: Any) -> Mapping[str, StreamStatus]:
        """Make actual what is desired: wanted streams run well, the others are stopped.

        Args:
            rows: How many rows each running stream has read since the last time.
            **metrics: Fields of ``StreamMetrics`` to report, such as ``backlog_bytes``.

        Returns:
            What was reported, by stream. Dead letters stay as they are.
        """
        dead = self._store.dead_letters()
        made = [
            self._running(stream_id, desired.generation, rows, metrics)
            if desired.running
            else StreamStatus(
                stream_id, StreamingQueryState.STOPPED, generation=desired.generation, updated_at=time.time()
            )
            for stream_id, desired in self._store.desired().items()
            if stream_id not in dead
        ]
        return self.report(*made)

    def report(self, *statuses: StreamStatus) -> Mapping[str, StreamStatus]:
        """Report these states as they are; gives them by stream.

        Raises:
            LeaseLost: Another host has taken over.
        """
        self._store.report(self.lease, statuses=statuses)
        told = {status.stream_id: status for status in statuses}
        self._statuses.update(told)
        return told

    def fail(self, stream: str, error: str = "it failed as the test asked", *, retry_in: float = 1.0) -> None:
        """A stream has failed and waits ``retry_in`` seconds for its next start.

        Raises:
            SelectionError: The name means no stream, or several.
        """
        for stream_id, told in self._errors(stream, error).items():
            self.report(
                StreamStatus(
                    stream_id,
                    StreamingQueryState.WAITING,
                    health=StreamHealth.EXCEPTION,
                    generation=self._generation(stream_id),
                    last_error=told,
                    next_start_at=told.at + retry_in,
                    updated_at=told.at,
                    host_run_id=self._run_id,
                )
            )

    def stall(self, stream: str, reason: str = "data waits and no batch ends") -> None:
        """A stream is up and does not get on. As ``fail``."""
        for stream_id in self._one(stream):
            now = time.time()
            status = StreamStatus(
                stream_id,
                StreamingQueryState.RUNNING,
                health=StreamHealth.STALLED,
                health_reason=reason,
                generation=self._generation(stream_id),
                started_at=now,
                metrics=StreamMetrics(batch_id=0, last_event_at=now),
                updated_at=now,
                host_run_id=self._run_id,
            )
            self.report(status)

    def dead_letter(self, stream: str, error: str = "it failed as the test asked", failures: int = 6) -> None:
        """A stream is given up until somebody revives it. As ``fail``."""
        for stream_id, told in self._errors(stream, error).items():
            status = StreamStatus(
                stream_id,
                StreamingQueryState.DEAD_LETTER,
                generation=self._generation(stream_id),
                last_error=told,
                updated_at=told.at,
                host_run_id=self._run_id,
            )
            self._store.report(
                self.lease,
                statuses=[status],
                history=[HistoryEntry(stream_id, "dead_letter", told.at, error, self._run_id)],
                dead_letters=[DeadLetter(stream_id, told.at, failures, (told,), told.suggestion)],
            )

    def beat(self) -> None:
        """Hold the lease for as long again.

        Raises:
            LeaseLost: Another host has taken over.
        """
        self.lease = self._store.renew(self.lease, self._ttl)

    def end(self) -> None:
        """Give the lease back, as a host does that was told to end. Can be called twice."""
        self._store.release(self.lease)

    def __enter__(self) -> FakeStreamHost:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _running(
        self, stream_id: str, generation: int, rows: int, metrics: Mapping[str, Any]
    ) -> StreamStatus:
        now = time.time()
        before = self._statuses.get(stream_id)
        fresh = before is None or before.generation != generation or before.started_at is None
        batch = 0 if before is None or before.metrics.batch_id is None else before.metrics.batch_id + 1
        values: dict[str, Any] = {
            "batch_id": batch,
            "input_rows": rows,
            "last_progress_at": now,
            "last_event_at": now,
        }
        return StreamStatus(
            stream_id,
            StreamingQueryState.RUNNING,
            health=StreamHealth.HEALTHY,
            generation=generation,
            started_at=now if before is None or fresh else before.started_at,
            metrics=StreamMetrics(**{**values, **metrics}),
            rows_committed=rows + (before.rows_committed if before else 0),
            updated_at=now,
            host_run_id=self._run_id,
        )

    def _one(self, stream: str) -> tuple[str, ...]:
        found = self._client.resolve([stream])
        if len(found) > 1:
            raise SelectionError(f"{stream!r} means {len(found)} streams: {', '.join(found)}.", "Name one.")
        return found

    def _errors(self, stream: str, error: str) -> dict[str, StreamError]:
        return {id_: StreamError("RuntimeError", error, time.time()) for id_ in self._one(stream)}

    def _generation(self, stream_id: str) -> int:
        desired = self._store.desired().get(stream_id)
        return desired.generation if desired is not None else 0
