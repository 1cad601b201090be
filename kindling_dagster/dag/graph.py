"""The pipe graph: which pipe reads what another one writes, in which order they can run, and cycles."""

from __future__ import annotations

import difflib
import graphlib
import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

from kindling_dagster.dag import render
from kindling_dagster.dag.cycles import CYCLE_LIMIT, cycle_error, elementary_cycles
from kindling_dagster.dag.layers import flip, layers
from kindling_dagster.errors import CycleError, PlanError
from kindling_dagster.manifest import EntitySpec, Manifest, PipeSpec


@dataclass(frozen=True)
class PipeNode:
    """One pipe in a graph.

    ``reads`` maps each declared input to the entities whose writers the pipe depends on: the input
    itself, or the base entity of an SCD2 companion, or whatever the SQL of a SQL entity reads.
    """

    pipe: PipeSpec
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def pipe_id(self) -> str:
        """The pipe's id."""
        return self.pipe.id

    @property
    def inputs(self) -> tuple[str, ...]:
        """The declared inputs."""
        return self.pipe.input_entity_ids

    @property
    def output(self) -> str:
        """The entity the pipe writes."""
        return self.pipe.output_entity_id

    @property
    def streaming(self) -> bool:
        """Whether the pipe is declared as a stream."""
        return self.pipe.streaming

    @property
    def sources(self) -> tuple[str, ...]:
        """The entities the pipe depends on, once each, in the order of its inputs."""
        return tuple(dict.fromkeys(chain.from_iterable(self.reads.values())))


@dataclass(frozen=True)
class PipeEdge:
    """One pipe comes after another.

    ``entities`` are the ids the edge carries, as the reader names them (an SCD2 companion keeps its
    own id). An ``ordering`` edge carries no data: both pipes write the entity, one after another.
    """

    from_pipe: str
    to_pipe: str
    entities: tuple[str, ...]
    ordering: bool = False


