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
    """

    order: tuple[str, ...]
    predecessors: Mapping[str, frozenset[str]]
    generations: Mapping[str, int]
    urgency: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(
        predecessors: Mapping[str, Collection[str]],
        *,
        generations: Mapping[str, int] | None = None,
        durations: Mapping[str, float] | None = None,
    ) -> Workload:
        """Make a workload of predecessors, in their order.

        Predecessors that are not pipes of the mapping are outside the workload and wait for nothing.

        Args:
            predecessors: Per pipe, what must end before it starts.
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
        )

    @staticmethod
    def of_generation(generation: Sequence[str], *, durations: Mapping[str, float] | None = None) -> Workload:
        """A workload of pipes that wait for nothing."""
        return Workload.of(dict.fromkeys(generation, ()), durations=durations)


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
        self._strategy = strategy
        self._barrier = barrier
        self._rank = {pipe_id: rank for rank, pipe_id in enumerate(workload.order)}
        self._successors = _successors(workload.predecessors)
        self._waiting_for = {pipe_id: len(before) for pipe_id, before in workload.predecessors.items()}
        self._not_started = set(workload.order)
        self._unfinished: dict[int, int] = defaultdict(int)
        for pipe_id in workload.order:
            self._unfinished[self._gate(pipe_id)] += 1
        self._gates = sorted(self._unfinished)
        self._ready: dict[int, list[tuple[float, int, str]]] = defaultdict(list)
        for pipe_id, count in self._waiting_for.items():
            if count == 0:
                self._make_ready(pipe_id)

    def _gate(self, pipe_id: str) -> int:
        return self._workload.generations[pipe_id] if self._barrier else 0

    def _make_ready(self, pipe_id: str) -> None:
        urgency = self._workload.urgency.get(pipe_id, 0.0)
        heapq.heappush(self._ready[self._gate(pipe_id)], (-urgency, self._rank[pipe_id], pipe_id))

    def take(self, free: int) -> list[str]:
        """Up to ``free`` pipes to start now, the head of the longest remaining path first."""
        while self._gates and self._unfinished[self._gates[0]] == 0:
            self._gates.pop(0)
        taken: list[str] = []
        if not self._gates:
            return taken
        ready = self._ready[self._gates[0]]
        while ready and len(taken) < free:
            pipe_id = heapq.heappop(ready)[2]
            if pipe_id in self._not_started:
                self._not_started.remove(pipe_id)
                taken.append(pipe_id)
        return taken

    def ended(self, pipe_id: str, *, ok: bool) -> list[Blocked]:
        """Record that a taken pipe ended; gives the pipes that will not start because of it."""
        blocked: list[Blocked] = []
        self._unfinished[self._gate(pipe_id)] -= 1
        if ok or self._strategy is ErrorStrategy.CONTINUE:
            for later in self._successors[pipe_id]:
                self._waiting_for[later] -= 1
                if self._waiting_for[later] == 0 and later in self._not_started:
                    self._make_ready(later)
            return blocked
        reached = [pipe_id]
        for earlier in reached:  # grows while it is read
            for later in self._successors[earlier]:
                if later in self._not_started:
                    self._not_started.remove(later)
                    self._unfinished[self._gate(later)] -= 1
                    blocked.append(Blocked(later, cause=pipe_id))
                    reached.append(later)
        return blocked

    def give_up(self) -> list[str]:
        """Every pipe that was not taken and is not blocked, in order; none of them will start."""
        rest = [pipe_id for pipe_id in self._workload.order if pipe_id in self._not_started]
        self._not_started.clear()
        for pipe_id in rest:
            self._unfinished[self._gate(pipe_id)] -= 1
        return rest

    @property
    def exhausted(self) -> bool:
        """Whether every pipe has been taken, blocked or given up."""
        return not self._not_started
