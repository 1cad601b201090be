"""What people, sensors and the command line ask of streams: commands into the store, views out of it. No Spark."""

from __future__ import annotations

import difflib
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

from kindling_dagster.dag.graph import PipeGraph, PipeGraphBuilder
from kindling_dagster.errors import SelectionError
from kindling_dagster.manifest import Manifest
from kindling_dagster.streaming.checkpoints import accept_reset
from kindling_dagster.streaming.model import Command, CommandAction, DeadLetter, HistoryEntry
from kindling_dagster.streaming.processes import process_gone
from kindling_dagster.streaming.views import Snapshot, StreamView

if TYPE_CHECKING:
    from kindling_dagster.streaming.store import StreamStore


def streaming_pipes(manifest: Manifest) -> tuple[str, ...]:
    """Ids of an app's streams, which are its pipes tagged ``processing_mode: streaming``, in declaration order."""
    return tuple(pipe.id for pipe in manifest.pipes if pipe.streaming)


@dataclass(frozen=True)
class StreamsClient:
    """An app's streams through their store.

    Streams are named by pipe id, by the id of the entity they write, or by a glob over either; no name
    at all means every stream of the app.

    Args:
        store: The project's part of the store.
        manifest: What the app declares.
        by: Who asks, for the history.
        clock: Gives Unix seconds.
    """

    store: StreamStore
    manifest: Manifest
    by: str = ""
    clock: Callable[[], float] = time.time

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """Ids of the app's streams, in declaration order."""
        return streaming_pipes(self.manifest)

    @cached_property
    def graph(self) -> PipeGraph:
        """Which stream reads what another one writes."""
        return PipeGraphBuilder(self.manifest).build_graph(self.streams, allow_cycles=True)

    def resolve(self, names: Iterable[str] = ()) -> tuple[str, ...]:
        """Ids of the streams that ``names`` mean, in declaration order.

        Raises:
            SelectionError: A name means no stream.
        """
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return self.streams
        found: set[str] = set()
        for name in wanted:
            exact = [name] if name in self.streams else []
            matches = exact or [id_ for id_ in self.streams if self._means(name, id_)]
            if not matches:
                raise SelectionError(
                    f"No stream of {self.manifest.app.name} is {name!r}.", self._close_to(name)
                )
            found.update(matches)
        return tuple(id_ for id_ in self.streams if id_ in found)

    def _means(self, name: str, stream_id: str) -> bool:
        output = self.manifest.pipes_by_id[stream_id].output_entity_id
        return fnmatchcase(stream_id, name) or fnmatchcase(output, name)

    def _close_to(self, name: str) -> str:
        if not self.streams:
            return "It declares none: tag a pipe processing_mode: streaming."
        close = difflib.get_close_matches(name, self.streams, n=3)
        return f"{'Close to it' if close else 'Its streams'}: {', '.join(close or self.streams)}."

    def start(
        self, names: Iterable[str] = (), *, reason: str = "", request: str = "", by: str = ""
    ) -> tuple[str, ...]:
        """Ask that streams run. Gives the ids of the streams.

        Args:
            names: Which; all when empty.
            reason: Why, for the history.
            request: Makes asking again with the same text the same request, obeyed once.
            by: Who asks; the client's own ``by`` when empty.

        Raises:
            SelectionError: A name means no stream.
            StoreError: The store cannot take it.
        """
        return self._submit("start", self.resolve(names), reason, request, by)

    def stop(
        self, names: Iterable[str] = (), *, reason: str = "", request: str = "", by: str = ""
    ) -> tuple[str, ...]:
        """Ask that streams end, after the batch they are in. As ``start``."""
        return self._submit("stop", self.resolve(names), reason, request, by)

    def restart(
        self,
        names: Iterable[str] = (),
        *,
        reason: str = "",
        cascade: bool = False,
        request: str = "",
        by: str = "",
    ) -> tuple[str, ...]:
        """Ask that streams end and start anew, from their checkpoints. As ``start``.

        A stream that is not wanted is wanted from then on; with ``cascade`` that goes for the named
        streams alone.

        Args:
            names: Which; all when empty.
            reason: Why, for the history.
            cascade: Also the wanted streams that read, directly or not, what these write.
            request: Makes asking again with the same text the same request, obeyed once.
            by: Who asks.
        """
        chosen = self.resolve(names)
        return self._submit("restart", self._cascade(chosen) if cascade else chosen, reason, request, by)

    def _cascade(self, chosen: Sequence[str]) -> tuple[str, ...]:
        wanted = {id_ for id_, desired in self.store.desired().items() if desired.running}
        below = {id_ for stream in chosen for id_ in self.graph.descendants(stream)}
        return tuple(id_ for id_ in self.streams if id_ in chosen or id_ in below & wanted)

    def revive(
        self,
        names: Iterable[str],
        *,
        reason: str = "",
        request: str = "",
        by: str = "",
        reset_checkpoint: bool = False,
    ) -> tuple[str, ...]:
        """Forget that streams are dead letters, with their failures so far, and start them. As ``start``.

        Args:
            names: As for ``start``.
            reason: As for ``start``.
            request: As for ``start``.
            by: As for ``start``.
            reset_checkpoint: Accept that those whose checkpoint is gone read their sources from the
                beginning; without it they are refused.
        """
        streams = self.resolve(names)
        if reset_checkpoint:
            for stream_id in streams:
                accept_reset(self.store, stream_id, by or self.by)
        return self._submit("revive", streams, reason, request, by)

    def _submit(
        self, action: CommandAction, streams: Sequence[str], reason: str, request: str, by: str
    ) -> tuple[str, ...]:
        asked = request or uuid.uuid4().hex
        at = self.clock()
        self.store.submit(
            [
                Command(f"{asked}:{action}:{stream_id}", action, stream_id, reason, by or self.by, at)
                for stream_id in streams
            ]
        )
        return tuple(streams)

    def snapshot(self) -> Snapshot:
        """All that the store says of the app's streams, at this moment.

        A host of this machine whose process has died counts as gone, although its lease has not ended.
        """
        host, now = self.store.host(), self.clock()
        if host is not None and host.alive(now) and process_gone(host):
            host = replace(host, expires_at=now)
        return Snapshot(
            streams=self.streams,
            desired=self.store.desired(),
            statuses=self.store.statuses(),
            dead_letters=self.store.dead_letters(),
            host=host,
            now=now,
        )

    def list(self) -> tuple[StreamView, ...]:
        """Every stream of the app as it is now, in declaration order."""
        return self.snapshot().views

    def status(self, name: str) -> StreamView:
        """One stream as it is now.

        Raises:
            SelectionError: The name means no stream, or several.
        """
        found = self.resolve([name])
        if len(found) > 1:
            raise SelectionError(f"{name!r} means {len(found)} streams: {', '.join(found)}.", "Name one.")
        return self.snapshot().view(found[0])

    def history(self, name: str | None = None, limit: int = 100) -> tuple[HistoryEntry, ...]:
        """What happened to one stream, or to all, newest first."""
        stream_id = None if name is None else self.status(name).stream_id
        return self.store.history(stream_id, limit)

    def dead_letters(self) -> dict[str, DeadLetter]:
        """The app's streams that are not started again until they are revived, by id."""
        return {id_: letter for id_, letter in self.store.dead_letters().items() if id_ in self.streams}
