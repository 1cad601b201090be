"""What to start next: the pure part of the executor. No threads, no clock, no Spark."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import fmean

from kindling_dagster.errors import PlanError


class ErrorStrategy(str, Enum):
    """What happens to the rest of an execution once a pipe has not succeeded."""

    FAIL_FAST = "fail_fast"
    """Cancel what runs, start nothing more."""
    CONTINUE = "continue"
    """Run everything that is left, also what depends on the pipe."""
    SKIP_DEPENDENTS = "skip_dependents"
    """Leave out what depends on the pipe, directly or not; run the rest."""

    @staticmethod
    def of(value: str) -> ErrorStrategy:
        """The strategy of that name; raises PlanError for an unknown one."""
        try:
            return ErrorStrategy(value)
        except ValueError as error:
            raise PlanError(
                f"There is no error strategy {value!r}.",
                f"Use one of {', '.join(strategy.value for strategy in ErrorStrategy)}.",
            ) from error


@dataclass(frozen=True)
class Workload:
    """Pipes to run, what each waits for, and how urgent each is.

    Args:
        order: Every pipe once; earlier pipes go first where nothing else decides.
        predecessors: Per pipe, the pipes of this workload that must end before it starts.
        generations: Per pipe, its generation from 0.
        urgency: Per pipe, the length of the longest path from its start to the end of the workload.
        ordering: Of the predecessors, those it only must not run beside (writers of one entity):
            they need not have succeeded.
    """

    order: tuple[str, ...]
    predecessors: Mapping[str, frozenset[str]]
    generations: Mapping[str, int]
    urgency: Mapping[str, float] = field(default_factory=dict)
    ordering: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @staticmethod
    def of(
        predecessors: Mapping[str, Collection[str]],
        *,
        ordering: Mapping[str, Collection[str]] | None = None,
        generations: Mapping[str, int] | None = None,
        durations: Mapping[str, float] | None = None,
    ) -> Workload:
        """Make a workload of predecessors, in their order.

        Predecessors that are not pipes of the mapping are outside the workload and wait for nothing.

        Args:
            predecessors: Per pipe, what must end before it starts.
            ordering: Of those, the ones that need not have succeeded.
            generations: Per pipe, its generation; computed when left out.
            durations: Seconds that pipes took in the past, for those where it is known. The others
                count as the mean of the known ones, or as equally long when none is known.

        Raises:
            PlanError: Pipes wait for each other in a circle, or a pipe comes in a later generation
                than a pipe that waits for it.
        """
        inside = {
            pipe_id: frozenset(before) & predecessors.keys() for pipe_id, before in predecessors.items()
        }
        sequence = _topological(inside)
        levels = _levels(sequence, inside) if generations is None else dict(generations)
        for pipe_id, before in inside.items():
            late = [other for other in before if levels[other] > levels[pipe_id]]
            if late:
                raise PlanError(
                    f"Pipe {pipe_id} of generation {levels[pipe_id]} waits for {late[0]} of generation "
                    f"{levels[late[0]]}.",
                    "Make the plan anew from the graph.",
                )
        return Workload(
            order=tuple(predecessors),
            predecessors=inside,
            generations=levels,
            urgency=_urgency(sequence, inside, durations or {}),
            ordering={
                pipe_id: frozenset(before) & inside[pipe_id]
                for pipe_id, before in (ordering or {}).items()
                if pipe_id in inside
            },
        )


def _topological(predecessors: Mapping[str, frozenset[str]]) -> list[str]:
    waiting = {pipe_id: len(before) for pipe_id, before in predecessors.items()}
    successors = _successors(predecessors)
    sequence = [pipe_id for pipe_id, count in waiting.items() if count == 0]
    for pipe_id in sequence:  # grows while it is read
        for later in successors[pipe_id]:
            waiting[later] -= 1
            if waiting[later] == 0:
                sequence.append(later)
    if len(sequence) < len(predecessors):
        stuck = sorted(pipe_id for pipe_id, count in waiting.items() if count)
        raise PlanError(
            f"Pipes wait for each other in a circle, or for one that does: {', '.join(stuck[:10])}.",
            "`kindling-dagster check` prints the circles.",
        )
    return sequence


def _successors(predecessors: Mapping[str, frozenset[str]]) -> Mapping[str, list[str]]:
    successors: dict[str, list[str]] = defaultdict(list)
    for pipe_id, before in predecessors.items():
        for earlier in before:
            successors[earlier].append(pipe_id)
    return successors


def _levels(sequence: Sequence[str], predecessors: Mapping[str, frozenset[str]]) -> dict[str, int]:
    levels: dict[str, int] = {}
    for pipe_id in sequence:
        levels[pipe_id] = max((levels[before] + 1 for before in predecessors[pipe_id]), default=0)
    return levels


def _urgency(
    sequence: Sequence[str], predecessors: Mapping[str, frozenset[str]], durations: Mapping[str, float]
) -> dict[str, float]:
    known = [durations[pipe_id] for pipe_id in sequence if pipe_id in durations]
    unknown = fmean(known) if known else 1.0
    successors = _successors(predecessors)
    urgency: dict[str, float] = {}
    for pipe_id in reversed(sequence):
        behind = max((urgency[later] for later in successors[pipe_id]), default=0.0)
        urgency[pipe_id] = durations.get(pipe_id, unknown) + behind
    return urgency


@dataclass(frozen=True)
class Blocked:
    """A pipe that will not start, because ``cause`` (a pipe upstream of it) did not succeed."""

    pipe_id: str
    cause: str


class Frontier:
    """Which pipes may start, as others end.

    Args:
        workload: The pipes.
        strategy: ``CONTINUE`` lets dependents of a failed pipe start; the others block them.
        barrier: Start a generation only when every pipe of the earlier ones has ended or is blocked.
    """

    def __init__(self, workload: Workload, strategy: ErrorStrategy, *, barrier: bool = False) -> None:
        self._workload = workload
        self._continue = strategy is ErrorStrategy.CONTINUE
        self._barrier = barrier
        self._rank = {pipe_id: rank for rank, pipe_id in enumerate(workload.order)}
        order = {pipe_id: workload.ordering.get(pipe_id, frozenset()) for pipe_id in workload.order}
        data = {pipe_id: before - order[pipe_id] for pipe_id, before in workload.predecessors.items()}
        self._readers = _successors(data)
        self._followers = _successors(order)
        self._waiting_for_data = {pipe_id: len(before) for pipe_id, before in data.items()}
        self._waiting_for_turn = {pipe_id: len(before) for pipe_id, before in order.items()}
        self._not_started = set(workload.order)
        self._blocked: set[str] = set()
        self._passed: set[str] = set()
        self._unfinished: dict[int, int] = defaultdict(int)
        for pipe_id in workload.order:
            self._unfinished[self._gate(pipe_id)] += 1
        self._gates = sorted(self._unfinished)
        self._ready: dict[int, list[tuple[float, int, str]]] = defaultdict(list)
        for pipe_id in workload.order:
            self._offer(pipe_id)

    def _gate(self, pipe_id: str) -> int:
        return self._workload.generations[pipe_id] if self._barrier else 0

    def _offer(self, pipe_id: str) -> None:
        """Make a pipe ready if it waits for nothing any more."""
        if (
            pipe_id in self._not_started
            and not self._waiting_for_data[pipe_id]
            and not self._waiting_for_turn[pipe_id]
        ):
            urgency = self._workload.urgency.get(pipe_id, 0.0)
            heapq.heappush(self._ready[self._gate(pipe_id)], (-urgency, self._rank[pipe_id], pipe_id))

    def take(self, free: int) -> list[str]:
        """Up to ``free`` pipes to start now, the head of the longest remaining path first."""
        while self._gates and self._unfinished[self._gates[0]] == 0:
            self._gates.pop(0)
        taken: list[str] = []
        ready = self._ready[self._gates[0]] if self._gates else []
        while ready and len(taken) < free:
            pipe_id = heapq.heappop(ready)[2]
            if pipe_id in self._not_started:  # it may have been given up since it got ready
                self._not_started.remove(pipe_id)
                taken.append(pipe_id)
        return taken

    def ended(self, pipe_id: str, *, ok: bool, alive: bool = False) -> list[Blocked]:
        """Record that a taken pipe ended; gives the pipes that will not start because of it.

        Args:
            pipe_id: The pipe.
            ok: Whether it succeeded.
            alive: It was given up on and may still be at work: what must not run beside it is blocked.
        """
        blocked: list[str] = []
        self._leave(pipe_id, ok or self._continue, blocked)
        if alive:
            self._block_followers(pipe_id, blocked)
        else:
            self._pass_turn(pipe_id)
        for later in blocked:  # grows while it is read
            self._leave(later, self._continue, blocked)
            # A blocked pipe passes the turn on only once it would have had it: the writer before it
            # may still be running.
            if not self._waiting_for_turn[later]:
                self._pass_turn(later)
        return [Blocked(later, cause=pipe_id) for later in blocked]

    def _leave(self, pipe_id: str, data_flows: bool, blocked: list[str]) -> None:
        self._unfinished[self._gate(pipe_id)] -= 1
        for later in self._readers[pipe_id]:
            if data_flows:
                self._waiting_for_data[later] -= 1
                self._offer(later)
            else:
                self._block(later, blocked)

    def _pass_turn(self, pipe_id: str) -> None:
        passing = [pipe_id]
        for earlier in passing:  # grows while it is read
            if earlier in self._passed:
                continue
            self._passed.add(earlier)
            for later in self._followers[earlier]:
                self._waiting_for_turn[later] -= 1
                if self._waiting_for_turn[later] == 0 and later in self._blocked:
                    passing.append(later)
                self._offer(later)

    def _block_followers(self, pipe_id: str, blocked: list[str]) -> None:
        following = list(self._followers[pipe_id])
        for later in following:  # grows while it is read
            self._block(later, blocked)
            following += self._followers[later]

    def _block(self, pipe_id: str, blocked: list[str]) -> None:
        if pipe_id in self._not_started:
            self._not_started.remove(pipe_id)
            self._blocked.add(pipe_id)
            blocked.append(pipe_id)

    def give_up(self) -> list[str]:
        """Every pipe that was not taken and is not blocked, in order; none of them will start."""
        rest = [pipe_id for pipe_id in self._workload.order if pipe_id in self._not_started]
        self._not_started.clear()
        for pipe_id in rest:
            self._unfinished[self._gate(pipe_id)] -= 1
        return rest
