"""Lineage in a started app: columns through Kindling's own extensions, and a text on each Delta commit.

What is public in Kindling 0.14 does most: ``DataPipes.extend`` stamps what a pipe returns, in batch and in
streams alike; ``DataEntities.extend`` declares the columns and, for merges that update, names them in
``scd.untracked``, so that a row that differs in them alone is not rewritten.

One inner function is touched. An SCD2 merge brings untracked columns of an unchanged row up to date in
place, which would rewrite every row in every run. Kindling has a third class of columns for that, written
once with a row's first version, but only its surrogate keys belong to it: ``scd_change_columns`` is told
of lineage columns too.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from kindling_dagster.lineage.columns import lineage_column
from kindling_dagster.lineage.commits import (
    USER_METADATA_CONF,
    CommitLineage,
    commit_lineage,
    user_metadata,
)
from kindling_dagster.lineage.context import VersionedExecutionContext, lineage_type
from kindling_dagster.lineage.settings import LineageSettings, PipeLineage, lineage_pipes
from kindling_dagster.manifest import EntitySpec, Manifest
from kindling_dagster.signals.dispatch import SignalDispatcher
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.settings import SignalSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from kindling_dagster.runtime import KindlingRuntime

Execute = Callable[..., Any]
_UNTRACKED: Final = "scd.untracked"


class Lineage(AsyncSignalEmitter):
    """Version lineage of one started app.

    Args:
        runtime: The app, started.
        manifest: What it declares.
        spark: The session it writes in.
    """

    EMITS: ClassVar[list[str]] = ["datapipes.lineage_applied", "datapipes.version_changed"]

    def __init__(self, runtime: KindlingRuntime, manifest: Manifest, spark: SparkSession) -> None:
        self._runtime = runtime
        self._manifest = manifest
        self._spark = spark
        self._settings = LineageSettings.from_settings(manifest.settings)
        self.pipes: Mapping[str, PipeLineage] = lineage_pipes(manifest, self._settings)
        self.columns = tuple(lineage_column(layer) for layer in self._settings.layers)
        self._functions = _Functions(runtime, manifest)
        self.context = VersionedExecutionContext(self._functions, version=self._settings.version)
        self._writing: dict[str, CommitLineage] = {}
        # What the user's session puts on every commit is the user's.
        self._tells_commits = self._settings.user_metadata and not spark.conf.get(USER_METADATA_CONF, None)
        self._lock = threading.Lock()
        self._undo = ExitStack()

    def install(self) -> None:
        """Extend the app's pipes and entities; once per start of the app.

        Raises:
            ValueError: Kindling refuses an extension, such as a column of that name with another type.
        """
        if not self.pipes:
            return
        for pipe_id in self.pipes:
            # Now, for what Kindling extends is a function of Kindling's.
            self._functions.get(pipe_id)
        for entity_id in dict.fromkeys(pipe.entity_id for pipe in self.pipes.values()):
            self._extend_entity(self._manifest.entities_by_id[entity_id])
        for pipe in self.pipes.values():
            self._extend_pipe(pipe)
        for spec in self._manifest.pipes:
            stamped = self.pipes.get(spec.id)
            if stamped is None or not stamped.carries:
                self._hide_columns(spec.id)
        self._undo.enter_context(_insert_only(self.columns))

    def close(self) -> None:
        """Take back what reaches beyond the app. Can be called twice."""
        self._undo.close()

    def begin(self, run_id: str, dispatcher: SignalDispatcher | None = None) -> None:
        """Take up a run: its id stands in what is written from now on, its dispatcher delivers signals."""
        self.context.run_id = run_id
        self._init_signal_emitter(
            self._runtime.signals, SignalSettings.from_config(self._manifest.settings), dispatcher
        )

    @contextmanager
    def writing(self, pipe_id: str) -> Iterator[None]:
        """Within it, Delta commits of this session carry the pipe's lineage."""
        self._announce(self.of(pipe_id))
        try:
            yield
        finally:
            self._withdraw(pipe_id)

    def of(self, pipe_id: str) -> CommitLineage:
        """The lineage of what a pipe writes in this run."""
        found = self.context.version_of(pipe_id)
        entity_id = self._manifest.pipes_by_id[pipe_id].output_entity_id
        return CommitLineage(pipe_id, entity_id, found.package, found.version, self.context.run_id)

    def _announce(self, mine: CommitLineage) -> None:
        with self._lock:
            self._writing[mine.pipe] = mine
            self._set_text()

    def _withdraw(self, pipe_id: str) -> None:
        with self._lock:
            self._writing.pop(pipe_id, None)
            self._set_text()

    def _set_text(self) -> None:
        if not self._tells_commits:
            return
        text = user_metadata(self._writing.values())
        if text:
            self._spark.conf.set(USER_METADATA_CONF, text)
        else:
            self._spark.conf.unset(USER_METADATA_CONF)

    def tell(self, pipe_id: str, before: Iterable[str]) -> None:
        """Emit what a pipe has just committed, and whether another version wrote the table before.

        Args:
            pipe_id: The pipe.
            before: The ``userMetadata`` of the table's commits before this one, newest first.
        """
        mine = self.of(pipe_id)
        shared: dict[str, Any] = {
            "pipe_id": mine.pipe,
            "entity_id": mine.entity,
            "package_name": mine.package,
            "package_version": mine.version,
            "run_id": mine.run_id,
        }
        stamped = self.pipes.get(pipe_id)
        if stamped is not None:
            where = {"layer": stamped.layer, "column": stamped.column}
            self.emit("datapipes.lineage_applied", **shared, **where)
        others = (commit_lineage(text, mine.entity) for text in before)
        last = next((found for found in others if found is not None and found.pipe == pipe_id), None)
        if last is not None and last.version != mine.version:
            self.emit("datapipes.version_changed", **shared, previous_version=last.version)

    def _extend_entity(self, entity: EntitySpec) -> None:
        from kindling.data_entities import DataEntities
        from pyspark.sql.types import StructField

        columns = self._columns_of(entity.id)
        changes: dict[str, Any] = {}
        if entity.schema is not None:
            declared = {str(column["name"]) for column in entity.schema}
            changes["add_columns"] = [
                StructField(name, lineage_type()) for name in columns if name not in declared
            ]
        if _is_updated_by_merge(entity):
            stated = [name.strip() for name in entity.tags.get(_UNTRACKED, "").split(",") if name.strip()]
            changes["tags"] = {_UNTRACKED: ",".join(dict.fromkeys([*stated, *columns]))}
        if changes:
            DataEntities.extend(entity.id, **changes)

    def _columns_of(self, entity_id: str, seen: frozenset[str] = frozenset()) -> list[str]:
        """The lineage columns that can reach an entity: its writers', and those of what these carry on."""
        found: dict[str, None] = {}
        for pipe in self.pipes.values():
            if pipe.entity_id != entity_id or pipe.pipe_id in seen:
                continue
            if pipe.carries:
                for read in self._manifest.pipes_by_id[pipe.pipe_id].input_entity_ids:
                    base = self._manifest.entities_by_id.get(read)
                    source = base.companion_of if base is not None and base.companion_of else read
                    found.update(dict.fromkeys(self._columns_of(source, seen | {pipe.pipe_id})))
            found[pipe.column] = None
        return list(found)

    def _extend_pipe(self, pipe: PipeLineage) -> None:
        from kindling.data_pipes import DataPipes

        def stamp(frame: Any, **_: Any) -> Any:
            # A pipe may give None: nothing to write.
            if frame is None or not hasattr(frame, "withColumn"):
                return frame
            return self.context.add_lineage_column(frame, pipe.pipe_id, pipe.layer)

        DataPipes.extend(pipe.pipe_id, transform=stamp)

    def _hide_columns(self, pipe_id: str) -> None:
        """Keep lineage columns from a function that was written without them in mind."""
        definition = self._runtime.pipes.get_pipe_definition(pipe_id)
        if definition is not None:
            definition.execute = _without(definition.execute, self.columns)


