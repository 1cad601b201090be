"""From what should be and what is to what must be done: one pure function, decided anew each second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kindling_dagster.streaming.model import Desired, RecoveryState, StreamingQueryState

ActionKind = Literal["start", "stop", "restart"]

PATIENCE = 60.0
"""Seconds for which the start of a consumer may hold up its producers."""

BUSY = frozenset({StreamingQueryState.STARTING, StreamingQueryState.STOPPING})


@dataclass(frozen=True)
class Actual:
    """What the host knows of one stream.

    Args:
        state: Where it is in its life.
        generation: The generation of ``Desired`` that its last start answered; -1 before the first.
        since: Since when it is starting, Unix seconds; where that is known.
    """

    state: StreamingQueryState = StreamingQueryState.STOPPED
    generation: int = -1
    since: float | None = None


@dataclass(frozen=True)
class Action:
    """One thing to do. ``generation`` is the one of ``Desired`` that it answers."""

    kind: ActionKind
    stream_id: str
    generation: int = 0
    reason: str = ""


@dataclass(frozen=True)
class StartOrder:
    """In which order streams are started: consumers before the producers of what they read.

    Args:
        ids: All streams of the app, those to start first in front.
        after: Per stream, those that must have been tried before it is started.
    """

    ids: tuple[str, ...] = ()
    after: Mapping[str, Sequence[str]] = field(default_factory=dict)


def reconcile(
    desired: Mapping[str, Desired],
    actual: Mapping[str, Actual],
    recovery: Mapping[str, RecoveryState],
    order: StartOrder,
    now: float,
) -> tuple[Action, ...]:
    """What must be done now; a stream that is not named is left as it is.

    Asked again after the actions were done, it gives what follows from them, and in the end nothing.

    Args:
        desired: What should be, by stream; a stream that is not there should not run.
        actual: What is, by stream.
        recovery: What recovery remembers, by stream.
        order: Streams that are not in it are left alone.
        now: Unix seconds.

    Returns:
        Stops first, producers before consumers; then starts and restarts, consumers before producers. A
        producer whose consumers are not up yet is not named: its turn comes when each of them has started
        or failed to, or has been starting for ``PATIENCE`` seconds.
    """
    stops: list[Action] = []
    starts: list[Action] = []
    pending: set[str] = set()
    for stream_id in order.ids:
        wanted = desired.get(stream_id)
        here = actual.get(stream_id, Actual())
        action = _decide(stream_id, wanted, here, recovery.get(stream_id, RecoveryState()), now)
        if action is None:
            if _coming_up(here, now):
                pending.add(stream_id)
        elif action.kind == "stop":
            stops.append(action)
        else:
            # A query that is up already does not wait for its consumers to be restarted with it.
            if action.kind == "restart" or pending.isdisjoint(order.after.get(stream_id, ())):
                starts.append(action)
            pending.add(stream_id)
    return (*reversed(stops), *starts)


def _coming_up(here: Actual, now: float) -> bool:
    """Whether producers should wait for this stream; not for ever, for a start may hang."""
    hangs = here.since is not None and now - here.since > PATIENCE
    return here.state is StreamingQueryState.STARTING and not hangs


def _decide(
    stream_id: str, wanted: Desired | None, here: Actual, recovery: RecoveryState, now: float
) -> Action | None:
    up = here.state is StreamingQueryState.RUNNING
    if wanted is None or not wanted.running:
        if not up:
            return None
        return Action("stop", stream_id, *((wanted.generation, wanted.reason) if wanted else (0, "")))
    if here.state in BUSY or recovery.dead:
        return None
    asked_anew = wanted.generation > here.generation
    if up:
        return Action("restart", stream_id, wanted.generation, wanted.reason) if asked_anew else None
    if not asked_anew:
        # A person's word overrides the backoff and a failure that is left to people; time alone does not.
        waits = recovery.next_start_at is not None and now < recovery.next_start_at
        if waits or here.state is StreamingQueryState.FAILED:
            return None
    return Action("start", stream_id, wanted.generation, wanted.reason)
