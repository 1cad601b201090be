"""Starts one stream through Kindling's PipeStreamStarter, and adds what a supervised stream needs.

Kindling decides how a stream reads, merges and appends. Kindling 0.14 has no way to name a query that appends, to
give it a trigger, or to tell a replayed micro-batch from a new one, so the provider that writes is wrapped
for the length of one start: a copy of Kindling's starter gets a registry that hands out a copy of the
provider with two methods in front of its own. Kindling's own objects stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from kindling_dagster.errors import RunError
from kindling_dagster.jvm import activate_session, qualified_path, read_text
from kindling_dagster.streaming import checkpoints
from kindling_dagster.streaming.conflicts import write_through_conflicts
from kindling_dagster.streaming.fencing import LeaseFence
from kindling_dagster.streaming.model import StreamingQueryConfig
from kindling_dagster.streaming.store import StreamStore

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from kindling_dagster.runtime import KindlingRuntime

# Delta's settings by which a table remembers the last batch of each writer, also for merges.
_TXN_APP: Final = "spark.databricks.delta.write.txnAppId"
_TXN_VERSION: Final = "spark.databricks.delta.write.txnVersion"
# Under which Spark keeps a query's lasting id on the thread that runs its batches.
_QUERY_ID_PROPERTY: Final = "sql.streaming.queryId"
# A batch that keeps being second is a failure of the stream: recovery waits longer, and says so.
_WRITE_ATTEMPTS: Final = 5
_CHECKPOINT_SETTING: Final = "kindling.storage.checkpoint_root"


class OutputMissingError(RunError):
    """The table a stream has written is gone, or its storage cannot be reached."""


class StreamStarter:
    """Starts a project's streams, each in a scheduler pool of its own. Safe to call from several threads.

    Args:
        runtime: The app, started in ``spark``.
        spark: The session.
        store: Where it is remembered which checkpoint belongs to which stream.
        fence: Ends this host's right to write.
    """

    def __init__(
        self, runtime: KindlingRuntime, spark: SparkSession, store: StreamStore, fence: LeaseFence
    ) -> None:
        self._runtime = runtime
        self._spark = spark
        self._store = store
        self._fence = fence

    def builder(self, stream_id: str, config: StreamingQueryConfig) -> Callable[[], Any]:
        """What starts the stream and gives its query; see ``start``."""
        return lambda: self.start(stream_id, config)

    def start(self, stream_id: str, config: StreamingQueryConfig) -> Any:
        """Start the stream; gives Spark's StreamingQuery.

        Raises:
            CheckpointError: Its checkpoint is gone, damaged, or another query's.
            OutputMissingError: It has a checkpoint, but the table it has written is not there.
            RunError: No checkpoint root is set.
            Exception: Whatever Kindling, the pipe or Spark raises.
        """
        from kindling.injection import get_kindling_service
        from kindling.pipe_streaming import PipeStreamStarter

        self._fence.check(stream_id)
        activate_session(self._spark)
        # Kept on this thread for the query's own: within one pool jobs of several streams would queue.
        self._spark.sparkContext.setLocalProperty("spark.scheduler.pool", f"stream {stream_id}")
        root = self._checkpoint_root(stream_id, config)
        path = f"{root}/{stream_id}"
        if self._goes_on(stream_id, path):
            self._require_output(stream_id)
        else:
            self._ensure_sources(stream_id)
        options = {**config.options, "base_checkpoint_path": root, **_query_options(stream_id, config)}
        starter = _with_wrapped_providers(
            get_kindling_service(PipeStreamStarter), stream_id, options, self._fence
        )
        # A query keeps the session's settings as they are now, and so what its commits say of their writer.
        with self._runtime.lineage.writing(stream_id):
            query = starter.start_pipe_stream(stream_id, options)
        self._remember(stream_id, query, path)
        return query

    def _remember(self, stream_id: str, query: Any, path: str) -> None:
        """Note the query's checkpoint; where that cannot be, the start has failed, and no query may go on."""
        try:
            checkpoints.remember(self._store, stream_id, str(query.id), path)
        except Exception:
            query.stop()
            raise

    def _ensure_sources(self, stream_id: str) -> None:
        """Make the empty tables that the stream follows and another pipe writes, where their schema is declared.

        Consumers start before producers, so at the very first start nobody has made them.
        """
        from kindling.entity_provider import can_ensure_destination

        manifest = self._runtime.project.manifest
        pipe = manifest.pipes_by_id[stream_id]
        written = {other.output_entity_id for other in manifest.pipes if other.id != stream_id}
        for entity_id in pipe.driving_entity_ids:
            if entity_id not in written or entity_id == pipe.output_entity_id:
                continue
            entity = self._runtime.entities.get_entity_definition(entity_id)
            provider = self._runtime.providers.get_provider_for_entity(entity)
            if entity.schema and can_ensure_destination(provider):
                provider.ensure_destination(entity)

    def _checkpoint_root(self, stream_id: str, config: StreamingQueryConfig) -> str:
        root = config.checkpoint_root or self._runtime.config.get(_CHECKPOINT_SETTING)
        if not root:
            raise RunError(
                f"Stream {stream_id} has nowhere to keep its checkpoint.",
                f"Set {_CHECKPOINT_SETTING} in the app's settings.yaml.",
            )
        return qualified_path(self._spark, str(root))

    def _goes_on(self, stream_id: str, path: str) -> bool:
        """Whether the stream goes on from a checkpoint; refuses one that is not the stream's."""
        known = checkpoints.load(self._store, stream_id)
        text = read_text(self._spark, f"{path}/metadata")
        found = checkpoints.metadata_query_id(text, stream_id, path)
        checkpoints.check(stream_id, known, path, found)
        return bool(known.query_id)

    def _require_output(self, stream_id: str) -> None:
        """Refuse to go on into an empty Delta table that Kindling would make in place of one that is gone."""
        from kindling.entity_provider_delta import DeltaEntityProvider

        pipe = self._runtime.pipes.get_pipe_definition(stream_id)
        entity = self._runtime.entities.get_entity_definition(pipe.output_entity_id)
        provider = self._runtime.providers.get_provider_for_entity(entity)
        if isinstance(provider, DeltaEntityProvider) and not provider.check_entity_exists(entity):
            raise OutputMissingError(
                f"The table of {pipe.output_entity_id}, which stream {stream_id} has written, is not there.",
                "See whether its storage can be reached. If it was deleted on purpose, delete the stream's "
                f"checkpoint too, and accept that it starts over: {checkpoints.accept_command(stream_id)}.",
            )