def _without(execute: Execute, columns: tuple[str, ...]) -> Execute:
    def hide(frame: Any) -> Any:
        present = [name for name in columns if name in getattr(frame, "columns", ())]
        return frame.drop(*present) if present else frame

    @functools.wraps(execute)
    def on_hidden(*frames: Any, **named: Any) -> Any:
        return execute(*map(hide, frames), **{name: hide(frame) for name, frame in named.items()})

    return on_hidden


def _is_updated_by_merge(entity: EntitySpec) -> bool:
    """Whether Kindling merges into the entity and updates matched rows in place (SCD1)."""
    mode = entity.tags.get("write.mode", "").strip().lower()
    return bool(entity.merge_columns) and entity.kind == "state" and not entity.scd2 and mode in ("", "merge")


@contextmanager
def _insert_only(columns: tuple[str, ...]) -> Iterator[None]:
    """Make SCD2 merges of this process write these columns with a row's first version, and never again."""
    from kindling import entity_provider_delta as provider

    original = provider.scd_change_columns

    @functools.wraps(original)
    def with_lineage(cfg: Any, names: Any, *args: Any, insert_only_columns: Any = None, **kwargs: Any) -> Any:
        keys = list(insert_only_columns or ())
        if cfg.enabled:
            keys += [name for name in columns if name in names]
        return original(cfg, names, *args, insert_only_columns=keys, **kwargs)

    provider.scd_change_columns = with_lineage
    try:
        yield
    finally:
        provider.scd_change_columns = original


class _Functions(Mapping[str, tuple[str, Path | None]]):
    """Where each pipe's function is defined; a pipe is looked up when it is asked for, once."""

    def __init__(self, runtime: KindlingRuntime, manifest: Manifest) -> None:
        self._runtime = runtime
        self._manifest = manifest
        self._found: dict[str, tuple[str, Path | None]] = {}

    def __getitem__(self, pipe_id: str) -> tuple[str, Path | None]:
        if pipe_id not in self._found:
            pipe = self._manifest.pipes_by_id[pipe_id]
            definition = self._runtime.pipes.get_pipe_definition(pipe_id)
            if definition is None:
                raise KeyError(pipe_id)
            module = pipe.source.module if pipe.source else ""
            self._found[pipe_id] = _origin(definition.execute, module)
        return self._found[pipe_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._manifest.pipes_by_id)

    def __len__(self) -> int:
        return len(self._manifest.pipes_by_id)


def _origin(execute: Execute, declared_in: str) -> tuple[str, Path | None]:
    """Module and file of a pipe's function; those of its declaration for one that Kindling made (a view)."""
    import sys

    module = declared_in or str(getattr(execute, "__module__", "") or "")
    file = getattr(sys.modules.get(module), "__file__", None)
    return module, Path(file) if file else None
