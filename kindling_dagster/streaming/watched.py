"""What is watched: an app's dimensions, which streams depend on them, and how restarts are decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.delta_log import local_path
from kindling_dagster.errors import DeclarationError
from kindling_dagster.manifest import Manifest
from kindling_dagster.streaming.client import streaming_pipes
from kindling_dagster.streaming.dependencies import RestartPolicy, StreamDependencies
from kindling_dagster.streaming.dimensions.model import Dimension
from kindling_dagster.streaming.dimensions.registry import dimension_of
from kindling_dagster.streaming.restarts import RestartConfig, StreamOrder


@dataclass(frozen=True)
class DimensionPolicy:
    """How changes of dimensions are seen, and when they restart streams.

    Args:
        restart: ``auto`` restarts a stream where that helps, ``always`` for every change, ``never`` for none;
            tags of pipes come before it.
        restarts: How restarts are batched, in seconds.
        detection: Entity id → what counts as its change: the name of a method, or a callable whose answer is
            compared (anything that fits into JSON); comes before the entity's tag ``dagster/change_detection``.
        interval: Seconds between two looks, at least.

    Example:
        >>> DimensionPolicy(restarts=RestartConfig(delay=10), detection={"ref.rates": "hash"}).interval
        30
    """

    restart: RestartPolicy = "auto"
    restarts: RestartConfig = field(default_factory=RestartConfig)
    detection: Mapping[str, str | Callable[[], Any]] = field(default_factory=dict)
    interval: int = 30


class WatchedDimensions:
    """The dimensions that an app's streams depend on.

    Args:
        manifest: What the app declares.
        policy: How they are watched.
        working_dir: Where relative locations count from.

    Raises:
        DeclarationError: A tag or the policy names an entity that the app does not declare.
        SelectionError: A tag or the policy names a method or a policy that there is not.
    """

    def __init__(
        self, manifest: Manifest, policy: DimensionPolicy | None = None, working_dir: Path | None = None
    ) -> None:
        self.manifest = manifest
        self.policy = policy or DimensionPolicy()
        self.dependencies = StreamDependencies(
            manifest, streaming_pipes(manifest), policy=self.policy.restart
        )
        self._working_dir = working_dir
        unknown = sorted(set(self.policy.detection).difference(manifest.entities_by_id))
        if unknown:
            raise DeclarationError(
                f"No such entity: {', '.join(unknown)} (detection of the DimensionPolicy).",
                "Name entities that the app declares.",
            )
        self.dimensions: Mapping[str, Dimension] = {
            id_: self._dimension(id_) for id_ in self.dependencies.dimension_ids
        }

    @cached_property
    def order(self) -> StreamOrder:
        """Which streams read what others write; in a circle none comes first, so none waits for another."""
        graph = PipeGraphBuilder(self.manifest).build_graph(allow_cycles=True)
        return StreamOrder.of(graph, self.dependencies.stream_ids) if graph.acyclic else StreamOrder()

    def with_storage(self, options: Mapping[str, str]) -> Mapping[str, Dimension]:
        """The dimensions, those that are not on this machine's disk with storage options as delta-rs takes them."""
        return {
            id_: item
            if not options or (isinstance(item.location, str) and local_path(item.location) is not None)
            else replace(item, storage_options=dict(options))
            for id_, item in self.dimensions.items()
        }

    def _dimension(self, entity_id: str) -> Dimension:
        entity = self.manifest.entities_by_id.get(entity_id)
        if entity is None:  # the look says that it has no path that is known
            return Dimension(entity_id, method="hash")
        asked = self.policy.detection.get(entity_id)
        method, custom = ("custom", asked) if callable(asked) else (asked, None)
        return dimension_of(entity, method, custom=custom, working_directory=self._working_dir or "")
