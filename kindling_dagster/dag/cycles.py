"""Cycles among pipes: finding them, and explaining them in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

from kindling_dagster.errors import CycleError

CYCLE_LIMIT = 100
"""How many cycles are looked for by default: a tangle has exponentially many, and nobody reads them all."""


def elementary_cycles(upstream: Mapping[str, Sequence[str]], limit: int = CYCLE_LIMIT) -> list[list[str]]:
    """All elementary cycles, at most ``limit`` of them.

    A cycle follows the flow of data, starts at the pipe that comes first in ``upstream`` and does not
    repeat it at the end. Short cycles come first, then those that start early.

    Args:
        upstream: Each pipe → the pipes it depends on.
        limit: How many to look for; where there are more, which ones are found is the same every time.
    """
    # networkx takes 0.2 s to import, and only graphs that are wrong need it.
    import networkx

    # Numbers instead of ids: sets of strings have a different order in every process.
    names = list(upstream)
    number = {pipe_id: index for index, pipe_id in enumerate(names)}
    links = networkx.DiGraph()
    links.add_nodes_from(range(len(names)))
    for pipe_id, others in upstream.items():
        links.add_edges_from((number[other], number[pipe_id]) for other in others)
    cycles = []
    for cycle in islice(networkx.simple_cycles(links), limit):
        first = cycle.index(min(cycle))
        cycles.append(cycle[first:] + cycle[:first])
    cycles.sort(key=lambda cycle: (len(cycle), cycle))
    return [[names[index] for index in cycle] for cycle in cycles]


def cycle_error(
    upstream: Mapping[str, Sequence[str]], carried: Mapping[tuple[str, str], Sequence[str]]
) -> CycleError:
    """The error for pipes that depend on each other in a circle.

    Args:
        upstream: Each pipe → the pipes it depends on; has at least one cycle.
        carried: (writer, reader) → the entities that go from one to the other, for all pairs.
    """
    found = elementary_cycles(upstream, CYCLE_LIMIT + 1)
    cycles = found[:CYCLE_LIMIT]
    lines: list[str] = []
    uses: Counter[tuple[str, str]] = Counter()
    for cycle in cycles:
        hops = list(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
        reads = [(reader, _and(carried[writer, reader])) for writer, reader in hops]
        uses.update(reads)
        told = [
            f"{reader} reads {entities} from {writer}"
            for (writer, _), (reader, entities) in zip(hops, reads, strict=True)
        ]
        lines.append(f"  {' → '.join([*cycle, cycle[0]])} ({'; '.join(told)})")
    if len(found) > len(cycles):
        lines.append(f"  … and more: only {len(cycles)} are shown")
    (reader, entities), most = uses.most_common(1)[0]
    alone = len(cycles) == 1
    share = "" if alone else f" (part of {most} of the {len(cycles)} circles)"
    return CycleError(
        f"Pipes depend on each other in {'a circle' if alone else 'circles'}:\n" + "\n".join(lines) + "\n",
        cycles,
        f"Take one read out of {'the circle' if alone else 'each circle'}, for example {reader}'s read of "
        f"{entities}{share}. A pipe that needs the state left by the run before can read its own output: "
        "that is no dependency.",
    )


def _and(entity_ids: Sequence[str]) -> str:
    return " and ".join(entity_ids)
