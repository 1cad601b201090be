"""Small apps as manifests, written in a line or drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st

from kindling_dagster.manifest import AppRef, EntitySpec, Location, Manifest, PipeSpec, Problem

unhurried = settings(deadline=None)
"""For property tests: a busy machine is no failure."""


def pipe(
    pipe_id: str, inputs: str, output: str, *, stream: bool = False, driving: str | None = None
) -> PipeSpec:
    """A pipe; ``inputs`` and ``driving`` are ids separated by spaces."""
    reads = tuple(inputs.split())
    return PipeSpec(
        id=pipe_id,
        name=pipe_id,
        input_entity_ids=reads,
        output_entity_id=output,
        driving_entity_ids=reads[:1] if driving is None else tuple(driving.split()),
        tags={"processing_mode": "streaming"} if stream else {},
    )


def entity(entity_id: str, location: str = "path", **fields: object) -> EntitySpec:
    """An entity that lives at a path, in memory or nowhere."""
    where = Location(location, f"/lake/{entity_id}" if location == "path" else "")
    provider = "memory" if location == "memory" else "delta"
    return EntitySpec(id=entity_id, name=entity_id, provider=provider, location=where, **fields)  # type: ignore[arg-type]


def app(
    pipes: Sequence[PipeSpec], entities: Sequence[EntitySpec] = (), problems: Sequence[Problem] = ()
) -> Manifest:
    """A manifest; entities that pipes use and that are not given are declared as Delta tables."""
    given = {each.id for each in entities}
    used = dict.fromkeys(id_ for each in pipes for id_ in (*each.input_entity_ids, each.output_entity_id))
    return Manifest(
        app=AppRef("shop", "local", "packages", "recorder"),
        entities=(*entities, *(entity(id_) for id_ in used if id_ not in given)),
        pipes=tuple(pipes),
        problems=tuple(problems),
    )


@st.composite
def any_apps(draw: st.DrawFn) -> Manifest:
    """Apps of up to 9 pipes without any rule: cycles, several writers and self-reads all occur."""
    entities = [f"e{number}" for number in range(draw(st.integers(1, 7)))]
    reads = st.lists(st.sampled_from([*entities, "src"]), max_size=3, unique=True)
    return app(
        [
            pipe(
                f"p{number}",
                " ".join(draw(reads)),
                draw(st.sampled_from(entities)),
                stream=draw(st.booleans()),
            )
            for number in range(draw(st.integers(1, 9)))
        ]
    )


@st.composite
def sound_apps(draw: st.DrawFn, streams: Sequence[bool] = (False, True)) -> Manifest:
    """Apps of up to 14 pipes without cycles, in any declaration order.

    A pipe that writes ``e5`` reads entities below ``e5``, and perhaps ``e5`` itself; several pipes may
    write one entity. ``streams`` is what pipes may be: streams, batch pipes or both.
    """
    pipes = []
    for number in range(draw(st.integers(1, 14))):
        level = draw(st.integers(0, 7))
        below = ["src", *(f"e{lower}" for lower in range(level))]
        reads = draw(st.lists(st.sampled_from(below), max_size=4, unique=True))
        if draw(st.integers(0, 4)) == 0:
            reads.append(f"e{level}")
        pipes.append(pipe(f"p{number}", " ".join(reads), f"e{level}", stream=draw(st.sampled_from(streams))))
    return app(draw(st.permutations(pipes)))
