"""One tick of restarts for changed dimensions: read the state, advance it, save it, then act.

Needs neither Kindling nor Spark, so that sensors can tick.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from kindling_dagster.streaming.dependencies import RestartDecision, StreamDependencies
from kindling_dagster.streaming.dimensions.model import DimensionLook
from kindling_dagster.streaming.model import Command, Desired, StreamStatus
from kindling_dagster.streaming.restart_news import action_signal, kept_news, news_of
from kindling_dagster.streaming.restarts import (
    Action,
    AskRestart,
    RestartConfig,
    RestartState,
    StreamOrder,
    advance,
    next_at,
    view_of,
)
from kindling_dagster.streaming.store.errors import ConflictError

logger = logging.getLogger("kindling_dagster.streaming")

DOCUMENT = ("restarts", "controller")
"""Kind and key of the store's document that holds the controller's state."""
TOLD = ("restarts", "told")
"""Kind and key of the document in which the stream host says which news it has told: their ids."""
_TRIES = 5

Tell = Callable[[str, Mapping[str, Any]], object]


class RestartStore(Protocol):
    """What the controller needs of the stream store."""

    def document(self, kind: str, key: str) -> tuple[Any, int]:
        """A small state and its version."""

    def put_document(self, kind: str, key: str, value: Any, expected: int) -> int:
        """Write it if nobody has meanwhile; ConflictError otherwise."""

    def submit(self, commands: Sequence[Command]) -> tuple[str, ...]:
        """Obey commands, each id once."""

    def desired(self) -> dict[str, Desired]:
        """What should run."""

    def statuses(self) -> dict[str, StreamStatus]:
        """What runs."""


@dataclass(frozen=True)
class RestartTick:
    """What one tick of the controller came to.

    Args:
        decisions: What each change means for each stream that depends on it, also where nothing restarts.
        actions: What was done, in order.
        state: The state it left in the store.
        next_at: When the next batch can be due (Unix seconds); None when nothing waits, or a cascade is
            under way and another tick soon brings it further.
    """

    decisions: tuple[RestartDecision, ...]
    actions: tuple[Action, ...]
    state: RestartState
    next_at: float | None

    @property
    def busy(self) -> bool:
        """Whether anything waits or is under way."""
        return bool(self.state.pending or self.state.cascade)


def tick_restarts(
    store: RestartStore,
    dependencies: StreamDependencies,
    order: StreamOrder,
    config: RestartConfig,
    looks: Iterable[DimensionLook],
    *,
    clock: Callable[[], float],
    tell: Tell | None = None,
) -> RestartTick:
    """Take in changes and do what is due.

    All that is remembered is in the store, so any process may tick, and two at once do nothing twice. Keep
    the looks' fingerprints after this has returned: a crash before it then tells the same changes again,
    which do nothing a second time; the other way round they would be lost.

    Args:
        store: The project's stream store.
        dependencies: Which stream depends on which dimension.
        order: Which streams read what others write.
        config: How restarts are batched.
        looks: What was found at dimensions since the last tick; those without a change do nothing.
        clock: Gives Unix seconds.
        tell: Takes what happens to streams: a signal's name and arguments. Without it that, and the changes
            of dimensions, are left in the store as news, which the stream host tells the app.

    Raises:
        StoreError: The store cannot be read or written, or others were faster again and again.
    """
    looks = tuple(looks)
    decisions = tuple(decision for found in looks for decision in dependencies.decide(found))
    for attempt in range(_TRIES):
        document, version = store.document(*DOCUMENT)
        before = _state_of(document)
        now = clock()
        desired, statuses = store.desired(), store.statuses()
        views = {id_: view_of(desired[id_], statuses.get(id_)) for id_ in desired}
        state, actions = advance(before, decisions, views, order, config, now)
        if tell is None:
            state = _with_news(state, looks, actions, store)
        if state != before:
            try:
                store.put_document(*DOCUMENT, state.to_json(), version)
            except ConflictError:
                if attempt + 1 == _TRIES:
                    raise
                continue  # another process has ticked meanwhile: from its state
        break
    for action in actions:
        _do(action, store, now, tell)
    return RestartTick(decisions, actions, state, next_at(state, config))


def _with_news(
    state: RestartState, looks: Sequence[DimensionLook], actions: Sequence[Action], store: RestartStore
) -> RestartState:
    """With what is new, saved in one with the state, so that each thing is news once."""
    fresh, told = news_of(looks, state.told, actions)
    if not fresh:
        return state
    done, _ = store.document(*TOLD)
    left = [item for item in state.news if item.id not in (done or ())]
    return replace(state, told=told, news=kept_news([*left, *fresh]))


def _do(action: Action, store: RestartStore, now: float, tell: Tell | None) -> None:
    if isinstance(action, AskRestart):
        step = action.step
        store.submit([Command(step.command_id, "restart", step.stream_id, step.reason, "dimensions", now)])
    signal = action_signal(action)
    if tell is not None and signal is not None:
        tell(*signal)


def _state_of(document: Any) -> RestartState:
    try:
        return RestartState.from_json(document)
    except (KeyError, TypeError, ValueError) as error:
        logger.warning(
            "What was kept of restarts for changed dimensions cannot be read (%r): starting afresh.", error
        )
        return RestartState()
