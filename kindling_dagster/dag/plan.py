"""Execution plans: the value, and the generator that makes one for some pipes or says why it cannot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cattrs

from kindling_dagster.dag import render
from kindling_dagster.dag.cycles import elementary_cycles
from kindling_dagster.dag.graph import (
    PipeGraph,
    PipeGraphBuilder,
    PipeNode,
    unknown_pipes_message,
)
from kindling_dagster.dag.layers import layers
from kindling_dagster.errors import PlanError
from kindling_dagster.manifest import EntitySpec, Manifest, Problem

if TYPE_CHECKING:
    from kindling_dagster.dag.strategy import ExecutionStrategy

PLAN_VERSION = 1
"""Version of a plan's JSON layout."""

EntityExists = Callable[[EntitySpec], "bool | None"]
"""Whether an entity has ever been materialized; None when that cannot be known."""


@dataclass(frozen=True)
class CheckpointDependency:
    """The checkpoint of ``downstream`` holds a position in the entity that ``upstream`` writes.

    When that entity is rewritten from scratch, or the checkpoint of ``upstream`` is dropped so that
    it writes its rows again, the position no longer means anything.
    """

    upstream: str
    downstream: str
    entity: str


@dataclass(frozen=True)
class ExecutionPlan:
    """Which pipes run, in which order; plain data.

    Args:
        strategy: Name of the strategy that made the plan.
        generations: The pipes, generation by generation.
        predecessors: Per pipe, what it waits for: a batch pipe until it has ended, a stream until it
            has started. All of them are in earlier generations.
        ordering: The predecessors that a pipe waits for without reading what they write, so that it
            can run whether or not they succeeded.
        writes: Per pipe, the entity it writes.
        streams: The pipes that are started as streams; all others run once.
        checkpoints: Which stream's checkpoint depends on which other stream.
        warnings: Sentences for people.

    Raises:
        PlanError: A pipe is there twice, or waits for one that does not come earlier.
    """

    strategy: str
    generations: tuple[tuple[str, ...], ...]
    predecessors: Mapping[str, tuple[str, ...]]
    ordering: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    writes: Mapping[str, str] = field(default_factory=dict)
    streams: tuple[str, ...] = ()
    checkpoints: tuple[CheckpointDependency, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        placed = self.generation_of
        wrong = [
            f"{pipe_id} comes more than once"
            for pipe_id, times in Counter(self.pipe_ids).items()
            if times > 1
        ]
        for pipe_id, before in self.predecessors.items():
            if pipe_id not in placed:
                wrong.append(f"{pipe_id} has predecessors but no generation")
                continue
            for other in before:
                if placed.get(other, len(self.generations)) >= placed[pipe_id]:
                    wrong.append(f"{pipe_id} waits for {other}, which does not come earlier")
        if wrong:
            raise PlanError(
                f"The {self.strategy} plan contradicts itself: {'; '.join(wrong)}.",
                "Make it with ExecutionPlan.arrange, which puts pipes into generations.",
            )

    @staticmethod
    def arrange(
        strategy: str,
        graph: PipeGraph,
        predecessors: Mapping[str, Sequence[str]],
        *,
        ordering: Mapping[str, Sequence[str]] | None = None,
        streams: Iterable[str] = (),
        checkpoints: Iterable[CheckpointDependency] = (),
        warnings: Iterable[str] = (),
    ) -> ExecutionPlan:
        """Make a plan of what each pipe waits for: generations follow from it.

        Args:
            strategy: Name of the strategy.
            graph: The pipes.
            predecessors: Per pipe, what it waits for. A pipe that is left out waits for nothing.
            ordering: As in the plan.
            streams: As in the plan.
            checkpoints: As in the plan.
            warnings: As in the plan.

        Raises:
            PlanError: Pipes wait for each other in a circle, or for one that is not in the graph.
        """
        waits = {pipe_id: tuple(predecessors.get(pipe_id, ())) for pipe_id in graph.pipe_ids}
        strangers = sorted({other for before in waits.values() for other in before} - waits.keys())
        if strangers:
            raise PlanError(
                f"The {strategy} plan makes pipes wait for {', '.join(strangers)}, not in the graph.",
                "A strategy can only order the pipes of the graph it was given.",
            )
        generations = layers(waits)
        if sum(map(len, generations)) < len(waits):
            circles = "; ".join(" → ".join([*cycle, cycle[0]]) for cycle in elementary_cycles(waits))
            raise PlanError(
                f"The {strategy} plan makes pipes wait for each other in a circle: {circles}.",
                "Change what the strategy gives as predecessors.",
            )
        return ExecutionPlan(
            strategy=strategy,
            generations=generations,
            predecessors=waits,
            ordering={pipe_id: tuple(others) for pipe_id, others in (ordering or {}).items() if others},
            writes={node.pipe_id: node.output for node in graph.nodes},
            streams=tuple(streams),
            checkpoints=tuple(checkpoints),
            warnings=tuple(warnings),
        )

    @property
    def pipe_ids(self) -> tuple[str, ...]:
        """All pipes, in the order in which one after the other would run."""
        return tuple(pipe_id for generation in self.generations for pipe_id in generation)

    @cached_property
    def generation_of(self) -> Mapping[str, int]:
        """Per pipe, its generation from 0."""
        return {
            pipe_id: number for number, generation in enumerate(self.generations) for pipe_id in generation
        }

    def needs(self, pipe_id: str) -> tuple[str, ...]:
        """The predecessors whose success a pipe needs: all but those it only comes after."""
        only_after = self.ordering.get(pipe_id, ())
        return tuple(other for other in self.predecessors.get(pipe_id, ()) if other not in only_after)

    def checkpoints_behind(self, pipe_id: str) -> tuple[str, ...]:
        """The streams whose checkpoints become void when what a stream writes starts over, nearest first."""
        found: dict[str, None] = {}
        queue = [pipe_id]
        for current in queue:
            for dependency in self.checkpoints:
                following = dependency.downstream
                if dependency.upstream == current and following not in found and following != pipe_id:
                    found[following] = None
                    queue.append(following)
        return tuple(found)

    def to_text(self) -> str:
        """The plan as a table for people."""
        return render.plan_text(self)

    def to_mermaid(self) -> str:
        """The plan as a Mermaid flowchart, one box per generation."""
        return render.mermaid(render.draw_plan(self))

    def to_dot(self) -> str:
        """The plan as a Graphviz graph, one cluster per generation."""
        return render.dot(render.draw_plan(self))

    def to_json(self) -> str:
        """The plan as indented JSON; ``from_json`` reads it."""
        return json.dumps({"version": PLAN_VERSION, **_converter.unstructure(self)}, indent=1)

    @staticmethod
    def from_json(text: str) -> ExecutionPlan:
        """Read what ``to_json`` gave.

        Raises:
            PlanError: Not a plan, of a newer version, or one that contradicts itself.
        """
        again = "Make the plan anew."
        try:
            data: Any = json.loads(text)
        except ValueError as error:
            raise PlanError(f"The plan is not valid JSON: {error}.", again) from error
        if not isinstance(data, dict) or not isinstance(data.get("version"), int):
            raise PlanError("The JSON is not an execution plan.", again)
        version = data.pop("version")
        if version > PLAN_VERSION:
            raise PlanError(
                f"The plan has version {version}; this kindling-dagster reads up to {PLAN_VERSION}.",
                "Upgrade kindling-dagster, or make the plan anew.",
            )
        try:
            return _converter.structure(data, ExecutionPlan)
        except PlanError:
            raise
        except Exception as error:  # cattrs passes on whatever a hook raised
            raise PlanError(f"The JSON does not have a plan's fields: {error!r}.", again) from error


class ExecutionPlanGenerator:
    """Makes plans for an app's pipes, and refuses those that cannot work.

    Args:
        manifest: What the app declares.
        strategy: How to order pipes; when left out, ``strategy_for`` chooses by what the pipes are.
        exists: Tells whether an entity has ever been materialized; without it that is not checked.
    """

    def __init__(
        self,
        manifest: Manifest,
        strategy: ExecutionStrategy | None = None,
        *,
        exists: EntityExists | None = None,
    ) -> None:
        self._manifest = manifest
        self._strategy = strategy
        self._exists = exists
        self._builder = PipeGraphBuilder(manifest)
        self._app = self._builder.build_graph(allow_cycles=True)

    def generate_plan(self, pipe_ids: Iterable[str]) -> ExecutionPlan:
        """The plan for these pipes alone.

        Raises:
            PlanError: With every reason at once: no pipe at all, unknown or repeated ids, an error in
                what is declared, an input that nobody has ever materialized, or one that lives only in
                the Spark session of a pipe outside the selection. ``problems`` has them as data.
            CycleError: The pipes depend on each other in a circle.
        """
        from kindling_dagster.dag.strategy import strategy_for  # here, since it imports this module

        asked = list(pipe_ids)
        problems = self.find_problems(asked)
        if problems:
            lines = "\n".join(f"  - {_sentence(problem)}" for problem in problems)
            raise PlanError(f"The plan cannot run:\n{lines}", problems=problems)
        graph = self._builder.build_graph(asked)
        strategy = self._strategy or strategy_for(graph)
        plan = strategy.plan(graph)
        if sorted(plan.pipe_ids) != sorted(graph.pipe_ids):
            differs = ", ".join(sorted(set(plan.pipe_ids) ^ set(graph.pipe_ids)))
            raise PlanError(
                f"The {plan.strategy} plan does not hold exactly the pipes asked for; it differs in {differs}.",
                "A strategy must place every pipe of the graph, and no other.",
            )
        return plan

    def find_problems(self, pipe_ids: Sequence[str]) -> tuple[Problem, ...]:
        """Everything that keeps these pipes from running, cycles aside; empty when nothing does."""
        if not pipe_ids:
            return (_error("", "No pipe is selected.", "Select at least one."),)
        known = self._manifest.pipes_by_id
        unknown = [pipe_id for pipe_id in dict.fromkeys(pipe_ids) if pipe_id not in known]
        selected = {pipe_id for pipe_id in pipe_ids if pipe_id in known}
        nodes = [node for node in self._app.nodes if node.pipe_id in selected]
        problems = [_error(pipe_id, *unknown_pipes_message([pipe_id], known)) for pipe_id in unknown]
        problems += [
            _error(pipe_id, f"Pipe {pipe_id} is given {times} times.", "Give each pipe once.")
            for pipe_id, times in Counter(pipe_ids).items()
            if times > 1
        ]
        problems += self._declaration_problems(nodes)
        problems += self._upstream_problems(nodes, selected)
        return tuple(problems)

    def _declaration_problems(self, nodes: Sequence[PipeNode]) -> list[Problem]:
        touched: dict[str, list[str]] = {}
        for node in nodes:
            for subject in dict.fromkeys((node.pipe_id, *node.inputs, *node.sources, node.output)):
                touched.setdefault(subject, []).append(node.pipe_id)
        found = []
        for problem in self._manifest.problems:
            pipes = touched.get(problem.subject)
            if problem.severity == "error" and pipes:
                about = "" if problem.subject in pipes else f" (used by {', '.join(pipes)})"
                message = f"{problem.subject}: {problem.message}{about}"
                found.append(_error(problem.subject, message, problem.suggestion))
        return found

    def _upstream_problems(self, nodes: Sequence[PipeNode], selected: set[str]) -> list[Problem]:
        readers: dict[str, list[str]] = {}
        for node in nodes:
            for source in node.sources:
                readers.setdefault(source, []).append(node.pipe_id)
        problems = []
        for entity_id, pipes in readers.items():
            entity = self._manifest.entities_by_id.get(entity_id)
            if entity is None:  # not declared: the manifest says so, as an error of the pipe
                continue
            writers = self._app.writers_of(entity_id)
            missing = [writer for writer in writers if writer not in selected]
            if entity.location.kind == "memory":
                problems += [_memory_problem(pipe_id, entity_id, missing) for pipe_id in pipes if missing]
            elif len(missing) == len(writers) and self._exists and self._exists(entity) is False:
                problems.append(_missing_problem(pipes, entity, writers))
        return problems


def _memory_problem(pipe_id: str, entity_id: str, writers: Sequence[str]) -> Problem:
    return _error(
        pipe_id,
        f"Pipe {pipe_id} reads {entity_id}, which lives only in the memory of the Spark session that writes "
        f"it, and {_names(writers)}, which {_verb(writers)} it, {'is' if len(writers) == 1 else 'are'} not "
        "selected.",
        f"Select {_names(writers)} too, or store {entity_id} with another provider.",
    )


def _missing_problem(pipes: Sequence[str], entity: EntitySpec, writers: Sequence[str]) -> Problem:
    where = f" ({entity.location.value})" if entity.location.kind in ("path", "table") else ""
    head = f"Pipe{'s' if len(pipes) > 1 else ''} {_names(pipes)} read{'s' if len(pipes) == 1 else ''} "
    if writers:
        return _error(
            pipes[0],
            f"{head}{entity.id}{where}, which nobody has ever materialized, and {_names(writers)}, which "
            f"{_verb(writers)} it, {'is' if len(writers) == 1 else 'are'} not selected.",
            f"Select {_names(writers)} too, or run {'it' if len(writers) == 1 else 'them'} first.",
        )
    return _error(
        pipes[0],
        f"{head}{entity.id}{where}, which does not exist, and no pipe of the app writes it.",
        "Load it, or correct where it is said to be.",
    )


def _error(subject: str, message: str, suggestion: str) -> Problem:
    return Problem("error", subject, message, suggestion)


def _sentence(problem: Problem) -> str:
    return f"{problem.message} {problem.suggestion}".strip()


def _names(pipe_ids: Sequence[str]) -> str:
    return " and ".join(pipe_ids)


def _verb(writers: Sequence[str]) -> str:
    return "writes" if len(writers) == 1 else "write"


# Without detailed validation, what ExecutionPlan itself raises comes through as it is.
_converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)