@dataclass(frozen=True)
class PipeGraph:
    """Pipes and what follows from their inputs and outputs; a value that never changes.

    All else is derived from the pipes and their order by these rules:

    - Every writer of an entity is upstream of every reader of it.
    - A pipe that reads what it writes itself sees the state before its run: no edge to itself.
    - Writers of one entity run one after another: first those that do not read it, then those that do
      (they update what the others have written), each group in declaration order.

    A graph made by hand may have cycles; one made by ``PipeGraphBuilder.build_graph`` has none.

    Args:
        pipes: Each id once, in declaration order.
        indirect: Entities that are a view of others → what a read of them comes down to: the base entity
            of an SCD2 companion, or whatever the SQL of a SQL entity reads, however deep.
    """

    pipes: tuple[PipeSpec, ...]
    indirect: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pipes)

    def __contains__(self, pipe_id: object) -> bool:
        return pipe_id in self._upstream

    @cached_property
    def nodes(self) -> tuple[PipeNode, ...]:
        """The pipes with what they read, in declaration order."""
        return tuple(
            PipeNode(pipe, {id_: self.indirect.get(id_) or (id_,) for id_ in pipe.input_entity_ids})
            for pipe in self.pipes
        )

    @cached_property
    def by_id(self) -> Mapping[str, PipeNode]:
        """Nodes by pipe id, in declaration order."""
        return {node.pipe_id: node for node in self.nodes}

    @property
    def pipe_ids(self) -> tuple[str, ...]:
        """All pipe ids, in declaration order."""
        return tuple(self._upstream)

    def node(self, pipe_id: str) -> PipeNode:
        """The node of one pipe; raises PlanError where the graph has no such pipe."""
        node = self.by_id.get(pipe_id)
        if node is None:
            raise PlanError(*unknown_pipes_message([pipe_id], self.by_id))
        return node

    # The next three run for thousands of pipes whenever an app is loaded, so they make no object that
    # they can do without; nodes and edges are made when they are asked for.

    @cached_property
    def _writers(self) -> Mapping[str, tuple[str, ...]]:
        writers: dict[str, tuple[str, ...]] = {}
        for pipe in self.pipes:
            output = pipe.output_entity_id
            writers[output] = (*writers[output], pipe.id) if output in writers else (pipe.id,)
        return writers

    @cached_property
    def _upstream(self) -> Mapping[str, tuple[str, ...]]:
        written_by = self._writers.get
        upstream: dict[str, tuple[str, ...]] = {}
        for pipe in self.pipes:
            above: tuple[str, ...] = ()
            for entity in self._sources(pipe) if self.indirect else pipe.input_entity_ids:
                writers = written_by(entity)
                if writers:
                    above += writers
            if len(above) > 1 and len(set(above)) < len(above):
                above = tuple(dict.fromkeys(above))
            if pipe.id in above:
                above = tuple(pipe_id for pipe_id in above if pipe_id != pipe.id)
            upstream[pipe.id] = above
        for self_readers in self._self_readers.values():
            later = set(self_readers)
            for reader in self_readers:
                later.remove(reader)
                upstream[reader] = tuple(pipe_id for pipe_id in upstream[reader] if pipe_id not in later)
        return upstream

    def _sources(self, pipe: PipeSpec) -> Sequence[str]:
        """The entities a pipe depends on; some may be there twice."""
        inputs = pipe.input_entity_ids
        if self.indirect.keys().isdisjoint(inputs):
            return inputs
        return [source for id_ in inputs for source in self.indirect.get(id_) or (id_,)]

    @cached_property
    def _self_readers(self) -> Mapping[str, tuple[str, ...]]:
        """For entities with several writers: the writers that also read the entity."""
        found: dict[str, tuple[str, ...]] = {
            entity: () for entity, writers in self._writers.items() if len(writers) > 1
        }
        for pipe in self.pipes if found else ():
            entity = pipe.output_entity_id
            if entity in found and entity in self._sources(pipe):
                found[entity] += (pipe.id,)
        return found

    @cached_property
    def ordering(self) -> Mapping[str, str]:
        """Pipe → the writer of the same entity that comes before it and that it does not read from."""
        ordering: dict[str, str] = {}
        for entity, self_readers in self._self_readers.items():
            # Self-readers need no ordering edge: they are downstream of every earlier writer anyway.
            updating = set(self_readers)
            plain = [writer for writer in self._writers[entity] if writer not in updating]
            ordering.update(zip(plain[1:], plain, strict=False))
        return ordering

    @cached_property
    def predecessors(self) -> Mapping[str, tuple[str, ...]]:
        """Pipe → the pipes that must have ended before it starts, through data or ordering edges."""
        if not self.ordering:
            return self._upstream
        merged = dict(self._upstream)
        for pipe_id, earlier in self.ordering.items():
            merged[pipe_id] = (*merged[pipe_id], earlier)
        return merged

    @cached_property
    def _downstream(self) -> Mapping[str, Sequence[str]]:
        return flip(self._upstream)

    def upstream(self, pipe_id: str) -> tuple[str, ...]:
        """The pipes that write what this one reads."""
        return self._upstream[self.node(pipe_id).pipe_id]

    def downstream(self, pipe_id: str) -> tuple[str, ...]:
        """The pipes that read what this one writes, in declaration order."""
        return tuple(self._downstream[self.node(pipe_id).pipe_id])

    def ancestors(self, pipe_id: str) -> tuple[str, ...]:
        """All pipes whose data reaches this one, directly or not, in declaration order."""
        return self._reachable(self.upstream(pipe_id), self._upstream)

    def descendants(self, pipe_id: str) -> tuple[str, ...]:
        """All pipes this one's data reaches, directly or not, in declaration order."""
        return self._reachable(self.downstream(pipe_id), self._downstream)

    def _reachable(self, start: Iterable[str], links: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        found: set[str] = set()
        queue = deque(start)
        while queue:
            pipe_id = queue.popleft()
            if pipe_id not in found:
                found.add(pipe_id)
                queue.extend(links[pipe_id])
        return tuple(pipe_id for pipe_id in self.by_id if pipe_id in found)

    @property
    def roots(self) -> tuple[str, ...]:
        """Pipes that read nothing another pipe of the graph writes."""
        return tuple(pipe_id for pipe_id, above in self._upstream.items() if not above)

    @property
    def leaves(self) -> tuple[str, ...]:
        """Pipes whose output no other pipe of the graph reads."""
        return tuple(pipe_id for pipe_id, below in self._downstream.items() if not below)

    def writers_of(self, entity_id: str) -> tuple[str, ...]:
        """The pipes that write an entity, in declaration order."""
        return self._writers.get(entity_id, ())

    def readers_of(self, entity_id: str) -> tuple[str, ...]:
        """The pipes that read an entity, also through a companion or SQL, in declaration order."""
        return self._readers.get(entity_id, ())

    @cached_property
    def _readers(self) -> Mapping[str, tuple[str, ...]]:
        readers: dict[str, list[str]] = {}
        for node in self.nodes:
            for entity_id in dict.fromkeys((*node.reads, *node.sources)):
                readers.setdefault(entity_id, []).append(node.pipe_id)
        return {entity_id: tuple(pipe_ids) for entity_id, pipe_ids in readers.items()}

    @cached_property
    def external_inputs(self) -> Mapping[str, tuple[str, ...]]:
        """Entities that are read but that no pipe of the graph writes → their readers."""
        sources = dict.fromkeys(source for node in self.nodes for source in node.sources)
        return {source: self._readers[source] for source in sources if source not in self._writers}

    @cached_property
    def edges(self) -> tuple[PipeEdge, ...]:
        """All edges, by the declaration order of the reader, then of its inputs."""
        edges: list[PipeEdge] = []
        for node in self.nodes:
            carried: dict[str, list[str]] = {above: [] for above in self._upstream[node.pipe_id]}
            for input_id, sources in node.reads.items():
                for writer in dict.fromkeys(w for s in sources for w in self.writers_of(s)):
                    if writer in carried:
                        carried[writer].append(input_id)
            edges += [PipeEdge(above, node.pipe_id, tuple(entities)) for above, entities in carried.items()]
            if node.pipe_id in self.ordering:
                earlier = self.ordering[node.pipe_id]
                edges.append(PipeEdge(earlier, node.pipe_id, (node.output,), ordering=True))
        return tuple(edges)

    def subgraph(self, pipe_ids: Iterable[str]) -> PipeGraph:
        """The graph of some of the pipes, as if only they had been declared.

        Raises:
            PlanError: A pipe is not in the graph.
        """
        wanted = set(pipe_ids)
        unknown = sorted(wanted - self._upstream.keys())
        if unknown:
            raise PlanError(*unknown_pipes_message(unknown, self._upstream))
        return PipeGraph(tuple(pipe for pipe in self.pipes if pipe.id in wanted), self.indirect)

    @cached_property
    def _layers(self) -> tuple[tuple[str, ...], ...]:
        return layers(self.predecessors)

    @property
    def acyclic(self) -> bool:
        """Whether all pipes can be brought into an order."""
        return sum(map(len, self._layers)) == len(self.pipes)

    @property
    def generations(self) -> tuple[tuple[str, ...], ...]:
        """Pipes by generation: each depends only on earlier ones, and comes as early as it can.

        Within a generation pipes are in declaration order.

        Raises:
            CycleError: There is no order.
        """
        if not self.acyclic:
            raise self.cycle_error()
        return self._layers

    def cycle_error(self) -> CycleError:
        """The error that shows every cycle of a graph that has some."""
        carried = {(edge.from_pipe, edge.to_pipe): edge.entities for edge in self.edges if not edge.ordering}
        return cycle_error(self._upstream, carried)

    def to_text(self) -> str:
        """The graph as a table for people."""
        return render.graph_text(self)

    def to_mermaid(self, groups: Mapping[str, str] | None = None) -> str:
        """The graph as a Mermaid flowchart; ``groups`` frames pipes (``render.by_generation``, ``by_layer``)."""
        return render.mermaid(render.draw_graph(self, groups))

    def to_dot(self, groups: Mapping[str, str] | None = None) -> str:
        """The graph as a Graphviz digraph; ``groups`` as for ``to_mermaid``."""
        return render.dot(render.draw_graph(self, groups))

    def to_json(self) -> str:
        """Nodes, edges and external inputs as indented JSON."""
        return json.dumps(render.graph_data(self), indent=1)


class PipeGraphBuilder:
    """Builds the graph of an app's pipes from its manifest.

    Args:
        manifest: What the app declares.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        entities = manifest.entities_by_id
        # Only the few entities that are a view of others are listed; all else is its own source.
        self._indirect = {
            entity.id: _sources_of(entity, entities)
            for entity in manifest.entities
            if entity.companion_of or entity.sql_inputs
        }

    def build_graph(self, pipe_ids: Iterable[str] | None = None, *, allow_cycles: bool = False) -> PipeGraph:
        """The graph of these pipes alone.

        Args:
            pipe_ids: Which pipes, in any order; all of the manifest when left out.
            allow_cycles: Give a graph with cycles as it is (to draw it) instead of raising.

        Raises:
            PlanError: A pipe is not declared.
            CycleError: Pipes depend on each other in a circle; the message shows every cycle.
        """
        known = self._manifest.pipes_by_id
        pipes: Iterable[PipeSpec] = known.values()
        if pipe_ids is not None:
            wanted = set(pipe_ids)
            unknown = sorted(wanted - known.keys())
            if unknown:
                raise PlanError(*unknown_pipes_message(unknown, known))
            pipes = [pipe for pipe in pipes if pipe.id in wanted]
        graph = PipeGraph(tuple(pipes), self._indirect)
        if not allow_cycles and not graph.acyclic:
            raise graph.cycle_error()
        return graph

    @staticmethod
    def detect_cycles(graph: PipeGraph, limit: int = CYCLE_LIMIT) -> list[list[str]]:
        """All elementary cycles of a graph, at most ``limit`` of them.

        A cycle starts at its earliest declared pipe, which is not repeated at the end. Short cycles
        come first, and equally long ones in declaration order.
        """
        if graph.acyclic:
            return []
        return elementary_cycles(graph._upstream, limit)

    @staticmethod
    def get_generations(graph: PipeGraph) -> list[list[str]]:
        """Pipes by generation, as ``PipeGraph.generations``; raises CycleError as it does."""
        return [list(generation) for generation in graph.generations]


class TopologicalSorter:
    """Gives pipes in an order that respects their dependencies, all at once or as they become ready.

    ``prepare``, ``get_ready`` and ``done`` work as in the standard library's ``graphlib``; what becomes
    ready at the same time comes in the order of the graph.

    Args:
        graph: A graph, or a mapping from each pipe to the pipes before it.
        reverse: Consumers before producers (sinks → sources).

    Example:
        >>> sorter = TopologicalSorter({"a": (), "b": ("a",), "c": ("a",)})
        >>> sorter.static_order()
        ('a', 'b', 'c')
    """

    def __init__(self, graph: PipeGraph | Mapping[str, Sequence[str]], *, reverse: bool = False) -> None:
        forward = graph.predecessors if isinstance(graph, PipeGraph) else graph
        self._graph = graph
        self._predecessors = flip(forward) if reverse else forward
        self._position = {pipe_id: index for index, pipe_id in enumerate(forward)}
        self._sorter = graphlib.TopologicalSorter(self._predecessors)

    def static_order(self) -> tuple[str, ...]:
        """All pipes, generation by generation; raises CycleError where there is no order."""
        self._check()
        return tuple(pipe_id for layer in layers(self._predecessors) for pipe_id in layer)

    def prepare(self) -> None:
        """Get ready to give pipes; raises CycleError where there is no order."""
        self._check()
        self._sorter.prepare()

    def get_ready(self) -> tuple[str, ...]:
        """The pipes whose predecessors are all done and that were not given before."""
        return tuple(sorted(self._sorter.get_ready(), key=self._position.__getitem__))

    def done(self, *pipe_ids: str) -> None:
        """Mark pipes that ``get_ready`` gave as done."""
        self._sorter.done(*pipe_ids)

    def is_active(self) -> bool:
        """Whether pipes are left that were not given, or not done."""
        return self._sorter.is_active()

    def __bool__(self) -> bool:
        return self.is_active()

    def _check(self) -> None:
        if sum(map(len, layers(self._predecessors))) == len(self._predecessors):
            return
        if isinstance(self._graph, PipeGraph):
            raise self._graph.cycle_error()
        cycles = elementary_cycles(self._predecessors)
        shown = "; ".join(" → ".join([*cycle, cycle[0]]) for cycle in cycles)
        raise CycleError(f"Pipes wait for each other in a circle: {shown}.", cycles)


def unknown_pipes_message(unknown: Sequence[str], known: Iterable[str]) -> tuple[str, str]:
    """Message and suggestion for pipe ids that do not exist, with the ids that look like them."""
    ids = list(known)
    named = []
    for pipe_id in unknown:
        close = difflib.get_close_matches(pipe_id, ids, n=3)
        named.append(f"{pipe_id!r}" + (f" (did you mean {' or '.join(close)}?)" if close else ""))
    message = f"No such pipe{'s' if len(named) > 1 else ''}: {', '.join(named)}."
    return message, "See the declared pipes with `kindling-dagster plan`."


def _sources_of(entity: EntitySpec, entities: Mapping[str, EntitySpec]) -> tuple[str, ...]:
    """What a read of an entity comes down to, through companions and SQL, however deep."""
    sources: dict[str, None] = {}
    seen: set[str] = set()
    stack = [entity.id]
    while stack:
        entity_id = stack.pop()
        if entity_id in seen:
            continue
        seen.add(entity_id)
        current = entities.get(entity_id)
        behind: tuple[str, ...] = ()
        if current is not None:
            behind = (current.companion_of,) if current.companion_of else current.sql_inputs
        if behind:
            stack.extend(reversed(behind))
        else:
            sources[entity_id] = None
    return tuple(sources)
