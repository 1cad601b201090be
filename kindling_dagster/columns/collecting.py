"""Column lineage of the batch pipes of a run: told by Kindling's signals what a pipe reads and writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from kindling_dagster.columns.spark_plan import AnalysedFrame
from kindling_dagster.columns.tracing import (
    Attribute,
    ColumnLineage,
    Node,
    Source,
    leaves_of,
    output_of_leaf,
    trace,
)
from kindling_dagster.manifest import Manifest

SETTING: Final = "kindling.dagster.column_lineage"
TAG: Final = "dagster/column_lineage"
_SECONDS: Final = 3.0
"""How long a pipe waits for its lineage: a plan of tens of thousands of nodes is written without it."""
_OFF: Final = ("false", "no", "off", "0")


@dataclass
class _Pipe:
    """What has been seen of a pipe that runs."""

    inputs: list[tuple[str, Any]] = field(default_factory=list)
    lineage: ColumnLineage | None = None
    seconds: float = 0.0


class ColumnLineageCollector:
    """Traces what pipes write, when they write it, without a job of its own.

    A pipe never fails for it: what keeps a frame from being traced stands in its place.

    Args:
        manifest: What the app declares; its setting and its pipes' tags switch it off.
        seconds: How long a pipe waits for its lineage.
    """

    def __init__(self, manifest: Manifest, seconds: float = _SECONDS) -> None:
        self._off = _is_off(manifest.settings.get(SETTING, True))
        self._off_for = {pipe.id for pipe in manifest.pipes if _is_off(pipe.tags.get(TAG, True))}
        self._seconds = seconds
        self._running: dict[str, _Pipe] = {}
        self._undo = ExitStack()

    def connect(self, signals: Any) -> None:
        """Listen to a Kindling SignalProvider."""
        if self._off:
            return
        for name, receive in (("read.after_read", self._read), ("persist.before_persist", self._write)):
            signal = signals.create_signal(name)
            signal.connect(receive, weak=False)
            self._undo.callback(partial(signal.disconnect, receive))

    def close(self) -> None:
        """Stop listening. Can be called twice."""
        self._undo.close()

    @contextmanager
    def watching(self, pipe_id: str) -> Iterator[None]:
        """Around one attempt of one pipe."""
        if not self._off and pipe_id not in self._off_for:
            self._running[pipe_id] = _Pipe()
        try:
            yield
        except BaseException:
            self._running.pop(pipe_id, None)
            raise

    def take(self, pipe_id: str) -> dict[str, Any]:
        """What was found of a pipe, as JSON for its metadata; nothing where it wrote nothing."""
        found = self._running.pop(pipe_id, None)
        if found is None or found.lineage is None:
            return {}
        return {"column_lineage": {**found.lineage.to_data(), "seconds": round(found.seconds, 4)}}

    # Receivers give None: frames stay as they are.

    def _read(
        self, _sender: Any, *, df: Any = None, pipe_id: str = "", entity_id: str = "", **_: Any
    ) -> None:
        pipe = self._running.get(pipe_id)
        if pipe is not None and df is not None:
            pipe.inputs.append((entity_id, df))

    def _write(self, _sender: Any, *, df: Any = None, pipe_id: str = "", **_: Any) -> None:
        pipe = self._running.get(pipe_id)
        if pipe is None or df is None:
            return
        started = time.monotonic()
        pipe.lineage = _in_time(partial(trace_frame, df, tuple(pipe.inputs)), df, self._seconds)
        pipe.seconds = time.monotonic() - started


def trace_frame(frame: Any, inputs: tuple[tuple[str, Any], ...]) -> ColumnLineage:
    """What a frame's columns are made of.

    Args:
        frame: The frame.
        inputs: The entities that were read for it, with their frames.

    Raises:
        Exception: Whatever the JVM says, or a plan that is written otherwise than it is known to be.
    """
    read = [(entity_id, AnalysedFrame(each)) for entity_id, each in inputs]
    sources: dict[int, Source] = {}
    for entity_id, each in read:
        for attribute in each.output():
            sources.setdefault(attribute.id, Source(entity_id, attribute.name))
    written = AnalysedFrame(frame)
    plan = written.tree()
    leaves: Mapping[int, str] = {}
    if any(_is_new(leaf, sources) for leaf in leaves_of(plan)):
        leaves = _reread(plan, written, read, sources)
    return trace(plan, written.output(), sources, leaves)


def _is_new(leaf: Node, sources: Mapping[int, Source]) -> bool:
    """Whether a leaf gives columns under ids that no input has: it is read anew, or is none of them."""
    output: list[Attribute] = output_of_leaf(leaf)
    return bool(output) and not any(attribute.id in sources for attribute in output)


def _reread(
    plan: Node, written: AnalysedFrame, read: list[tuple[str, AnalysedFrame]], sources: Mapping[int, Source]
) -> dict[int, str]:
    """Entities by index of leaf, for leaves that read what an input reads."""
    entities: dict[int, str] = {}
    for entity_id, each in read:
        for number in each.leaf_hashes():
            entities.setdefault(number, entity_id)
    hashes = written.leaf_hashes()
    return {
        index: entities[hashes[index]]
        for index, leaf in enumerate(leaves_of(plan))
        if _is_new(leaf, sources) and index < len(hashes) and hashes[index] in entities
    }


def _in_time(work: Callable[[], ColumnLineage], frame: Any, seconds: float) -> ColumnLineage:
    """The lineage, or for all columns why there is none."""
    done: list[ColumnLineage] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:  # told in its place; the write must go on
            failed.append(error)

    # A call into the JVM cannot be cut short, so that it is left behind where it takes too long.
    thread = threading.Thread(target=run, name="column lineage", daemon=True)
    thread.start()
    thread.join(seconds)
    if done:
        return done[0]
    if failed:
        reason = f"the plan cannot be read ({type(failed[0]).__name__}: {failed[0]})"[:300]
    else:
        reason = f"tracing it took longer than {seconds:g} s"
    return ColumnLineage(gaps=dict.fromkeys(frame.columns, reason))


def _is_off(value: object) -> bool:
    return str(value).strip().lower() in _OFF
