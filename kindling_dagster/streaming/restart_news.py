"""What happens to dimensions and to the streams that restart for them, as signals in plain data.

Needs neither Kindling nor Spark: sensors write it into the store, and the stream host, which has the app's
subscribers, tells it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from kindling_dagster.streaming.dimensions.model import DimensionLook
from kindling_dagster.streaming.restarts import (
    Action,
    AskRestart,
    Cascade,
    CascadeCompleted,
    CascadeStarted,
    CascadeStep,
    News,
)

DIMENSION_CHANGED: Final = "streaming.dimension_changed"
RESTART_TRIGGERED: Final = "streaming.restart_triggered"
CASCADE_STARTED: Final = "streaming.cascade_restart_started"
CASCADE_COMPLETED: Final = "streaming.cascade_restart_completed"
RESTART_SIGNALS: Final = (DIMENSION_CHANGED, RESTART_TRIGGERED, CASCADE_STARTED, CASCADE_COMPLETED)

NEWS_KEPT: Final = 200
"""How much is kept while no host lives that could tell it; older news is dropped."""
_NEWS_CHARS: Final = 400_000
"""What is kept may have so many characters as JSON: the store takes no endless document."""
_LONGEST: Final = 1_000
"""Characters of a fingerprint that a signal carries: one of many columns is longer."""


def changed_arguments(found: DimensionLook) -> dict[str, Any]:
    """A look that has found a change, as arguments of ``streaming.dimension_changed``; unknown ones are left out."""
    fields = {
        "entity_id": found.entity_id,
        "change_detection": found.method,
        "change": found.change,
        "previous_fingerprint": (found.previous_fingerprint or "")[:_LONGEST] or None,
        "fingerprint": (found.fingerprint or "")[:_LONGEST] or None,
        "version": found.version,
        "operation": ", ".join(found.operations) or None,
        "new_count": found.new_count,
        "closed_count": found.closed_count,
        "changed_count": found.changed_count,
        "reason": found.reason,
    }
    return {name: value for name, value in fields.items() if value is not None}


def triggered_arguments(cascade_id: str, step: CascadeStep) -> dict[str, Any]:
    """A restart that is asked for, as arguments of ``streaming.restart_triggered``."""
    return {
        "query_id": step.stream_id,
        "entity_ids": list(dict.fromkeys(cause.entity_id for cause in step.causes)),
        "policy": ", ".join(dict.fromkeys(cause.policy for cause in step.causes)),
        "reason": step.reason,
        "cascade_id": cascade_id,
    }


def started_arguments(cascade: Cascade) -> dict[str, Any]:
    """A cascade, as arguments of ``streaming.cascade_restart_started``."""
    return {
        "cascade_id": cascade.id,
        "entity_ids": list(cascade.entity_ids),
        "query_ids": list(cascade.stream_ids),
    }


def completed_arguments(cascade: Cascade, seconds: float) -> dict[str, Any]:
    """A cascade that is over after so many seconds, as arguments of ``streaming.cascade_restart_completed``."""
    return {
        **started_arguments(cascade),
        "restarted_count": cascade.count("done"),
        "skipped_count": cascade.count("skipped"),
        "failed_count": cascade.count("failed"),
        "duration_seconds": seconds,
    }


def action_signal(action: Action) -> tuple[str, dict[str, Any]] | None:
    """An action's signal and arguments; None for a restart that is asked for once more."""
    if isinstance(action, AskRestart):
        if action.again:
            return None
        return RESTART_TRIGGERED, triggered_arguments(action.cascade_id, action.step)
    if isinstance(action, CascadeStarted):
        return CASCADE_STARTED, started_arguments(action.cascade)
    assert isinstance(action, CascadeCompleted)
    return CASCADE_COMPLETED, completed_arguments(action.cascade, action.seconds)


def news_of(
    looks: Iterable[DimensionLook], told: Mapping[str, str], actions: Sequence[Action]
) -> tuple[tuple[News, ...], dict[str, str]]:
    """What is new after one step of the restarts.

    Args:
        looks: What was found at dimensions.
        told: Each dimension's change that was last news: a crash may have it found again.
        actions: What the step does.

    Returns:
        The news, in order; and ``told`` for the next step.
    """
    known = dict(told)
    signals: list[tuple[str, dict[str, Any]]] = []
    for found in looks:
        if found.changed and known.get(found.entity_id) != found.change_id:
            known[found.entity_id] = found.change_id
            signals.append((DIMENSION_CHANGED, changed_arguments(found)))
    signals += [signal for action in actions if (signal := action_signal(action)) is not None]
    return tuple(News(uuid.uuid4().hex, name, arguments) for name, arguments in signals), known


def kept_news(news: Sequence[News]) -> tuple[News, ...]:
    """The newest of these, in their order: as many as are kept while nobody tells them."""
    kept: list[News] = []
    left = _NEWS_CHARS
    for item in reversed(news[-NEWS_KEPT:]):
        left -= len(json.dumps(item.arguments))
        if left < 0:
            break
        kept.append(item)
    return tuple(reversed(kept))
