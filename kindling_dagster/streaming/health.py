"""What the last observations of a query say of its health: pure judgement, no Spark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from kindling_dagster.streaming.intervals import trigger_seconds
from kindling_dagster.streaming.model import StreamError, StreamHealth, StreamingQueryConfig, StreamMetrics


class Verdict(NamedTuple):
    """How a query is, and why, in words."""

    health: StreamHealth
    reason: str = ""


@dataclass(frozen=True)
class Observation:
    """One look at a query. Times are Unix seconds; None where Spark did not say.

    Args:
        at: When it was looked at.
        started_at: When this start of the query began.
        active: Whether it has not ended.
        data_available: Whether data waited when Spark last looked.
        trigger_active: Whether a batch is being worked on, or the source asked.
        message: What Spark says it does.
        error: What it ended with, or what kept Spark from answering.
        unanswered_since: Since when a call to it hangs.
        batch_ended_at: When the last batch ended, as far as was seen.
        listening: Whether Spark's events are heard, so that silence means something.
        metrics: What its last batches say.
    """

    at: float
    started_at: float | None = None
    active: bool | None = None
    data_available: bool | None = None
    trigger_active: bool | None = None
    message: str = ""
    error: StreamError | None = None
    unanswered_since: float | None = None
    batch_ended_at: float | None = None
    listening: bool = False
    metrics: StreamMetrics = field(default_factory=StreamMetrics)


@dataclass(frozen=True)
class HealthLimits:
    """From when on a query counts as unhealthy. All are about batches of one start that follow each other.

    Args:
        batches: So many batches must be seen before rates and backlogs are judged.
        backlog_growth: A backlog that grew by this factor over them, and does not shrink, is growing.
        rate_gap: Rows that arrive per row that is worked off, above which the query falls behind.
        long_batches: So many batches in a row that take longer than the trigger.
        state_batches: So many batches must be seen before the state is judged.
        state_growth: A state that grew by this factor over them, and in each, grows without bound.
        state_rows: Smaller states are never judged.
    """

    batches: int = 5
    backlog_growth: float = 1.5
    rate_gap: float = 1.1
    long_batches: int = 3
    state_batches: int = 20
    state_growth: float = 2.0
    state_rows: int = 100_000

    @property
    def window(self) -> int:
        """How many batches have to be remembered."""
        return max(self.batches, self.long_batches, self.state_batches)


LIMITS: Final = HealthLimits()


def judge(
    history: Sequence[Observation],
    config: StreamingQueryConfig,
    now: float,
    limits: HealthLimits = LIMITS,
) -> Verdict:
    """The health that the observations of one start of a query show.

    Idle is healthy. Stalled means that data waits and no batch ends. A query whose trigger is longer than
    the threshold is given the trigger's time in addition.

    Args:
        history: Oldest first.
        config: The query's trigger and threshold.
        now: Unix seconds.
        limits: From when on it counts as unhealthy.
    """
    if not history:
        return Verdict(StreamHealth.UNKNOWN, "Not looked at yet.")
    last = history[-1]
    if last.error is not None:
        return Verdict(StreamHealth.EXCEPTION, f"{last.error.type}: {last.error.message}")
    if last.unanswered_since is not None:
        return _unanswered(now - last.unanswered_since, config)
    if last.active is False:
        return Verdict(StreamHealth.UNKNOWN, "It has ended.")
    stalled = _stalled(last, config, now)
    if stalled:
        return Verdict(StreamHealth.STALLED, stalled)
    if _idle(last):
        return Verdict(StreamHealth.IDLE, "There is nothing to read.")
    batches = _batches(history)
    for look in (_long_batches, _backlog, _rates, _state):
        reason = look(batches, config, limits)
        if reason:
            return Verdict(StreamHealth.UNHEALTHY, reason)
    if last.metrics.batch_id is None:
        return Verdict(StreamHealth.UNKNOWN, f"Waits for its first batch: {last.message or 'started'}.")
    return Verdict(StreamHealth.HEALTHY, f"Batch {last.metrics.batch_id} ended.")


def _unanswered(seconds: float, config: StreamingQueryConfig) -> Verdict:
    health = StreamHealth.STALLED if seconds >= config.stall_threshold else StreamHealth.UNHEALTHY
    return Verdict(health, f"Spark has not answered for {seconds:.0f} s.")


def _idle(last: Observation) -> bool:
    """Nothing to read, by Spark's status and by what its sources say; a query that still starts is not idle."""
    if last.data_available is not False or last.metrics.backlog_bytes or last.metrics.backlog_files:
        return False
    starting = last.metrics.batch_id is None and last.metrics.last_event_at is None
    return not (starting and last.message.startswith("Initializing"))


