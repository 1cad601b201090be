"""Looks at many dimensions within a time budget: several at once, and none that hangs holds up the others."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from kindling_dagster.streaming.dimensions.look import look
from kindling_dagster.streaming.dimensions.model import Dimension, DimensionLook
from kindling_dagster.streaming.dimensions.problems import problem

_THREADS: Final = 4
# Looks that nobody waits for any more: another one of the same would only hang beside it.
_left_behind: set[tuple[str, str]] = set()
_lock = threading.Lock()


@dataclass(frozen=True)
class Looked:
    """What looks within a budget came to.

    Args:
        looks: By entity id, in the order of the ids.
        after: Go on after this id the next time, since there was no time for those behind it; empty when
            there was time for all.
    """

    looks: Mapping[str, DimensionLook]
    after: str = ""


def look_at_all(
    dimensions: Mapping[str, Dimension],
    fingerprints: Mapping[str, str],
    *,
    after: str = "",
    budget: float = 20.0,
    patience: float = 10.0,
    scope: str = "",
) -> Looked:
    """Look at dimensions until all are done or the budget is spent. Never raises.

    Args:
        dimensions: Which, by entity id.
        fingerprints: What the last looks left, by entity id.
        after: Where to begin: behind this id, and round to it.
        budget: Seconds after which no further look is begun.
        patience: Seconds a look that was begun may take beyond that. One that takes longer counts as a
            storage that does not answer, also the next times, until it has ended.
        scope: Whose dimensions these are; ids of two apps may be the same.
    """
    ids = sorted(dimensions)
    order = [*(id_ for id_ in ids if id_ > after), *(id_ for id_ in ids if id_ <= after)]
    work = _Work(dimensions, fingerprints, scope, order, time.monotonic() + budget)
    with _lock:
        hanging = [id_ for id_ in order if (scope, id_) in _left_behind]
    work.skip(hanging)
    work.run(time.monotonic() + budget + patience)
    return work.result()


class _Work:
    """The looks of one call, on threads that end with the process when they hang."""

    def __init__(
        self,
        dimensions: Mapping[str, Dimension],
        fingerprints: Mapping[str, str],
        scope: str,
        order: list[str],
        until: float,
    ) -> None:
        self._dimensions, self._fingerprints, self._scope = dimensions, fingerprints, scope
        self._left = deque(order)
        self._until = until
        self._begun: list[str] = []
        self._found: dict[str, DimensionLook] = {}
        self._over = threading.Event()
        self._changed = threading.Condition(_lock)

    def skip(self, ids: list[str]) -> None:
        """Leave out what hangs since a former call."""
        self._left = deque(id_ for id_ in self._left if id_ not in ids)
        self._found = {id_: self._unanswered(id_) for id_ in ids}

    def run(self, until: float) -> None:
        for _ in range(min(_THREADS, len(self._left))):
            threading.Thread(target=self._look, name="dimension look", daemon=True).start()
        with self._changed:
            self._changed.wait_for(self._done, timeout=max(0.0, until - time.monotonic()))
            self._over.set()
            for id_ in self._begun:
                if id_ not in self._found:
                    _left_behind.add((self._scope, id_))
                    self._found[id_] = self._unanswered(id_)

    def result(self) -> Looked:
        looks = {id_: self._found[id_] for id_ in sorted(self._found)}
        return Looked(looks, self._begun[-1] if self._left and self._begun else "")

    def _done(self) -> bool:
        to_begin = self._left and time.monotonic() < self._until
        return not to_begin and all(id_ in self._found for id_ in self._begun)

    def _look(self) -> None:
        while True:
            with self._changed:
                # The first is always begun, so that a tick with no time at all still goes on.
                if self._over.is_set() or not self._left or (self._begun and time.monotonic() >= self._until):
                    self._changed.notify_all()
                    return
                id_ = self._left.popleft()
                self._begun.append(id_)
            found = look(self._dimensions[id_], self._fingerprints.get(id_))
            with self._changed:
                if self._over.is_set():
                    _left_behind.discard((self._scope, id_))
                    return
                self._found[id_] = found
                self._changed.notify_all()

    def _unanswered(self, id_: str) -> DimensionLook:
        """For a look that has not ended; a change meanwhile is seen once one has."""
        dimension, previous = self._dimensions[id_], self._fingerprints.get(id_)
        wrong = problem(dimension, "unreachable", "its storage has not answered yet")
        empty = DimensionLook(id_, dimension.method, fingerprint=previous, previous_fingerprint=previous)
        return replace(empty, reason=wrong.message, problem=wrong)
