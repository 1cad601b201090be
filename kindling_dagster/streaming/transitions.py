"""The states of a streaming query and the legal ways between them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from kindling_dagster.errors import RunError
from kindling_dagster.streaming.model import StreamingQueryState as State


class QueryStateError(RunError):
    """Something was asked of a query that its state does not allow."""


class UnknownQueryError(RunError):
    """There is no query of that id."""


class QueryBusyError(RunError):
    """Another start or stop of the same query has not come to its end in time."""


class QueryStopTimeoutError(RunError):
    """A query was asked to stop and has not ended in time. It may still write: it is not started again."""


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        State.STARTING: frozenset({State.RUNNING, State.FAILED}),
        State.RUNNING: frozenset({State.STOPPING, State.STOPPED, State.FAILED}),
        State.STOPPING: frozenset({State.STOPPED, State.FAILED}),
        State.STOPPED: frozenset({State.STARTING}),
        State.FAILED: frozenset({State.STARTING, State.STOPPED, State.WAITING, State.DEAD_LETTER}),
        State.WAITING: frozenset({State.STARTING, State.STOPPED, State.DEAD_LETTER}),
        State.DEAD_LETTER: frozenset({State.STOPPED}),
    }
)
"""From each state, those that may follow. A dead letter must be revived (``STOPPED``) before it can start."""

UP: Final = frozenset({State.STARTING, State.RUNNING, State.STOPPING})
"""The states in which a query is, or may be, at work in Spark."""

_WHAT_TO_DO: Final = {
    State.STARTING: "Wait until it has started.",
    State.RUNNING: "It runs: stop it first, or restart it.",
    State.STOPPING: "It is being stopped: wait until it has ended.",
    State.STOPPED: "It is not running: start it.",
    State.FAILED: "It has failed: see its last error.",
    State.WAITING: "It waits for its next start: stop it, or wait.",
    State.DEAD_LETTER: "Mend what its last errors say, then revive it.",
}


def check_transition(query_id: str, before: State, after: State) -> None:
    """Raise QueryStateError unless ``after`` may follow ``before``."""
    if after not in TRANSITIONS[before]:
        raise QueryStateError(
            f"Stream {query_id} is {before.value} and cannot become {after.value}.", _WHAT_TO_DO[before]
        )
