"""Sharing frames: an entity that several pipes of one execution read is read once and kept until the last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from kindling.signaling import SignalProvider

from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.manifest import Manifest
from kindling_dagster.narrowing import AFTER_READ
from kindling_dagster.signals.dispatch import SignalDispatcher
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.payloads import CachePayload
from kindling_dagster.signals.settings import SignalSettings

DEFAULT_LEVEL = "MEMORY_AND_DISK"


class PlannedPipes(Protocol):
    """What the cache reads of a plan."""

    @property
    def pipe_ids(self) -> tuple[str, ...]:
        """All pipes of the execution."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Those of them that are started as streams."""


@dataclass(frozen=True)
class CacheRecommendation:
    """An entity that is worth caching: who reads it, and its size in bytes where known."""

    entity_id: str
    readers: tuple[str, ...]
    estimated_bytes: int | None = None


@dataclass
class _Shared:
    """One shared entity while the execution goes on."""

    recommendation: CacheRecommendation
    wanted: bool
    waiting: set[str]
    frame: Any = None
    hits: int = 0
    misses: int = 0
    released: bool = field(default=False)


def recommend(
    manifest: Manifest, plan: PlannedPipes, size_of: Callable[[str], int | None] | None = None
) -> list[CacheRecommendation]:
    """Entities that several pipes of a plan read and that are the same for all of them.

    One that a pipe of the plan both reads and writes is left out: before and after are not the same. That
    counts through current-row companions and SQL, too. So is one that a stream of the plan reads or writes: a cached frame is not read anew with each batch,
    and Spark would use it in the stream's own plan too. Memory entities are left out because they are
    frames of the session already.

    Args:
        manifest: What the app declares.
        plan: The pipes of the execution.
        size_of: Bytes of an entity's table, None where not known.
    """

    graph = PipeGraphBuilder(manifest).build_graph(plan.pipe_ids, allow_cycles=True)
    readers: dict[str, list[str]] = {}
    sources: dict[str, tuple[str, ...]] = {}
    changing: set[str] = set()
    streams = set(plan.streams)
    for pipe_id in plan.pipe_ids:
        node = graph.node(pipe_id)
        sources.update(node.reads)
        if pipe_id in streams:
            changing |= {node.output, *node.sources}
        else:
            changing |= {node.output} & set(node.sources)
        for entity_id in node.reads:
            readers.setdefault(entity_id, []).append(pipe_id)
    recommended = []
    for entity_id, pipes in readers.items():
        entity = manifest.entities_by_id.get(entity_id)
        if (
            len(pipes) < 2
            or not changing.isdisjoint(sources[entity_id])
            or (entity is not None and entity.provider == "memory")
        ):
            continue
        size = size_of(entity_id) if size_of is not None else None
        recommended.append(CacheRecommendation(entity_id, tuple(pipes), size))
    return recommended