def _stalled(last: Observation, config: StreamingQueryConfig, now: float) -> str:
    limit = config.stall_threshold + trigger_seconds(config.trigger)
    # Of the clock set back: what lies ahead counts as now.
    moments = [
        moment
        for moment in (last.started_at, last.batch_ended_at, last.metrics.last_progress_at)
        if moment is not None and moment <= now
    ]
    if not moments:
        return ""
    idle_for = now - max(moments)
    heard = last.metrics.last_event_at
    if last.data_available and idle_for >= limit:
        return f"Data waits and no batch has ended for {idle_for:.0f} s ({last.message or 'no message'})."
    # A source that hangs while it is asked what is new: no data is known of, but the idle events stay out too.
    silent = now - max([*moments, heard] if heard is not None and heard <= now else moments)
    if last.listening and last.trigger_active and silent >= limit:
        return f"Spark has reported neither a batch nor idleness for {silent:.0f} s ({last.message})."
    return ""


def _batches(history: Sequence[Observation]) -> list[StreamMetrics]:
    """The metrics of each batch that was seen, once, oldest first."""
    seen: dict[int, StreamMetrics] = {}
    for observation in history:
        if observation.metrics.batch_id is not None:
            seen[observation.metrics.batch_id] = observation.metrics
    return [seen[batch_id] for batch_id in sorted(seen)]


def _long_batches(batches: list[StreamMetrics], config: StreamingQueryConfig, limits: HealthLimits) -> str:
    trigger = trigger_seconds(config.trigger)
    last = [batch.batch_seconds or 0.0 for batch in batches[-limits.long_batches :]]
    if not trigger or len(last) < limits.long_batches:
        return ""
    if all(seconds > trigger for seconds in last):
        return f"The last {len(last)} batches took longer than the trigger's {trigger:g} s (last: {last[-1]:.1f} s)."
    return ""


def _backlog(batches: list[StreamMetrics], config: StreamingQueryConfig, limits: HealthLimits) -> str:  # noqa: ARG001
    for unit, value in _BACKLOGS.items():
        amounts = [value(batch) for batch in batches[-limits.batches :]]
        known = [amount for amount in amounts if amount is not None]
        if len(known) < limits.batches:
            continue
        grown = known[-1] > 0 and known[-1] >= known[0] * limits.backlog_growth and known[-1] == max(known)
        rises = sum(later > earlier for earlier, later in pairwise(known))
        if grown and rises * 2 > len(known) - 1:
            return f"The backlog grows: from {known[0]:,} to {known[-1]:,} {unit} over {len(known)} batches."
    return ""


_BACKLOGS: Final[dict[str, Callable[[StreamMetrics], int | None]]] = {
    "bytes": lambda batch: batch.backlog_bytes,
    "files": lambda batch: batch.backlog_files,
}


def _rates(batches: list[StreamMetrics], config: StreamingQueryConfig, limits: HealthLimits) -> str:  # noqa: ARG001
    rates = [
        (batch.input_rows_per_second, batch.processed_rows_per_second)
        for batch in batches[-limits.batches :]
        if batch.input_rows_per_second is not None and batch.processed_rows_per_second is not None
    ]
    if len(rates) < limits.batches:
        return ""
    arriving = sum(came for came, _ in rates) / len(rates)
    done = sum(worked for _, worked in rates) / len(rates)
    behind = sum(came > worked for came, worked in rates)
    if arriving > done * limits.rate_gap and behind * 2 > len(rates):
        return f"Rows arrive faster than they are worked off: {arriving:.1f} against {done:.1f} per second."
    return ""


def _state(batches: list[StreamMetrics], config: StreamingQueryConfig, limits: HealthLimits) -> str:  # noqa: ARG001
    sizes = [batch.state_rows for batch in batches[-limits.state_batches :]]
    known = [size for size in sizes if size is not None]
    if len(known) < limits.state_batches or known[-1] < limits.state_rows:
        return ""
    rising = all(later > earlier for earlier, later in pairwise(known))
    if rising and known[-1] >= known[0] * limits.state_growth:
        return (
            f"The state grew in each of {len(known)} batches, from {known[0]:,} to {known[-1]:,} rows: "
            "set a watermark, or a time to live."
        )
    return ""
