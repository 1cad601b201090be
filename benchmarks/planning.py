"""Planning 5,000 pipes (graph, check for cycles, generations) against Kindling's own builder."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass

from kindling.data_entities import DataEntityManager, EntityMetadata
from kindling.data_pipes import DataPipesManager, PipeMetadata
from kindling.pipe_graph import PipeGraphBuilder as KindlingBuilder
from kindling.spark_log_provider import PythonLoggerProvider

from benchmarks.harness import Case
from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.manifest import AppRef, EntitySpec, Location, Manifest, PipeSpec

PIPES = 5_000
FAN_IN = 2
GOAL = 10.0


class QuietLogs(PythonLoggerProvider):
    """Kindling's builder logs every edge; what a logger writes is not what is compared."""

    def get_logger(self, name: str, session: object = None) -> logging.Logger:  # noqa: ARG002
        """A logger of the standard library that drops debug and info lines at once."""
        logger = logging.getLogger(f"benchmarks.{name}")
        logger.setLevel(logging.WARNING)
        return logger


@dataclass(frozen=True)
class App:
    """One app, as each side knows it."""

    manifest: Manifest
    pipes: DataPipesManager
    entities: DataEntityManager

    @property
    def pipe_ids(self) -> list[str]:
        """All pipes, in declaration order."""
        return [pipe.id for pipe in self.manifest.pipes]


def make_app(generations: int, shuffled: bool = False) -> App:
    """An app of 5,000 pipes in layers of one size; each pipe reads two entities of the layer below.

    Pipes are declared from the sources up, or in random order.

    Kindling's registries are filled without its decorators, which take 36 s for that many.
    """
    rng = random.Random(1)
    width = PIPES // generations
    reads: dict[int, list[str]] = {}
    for number in range(PIPES):
        layer = number // width
        below = range((layer - 1) * width, layer * width)
        reads[number] = (
            [f"entity.{rng.choice(below)}" for _ in range(FAN_IN)] if layer else [f"source.{number}"]
        )
    if shuffled:
        reads = dict(rng.sample(list(reads.items()), PIPES))
    written = [f"entity.{number}" for number in range(PIPES)]
    entity_ids = [*written, *(f"source.{number}" for number in range(width))]
    pipes = DataPipesManager(QuietLogs())
    entities = DataEntityManager()
    for number, inputs in reads.items():
        pipe_id = f"pipe.{number}"
        pipes.registry[pipe_id] = PipeMetadata(pipe_id, pipe_id, print, {}, inputs, written[number], "table")
    for entity_id in entity_ids:
        entities.registry[entity_id] = EntityMetadata(entity_id, entity_id, ["id"], {}, None)
    manifest = Manifest(
        app=AppRef("benchmark", "local", "packages", "recorder"),
        entities=tuple(EntitySpec(id_, id_, "delta", Location("path", f"/lake/{id_}")) for id_ in entity_ids),
        pipes=tuple(
            PipeSpec(f"pipe.{number}", f"pipe.{number}", tuple(inputs), written[number])
            for number, inputs in reads.items()
        ),
    )
    return App(manifest, pipes, entities)


def compare(generations: int, shuffled: bool = False) -> Case:
    """Both builders over the same app; they must agree on the generations."""
    app = make_app(generations, shuffled)
    pipe_ids = app.pipe_ids

    def ours() -> None:
        builder = PipeGraphBuilder(app.manifest)
        graph = builder.build_graph(pipe_ids)
        assert builder.detect_cycles(graph) == []
        assert len(builder.get_generations(graph)) == generations

    def other() -> None:
        builder = KindlingBuilder(app.pipes, QuietLogs(), app.entities)
        graph = builder.build_graph(pipe_ids)
        assert builder.detect_cycles(graph) == []
        assert len(builder.get_generations(graph)) == generations

    return Case(
        name=f"{PIPES:,} pipes in {generations} generations{', in random order' if shuffled else ''}",
        ours=ours,
        other=other,
        other_name="Kindling's builder",
        goal=GOAL,
        better="at least",
        runs=9,
        clock="cpu",
    )


def cases() -> Iterator[Case]:
    """A wide app, one in between, and a deep one: Kindling's cost grows with the depth, ours does not."""
    for generations in (10, 50, 250):
        yield compare(generations)
    yield compare(50, shuffled=True)