class EntityCache(AsyncSignalEmitter):
    """Recommends what to share and, on request, shares it through Kindling's ``read.after_read``.

    That signal lets a receiver give another frame than the one that was read; this one gives the
    frame it has persisted. Reads by watermark are never shared: each pipe sees its own slice. Nor is a
    frame that another receiver has changed: it counts as a miss.

    Args:
        manifest: What the app declares.
        signals: Kindling's signals, to listen to and to emit on.
        auto_cache: Share; otherwise only recommend.
        level: Spark's storage level by name.
        max_bytes: Larger entities, and those of unknown size, are not shared; None for no limit.
        size_of: Bytes of an entity's table, None where not known.
        run_id: Named in the signals.
        dispatcher: Delivers asynchronous signals; shared with the execution.
    """

    EMITS: ClassVar[list[str]] = [
        "orchestrator.cache_recommended",
        "orchestrator.cache_hit",
        "orchestrator.cache_miss",
        "orchestrator.cache_released",
    ]

    def __init__(
        self,
        manifest: Manifest,
        signals: SignalProvider | None,
        *,
        auto_cache: bool = False,
        level: str = DEFAULT_LEVEL,
        max_bytes: int | None = None,
        size_of: Callable[[str], int | None] | None = None,
        run_id: str = "",
        dispatcher: SignalDispatcher | None = None,
    ) -> None:
        self._init_signal_emitter(signals, SignalSettings.from_config(manifest.settings), dispatcher)
        self._manifest = manifest
        self._signals = signals
        self._auto = auto_cache
        self._level = level
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._run_id = run_id
        self._lock = threading.Lock()
        self._shared: dict[str, _Shared] = {}

    def begin(self, plan: PlannedPipes) -> None:
        """Recommend for a plan that is about to run, and start sharing if that is wanted."""
        for found in recommend(self._manifest, plan, self._size_of):
            wanted = self._auto and self._fits(found.estimated_bytes)
            self._shared[found.entity_id] = _Shared(found, wanted, set(found.readers))
            self.emit_payload(
                CachePayload(
                    signal="orchestrator.cache_recommended",
                    run_id=self._run_id,
                    entity_id=found.entity_id,
                    consumer_pipes=list(found.readers),
                    cache_level=self._level,
                    auto_cache=wanted,
                    estimated_bytes=found.estimated_bytes,
                )
            )
        if self._signals is not None and any(shared.wanted for shared in self._shared.values()):
            self._signals.create_signal(AFTER_READ).connect(self._after_read, weak=False)

    def _fits(self, size: int | None) -> bool:
        return self._max_bytes is None or (size is not None and size <= self._max_bytes)

    def _after_read(self, sender: Any, **payload: Any) -> Any:  # noqa: ARG002
        """Receiver: the shared frame in place of the one that was read; None leaves it as it is."""
        shared = self._shared.get(str(payload.get("entity_id")))
        if shared is None or not shared.wanted or payload.get("used_watermark"):
            return None
        read = payload["df"]
        with self._lock:
            if shared.released:
                return None
            first = shared.frame is None
            if first:
                from pyspark import StorageLevel

                # Lazy: whichever pipe comes to it first computes it.
                shared.frame = read.persist(getattr(StorageLevel, self._level))
            # Receivers come in no certain order: one of the app's may have changed this pipe's frame already.
            same = first or read.sameSemantics(shared.frame)
            shared.misses += first or not same
            shared.hits += same and not first
            frame = shared.frame if same else None
        self._tell_use(shared, hit=same and not first, shared_now=first)
        return frame

    def _tell_use(self, shared: _Shared, *, hit: bool, shared_now: bool) -> None:
        entity_id = shared.recommendation.entity_id
        if hit:
            payload = CachePayload(
                signal="orchestrator.cache_hit",
                run_id=self._run_id,
                entity_id=entity_id,
                hit_count=shared.hits,
            )
        else:
            payload = CachePayload(
                signal="orchestrator.cache_miss",
                run_id=self._run_id,
                entity_id=entity_id,
                miss_count=shared.misses,
                cache_level=self._level,
                auto_cached=shared_now,
            )
        self.emit_payload(payload)

    def done(self, pipe_id: str) -> None:
        """A pipe has ended, in whatever way: release what it was the last to wait for."""
        for shared in self._shared.values():
            if pipe_id in shared.waiting:
                shared.waiting.discard(pipe_id)
                if not shared.waiting:
                    self._release(shared)

    def end(self) -> None:
        """The execution is over: stop listening and release everything."""
        if self._signals is not None:
            self._signals.create_signal(AFTER_READ).disconnect(self._after_read)
        for shared in self._shared.values():
            self._release(shared)

    def _release(self, shared: _Shared) -> None:
        with self._lock:
            shared.released = True
            frame, shared.frame = shared.frame, None
        if frame is None:
            return
        frame.unpersist()
        self.emit_payload(
            CachePayload(
                signal="orchestrator.cache_released",
                run_id=self._run_id,
                entity_id=shared.recommendation.entity_id,
                hit_count=shared.hits,
                miss_count=shared.misses,
            )
        )

    def metrics(self) -> Mapping[str, Mapping[str, int]]:
        """Hits and misses by entity, of those that were shared."""
        return {
            entity_id: {"hits": shared.hits, "misses": shared.misses}
            for entity_id, shared in self._shared.items()
            if shared.wanted
        }