def _query_options(stream_id: str, config: StreamingQueryConfig) -> dict[str, Any]:
    options: dict[str, Any] = {"query_name": config.query_name or stream_id}
    if config.trigger:
        options["trigger"] = dict(config.trigger)
    return options


def _with_wrapped_providers(
    starter: Any, stream_id: str, options: Mapping[str, Any], fence: LeaseFence
) -> Any:
    """Kindling's starter, writing through wrapped providers; an app's own kind of starter as it is."""
    registry = getattr(starter, "provider_registry", None)
    if registry is None:
        return starter
    wrapped = copy.copy(starter)
    wrapped.provider_registry = _Registry(registry, stream_id, options, fence)
    return wrapped


class _Registry:
    """Kindling's EntityProviderRegistry, whose providers write as this stream's."""

    def __init__(self, registry: Any, stream_id: str, options: Mapping[str, Any], fence: LeaseFence) -> None:
        self._registry = registry
        self._stream_id = stream_id
        self._options = options
        self._fence = fence

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    def get_provider_for_entity(self, entity: Any) -> Any:
        """A copy of the provider, so that what Kindling asks of its class still holds."""
        provider = self._registry.get_provider_for_entity(entity)
        wrapped = copy.copy(provider)
        if hasattr(provider, "append_as_stream"):
            wrapped.append_as_stream = self._append(provider.append_as_stream)
        if hasattr(provider, "merge_as_stream"):
            wrapped.merge_as_stream = self._merge(provider.merge_as_stream, _merges_once(provider))
        return wrapped

    def _append(self, append: Callable[..., Any]) -> Callable[..., Any]:
        def append_as_stream(*args: Any, **kwargs: Any) -> Any:
            writer = append(*args, **kwargs)
            # A provider may start the query itself; then there is nothing left to set.
            if hasattr(writer, "queryName"):
                writer = writer.queryName(self._options["query_name"])
                if "trigger" in self._options:
                    writer = writer.trigger(**self._options["trigger"])
            return writer

        return append_as_stream

    def _merge(self, merge: Callable[..., Any], once: bool) -> Callable[..., Any]:
        def merge_as_stream(df: Any, *args: Any, **kwargs: Any) -> Any:
            return merge(_guarded_frame(df, self._stream_id, self._fence, once), *args, **kwargs)

        return merge_as_stream


