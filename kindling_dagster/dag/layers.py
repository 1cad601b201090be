"""Pipes by generation, from what each waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def layers(predecessors: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Group pipes into generations: each comes one after the latest of its predecessors.

    Within a generation the order of ``predecessors`` is kept. Empty where pipes wait for each other in a
    circle. By hand, because ``graphlib`` takes three times as long over thousands of pipes.
    """
    level: dict[str, int] = {}
    for pipe_id, before in predecessors.items():
        if pipe_id in level:
            continue
        deepest = -1
        for other in before:
            known = level.get(other)
            if known is None:
                if not _settle(pipe_id, predecessors, level):
                    return ()
                break
            if known > deepest:
                deepest = known
        else:
            level[pipe_id] = deepest + 1
    found: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for pipe_id in predecessors:
        found[level[pipe_id]].append(pipe_id)
    return tuple(map(tuple, found))


def _settle(pipe_id: str, predecessors: Mapping[str, Sequence[str]], level: dict[str, int]) -> bool:
    """Find the generation of a pipe and of all above it, depth first; False where that runs in a circle."""
    path = [(pipe_id, iter(predecessors[pipe_id]))]
    seen = {pipe_id}
    while path:
        current, above = path[-1]
        for other in above:
            if other in level:
                continue
            if other in seen:
                return False
            seen.add(other)
            path.append((other, iter(predecessors[other])))
            break
        else:
            level[current] = max([level[other] for other in predecessors[current]], default=-1) + 1
            path.pop()
    return True


def flip(links: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Predecessors to successors and back, keeping the order of the keys."""
    flipped: dict[str, list[str]] = {pipe_id: [] for pipe_id in links}
    for pipe_id, others in links.items():
        for other in others:
            flipped[other].append(pipe_id)
    return flipped
