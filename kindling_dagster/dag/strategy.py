"""Execution strategies: in which order the pipes of a graph run, or are started."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator

from kindling_dagster.dag.graph import PipeGraph
from kindling_dagster.dag.plan import CheckpointDependency, ExecutionPlan


class ExecutionStrategy(ABC):
    """Turns a graph into a plan.

    A strategy of one's own says what each pipe waits for and leaves the rest to
    ``ExecutionPlan.arrange``:

    Example:
        >>> class OneByOne(ExecutionStrategy):
        ...     name = "one_by_one"
        ...
        ...     def plan(self, graph: PipeGraph) -> ExecutionPlan:
        ...         order = TopologicalSorter(graph).static_order()
        ...         waits = {pipe: (before,) for before, pipe in pairwise(order)}
        ...         return ExecutionPlan.arrange(self.name, graph, waits)
    """

    name: str = "custom"
    """Stands in plans, signals and messages."""

    @abstractmethod
    def plan(self, graph: PipeGraph) -> ExecutionPlan:
        """The plan for all pipes of a graph that has no cycles.

        Raises:
            CycleError: The graph has cycles.
            PlanError: This strategy cannot order these pipes.
        """


class BatchExecutionStrategy(ExecutionStrategy):
    """Sources first: each pipe runs once, after all that write what it reads."""

    name = "batch"

    def plan(self, graph: PipeGraph) -> ExecutionPlan:
        """A plan that runs every pipe once, also those declared as streams (with a warning)."""
        _refuse_cycles(graph)
        return ExecutionPlan.arrange(
            self.name,
            graph,
            graph.predecessors,
            ordering={pipe_id: (earlier,) for pipe_id, earlier in graph.ordering.items()},
            warnings=[
                f"{node.pipe_id} is declared as a stream; here it runs once, as a batch."
                for node in graph.nodes
                if node.streaming
            ],
        )


class StreamingExecutionStrategy(ExecutionStrategy):
    """Sinks first: each pipe is started as a stream once its consumers are up."""

    name = "streaming"

    def plan(self, graph: PipeGraph) -> ExecutionPlan:
        """A plan that starts every pipe as a stream, also those not declared as one (with a warning)."""
        _refuse_cycles(graph)
        streams = graph.pipe_ids
        return ExecutionPlan.arrange(
            self.name,
            graph,
            {pipe_id: graph.downstream(pipe_id) for pipe_id in streams},
            streams=streams,
            checkpoints=_checkpoints(graph, streams),
            warnings=[
                f"{node.pipe_id} is not declared as a stream; here it is started as one."
                for node in graph.nodes
                if not node.streaming
            ]
            + list(_shared_targets(graph, set(streams))),
        )


class HybridExecutionStrategy(ExecutionStrategy):
    """Streams and batch pipes in one plan, each pipe as it is declared.

    - A batch pipe waits for the batch pipes that write what it reads, and for no stream: it reads what
      streams have committed by then.
    - A stream waits for the batch pipes that write what it reads (a stream would join its first rows
      with dimensions of yesterday, and never look at them again), and for the streams that read what
      it writes: consumers start first.
    """

    name = "hybrid"

    def plan(self, graph: PipeGraph) -> ExecutionPlan:
        """A plan that starts the pipes tagged ``processing_mode: streaming`` and runs the others once."""
        _refuse_cycles(graph)
        streams = {node.pipe_id for node in graph.nodes if node.streaming}
        waits: dict[str, list[str]] = {}
        for pipe_id in graph.pipe_ids:
            waits[pipe_id] = [above for above in graph.upstream(pipe_id) if above not in streams]
            if pipe_id in streams:
                waits[pipe_id] += [below for below in graph.downstream(pipe_id) if below in streams]
        ordering = {pipe_id: (earlier,) for pipe_id, earlier in _batch_order(graph, streams)}
        for pipe_id, earlier in ordering.items():
            waits[pipe_id].extend(earlier)
        return ExecutionPlan.arrange(
            self.name,
            graph,
            waits,
            ordering=ordering,
            streams=[pipe_id for pipe_id in graph.pipe_ids if pipe_id in streams],
            checkpoints=_checkpoints(graph, streams),
            warnings=_shared_targets(graph, streams),
        )


def strategy_for(graph: PipeGraph) -> ExecutionStrategy:
    """The strategy that fits the pipes: batch, streaming, or hybrid where there are both."""
    streaming = sum(node.streaming for node in graph.nodes)
    if not streaming:
        return BatchExecutionStrategy()
    return StreamingExecutionStrategy() if streaming == len(graph) else HybridExecutionStrategy()


def _refuse_cycles(graph: PipeGraph) -> None:
    if not graph.acyclic:
        raise graph.cycle_error()


def _batch_order(graph: PipeGraph, streams: Collection[str]) -> Iterator[tuple[str, str]]:
    """The ordering edges among batch pipes, as if there were no streams between them."""
    batch = graph.subgraph(pipe_id for pipe_id in graph.pipe_ids if pipe_id not in streams)
    yield from batch.ordering.items()


def _checkpoints(graph: PipeGraph, streams: Collection[str]) -> Iterator[CheckpointDependency]:
    """Where a stream reads as a stream what another one writes; static inputs leave no position."""
    for node in graph.nodes:
        if node.pipe_id not in streams:
            continue
        for entity_id in node.pipe.driving_entity_ids:
            for source in node.reads.get(entity_id, ()):
                for writer in graph.writers_of(source):
                    if writer in streams and writer != node.pipe_id:
                        yield CheckpointDependency(writer, node.pipe_id, entity_id)


def _shared_targets(graph: PipeGraph, streams: Collection[str]) -> Iterator[str]:
    """A warning for each entity that a stream writes while another pipe does."""
    for entity_id in dict.fromkeys(node.output for node in graph.nodes):
        writers = graph.writers_of(entity_id)
        if len(writers) > 1 and any(writer in streams for writer in writers):
            yield (
                f"{entity_id} is written by {' and '.join(writers)} at the same time; "
                "merges that touch the same rows can conflict."
            )