def _merges_once(provider: Any) -> bool:
    """Whether each micro-batch is exactly one statement on one Delta table, as in Kindling's own provider."""
    from kindling.entity_provider_delta import DeltaEntityProvider, DeltaMergeStrategies

    own = DeltaEntityProvider.__module__
    return type(provider).__module__ == own and all(
        type(DeltaMergeStrategies.get(name)).__module__ == own for name in ("scd1", "scd2", "insert_only")
    )


def _guarded_frame(frame: Any, stream_id: str, fence: LeaseFence, once: bool) -> Any:
    """The same frame, whose ``writeStream.foreachBatch`` asks the fence before each batch.

    Args:
        frame: A streaming frame.
        stream_id: The stream.
        fence: Asked before each batch is written.
        once: Also have the Delta table remember each batch, so that one that was committed is left out
            when it comes again: after a crash before its end was noted, or from a host that was frozen.
    """

    class GuardedFrame(type(frame)):  # type: ignore[misc]  # pyspark's class differs between versions
        @property
        def writeStream(self) -> Any:  # noqa: N802
            return _retyped(super().writeStream, guarded_writer)

    def guarded_writer(base: type) -> type:
        class GuardedWriter(base):  # type: ignore[misc]
            def foreachBatch(self, write: Callable[[Any, int], None]) -> Any:  # noqa: N802
                return super().foreachBatch(_guarded_batch(write, stream_id, fence, once))

        return GuardedWriter

    return _retyped(frame, lambda _: GuardedFrame)


def _retyped(original: Any, subclass: Callable[[type], type]) -> Any:
    """A shallow copy of an object, of a subclass of its class."""
    made: Any = object.__new__(subclass(type(original)))
    made.__dict__.update(original.__dict__)
    return made


def _guarded_batch(
    write: Callable[[Any, int], None], stream_id: str, fence: LeaseFence, once: bool
) -> Callable[[Any, int], None]:
    def guarded(batch: Any, batch_id: int) -> None:
        def checked() -> None:
            fence.check(stream_id)
            write(batch, batch_id)

        if not once:
            checked()
            return
        session = batch.sparkSession
        query_id = session.sparkContext.getLocalProperty(_QUERY_ID_PROPERTY)
        session.conf.set(_TXN_APP, f"kindling-dagster/{stream_id}/{query_id}")
        session.conf.set(_TXN_VERSION, str(batch_id))
        try:
            # Others may write the table too: maintenance, or rows that are written anew.
            write_through_conflicts(checked, stream_id, attempts=_WRITE_ATTEMPTS)
        finally:
            session.conf.unset(_TXN_APP)
            session.conf.unset(_TXN_VERSION)

    return guarded
