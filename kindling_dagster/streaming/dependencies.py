"""Which stream depends on which dimension, how it reads it, and whether a change calls for a restart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from kindling_dagster.errors import DeclarationError, SelectionError
from kindling_dagster.manifest import EntitySpec, Manifest, PipeSpec
from kindling_dagster.streaming.dimensions.model import FILE_FORMATS, DimensionLook

RestartPolicy = Literal["auto", "always", "never"]
ReadKind = Literal["delta", "files", "view", "memory", "captured"]
"""How a running query sees a dimension:

- ``delta``: the table is read anew with every micro-batch;
- ``files``: the files were listed at the start, and the query fails once they are replaced;
- ``view``: a SQL view of tables that are not known;
- ``memory``: a table of the Spark session;
- ``captured``: values that the pipe's own code has read or cached.
"""

POLICIES: tuple[RestartPolicy, ...] = ("auto", "always", "never")
RESTART_ON_TAG = "dagster/restart_on"
"""Tag of a pipe: further dimensions, separated by commas, each with ``=policy`` if not ``auto``."""
NO_RESTART_ON_TAG = "dagster/no_restart_on"
"""Tag of a pipe: inputs that are no dimensions of this stream, separated by commas."""
RESTART_POLICY_TAG = "dagster/restart_policy"
"""Tag of a pipe: the policy of its dependencies that have none of their own."""

_WORDS = {"data": "its rows changed", "schema": "its columns changed", "replaced": "it is another table now"}
_WHY_RESTART: Mapping[ReadKind, str] = {
    "files": "a query that reads plain files fails or goes on with the old ones once they are replaced",
    "view": "which tables its SQL reads, and how, is not known",
    "memory": "a table of the Spark session is read as it was when the query started",
    "captured": "values that the pipe has read or cached itself stay as they were",
}
# From the most to the least in need of a restart: a dimension that is read in two ways counts by the first.
_NEED: tuple[ReadKind, ...] = ("captured", "files", "memory", "view", "delta")


class Decision(NamedTuple):
    """Whether to restart, and why, in words for people."""

    restart: bool
    reason: str


def decide(change: str | None, policy: RestartPolicy, read_kind: ReadKind) -> Decision:
    """Whether a change of a dimension calls for a restart of a stream that reads it.

    Args:
        change: ``data``, ``schema``, ``replaced``, or None for no change.
        policy: ``always`` restarts for every change, ``never`` for none, ``auto`` where it helps.
        read_kind: How the stream's query sees the dimension.

    Example:
        >>> decide("data", "auto", "delta").restart
        False
    """
    if change is None:
        return Decision(False, "nothing changed")
    what = _WORDS.get(change, f"it changed ({change})")
    if policy == "never":
        return Decision(False, f"{what}; its policy is never to restart for it")
    if policy == "always":
        return Decision(True, f"{what}; its policy is always to restart for it")
    if change == "schema":
        return Decision(True, f"{what}; a query sees other columns only after a restart")
    if change == "replaced":
        return Decision(True, f"{what}; a query stays with the table it was started on")
    if read_kind == "delta":
        return Decision(False, f"{what}; a Delta table is read anew with every micro-batch")
    return Decision(True, f"{what}; {_WHY_RESTART[read_kind]}")


@dataclass(frozen=True)
class StreamDependency:
    """A stream depends on a dimension.

    Args:
        stream_id: The stream.
        entity_id: The dimension: a table, never a companion or a view of one.
        read_kind: How the stream's query sees it.
        policy: When a change restarts the stream.
        inputs: The stream's declared inputs that lead to it; empty when it was only registered or tagged.
        declared_by: ``inputs``, ``tag`` or ``registration``.
    """

    stream_id: str
    entity_id: str
    read_kind: ReadKind = "delta"
    policy: RestartPolicy = "auto"
    inputs: tuple[str, ...] = ()
    declared_by: str = "inputs"


@dataclass(frozen=True)
class RestartDecision:
    """What a dimension's change means for one stream; kept and shown, also where nothing restarts."""

    stream_id: str
    entity_id: str
    change: str
    change_id: str
    restart: bool
    reason: str
    policy: RestartPolicy
    read_kind: ReadKind


class StreamDependencies:
    """The dimensions of an app's streams: derived from its declarations, changed by tags and registrations.

    A dimension is whatever a stream reads and is not driven by: its other inputs, through views, SQL
    entities and companions down to the tables behind them. A stream's own output is none.

    Args:
        manifest: What the app declares.
        stream_ids: Its streams; the pipes tagged ``processing_mode: streaming`` when None.
        policy: Of dependencies for which no tag says another.

    Raises:
        DeclarationError: A tag names an entity that the app does not declare.
        SelectionError: A tag names a policy that there is not, or ``stream_ids`` a pipe.

    Example:
        >>> dependencies = StreamDependencies(manifest)
        >>> dependencies.register_dependency("stream.enrich", ["ref.rates"], policy="always")
        >>> [dependency.entity_id for dependency in dependencies.of_stream("stream.enrich")]
        ['ref.planes', 'ref.rates']
    """

    def __init__(
        self,
        manifest: Manifest,
        stream_ids: Iterable[str] | None = None,
        policy: RestartPolicy = "auto",
    ) -> None:
        self._manifest = manifest
        known = manifest.pipes_by_id
        wanted = (
            [pipe.id for pipe in manifest.pipes if pipe.streaming] if stream_ids is None else list(stream_ids)
        )
        unknown = [stream_id for stream_id in wanted if stream_id not in known]
        if unknown:
            raise SelectionError(f"No such pipe: {', '.join(unknown)}.", "Name pipes that the app declares.")
        self._policy = policy
        self._found: dict[str, dict[str, StreamDependency]] = {
            stream_id: self._derive(known[stream_id]) for stream_id in wanted
        }

    @property
    def stream_ids(self) -> tuple[str, ...]:
        """The streams."""
        return tuple(self._found)

    @property
    def dimension_ids(self) -> tuple[str, ...]:
        """Every dimension of any stream, once."""
        return tuple(dict.fromkeys(id_ for found in self._found.values() for id_ in found))

    def of_stream(self, stream_id: str) -> tuple[StreamDependency, ...]:
        """What a stream depends on; empty for a pipe that is no stream."""
        return tuple(self._found.get(stream_id, {}).values())

    def of_dimension(self, entity_id: str) -> tuple[StreamDependency, ...]:
        """Which streams depend on a dimension."""
        return tuple(found[entity_id] for found in self._found.values() if entity_id in found)

    def register_dependency(
        self,
        stream_id: str,
        entity_ids: Sequence[str],
        policy: RestartPolicy | None = None,
        read_kind: ReadKind | None = None,
    ) -> None:
        """Add dimensions to a stream, or set how known ones are treated.

        Args:
            stream_id: The stream.
            entity_ids: The dimensions; a companion or SQL entity stands for the tables behind it.
            policy: None keeps what a known one has.
            read_kind: None keeps what a known one has; a new one is ``captured``, since it is no input.

        Raises:
            SelectionError: There is no such stream or policy.
            DeclarationError: The app declares no such entity.
        """
        if stream_id not in self._found:
            raise SelectionError(
                f"{stream_id!r} is not a stream of this app.", "Tag its pipe processing_mode: streaming."
            )
        self._add(
            self._found[stream_id], stream_id, entity_ids, policy, read_kind, declared_by="registration"
        )

    def remove_dependency(self, stream_id: str, entity_ids: Sequence[str]) -> None:
        """Take dimensions from a stream; those it does not have are passed over."""
        found = self._found.get(stream_id, {})
        for entity_id in self._tables(entity_ids, f"removed from {stream_id}"):
            found.pop(entity_id, None)

    def decide(self, look: DimensionLook) -> tuple[RestartDecision, ...]:
        """What a look at a dimension means for each stream that depends on it; nothing when nothing changed."""
        if look.change is None:
            return ()
        made = []
        for dependency in self.of_dimension(look.entity_id):
            restart, reason = decide(look.change, dependency.policy, dependency.read_kind)
            detail = f" ({look.reason})" if look.reason else ""
            made.append(
                RestartDecision(
                    stream_id=dependency.stream_id,
                    entity_id=look.entity_id,
                    change=look.change,
                    change_id=look.change_id,
                    restart=restart,
                    reason=f"{look.entity_id}: {reason}{detail}",
                    policy=dependency.policy,
                    read_kind=dependency.read_kind,
                )
            )
        return tuple(made)

    def _derive(self, pipe: PipeSpec) -> dict[str, StreamDependency]:
        policy = self._policy_of(pipe.tags.get(RESTART_POLICY_TAG, ""), pipe.id) or self._policy
        found: dict[str, StreamDependency] = {}
        for input_id in pipe.input_entity_ids:
            if input_id in pipe.driving_entity_ids:
                continue
            for entity_id, kind in self._behind(input_id).items():
                if entity_id == pipe.output_entity_id:
                    continue  # the stream itself changes it, all the time
                known = found.get(entity_id)
                inputs = (*known.inputs, input_id) if known else (input_id,)
                kinds = [kind, known.read_kind] if known else [kind]
                found[entity_id] = StreamDependency(
                    pipe.id, entity_id, min(kinds, key=_NEED.index), policy, inputs
                )
        for entry in _listed(pipe.tags.get(RESTART_ON_TAG, "")):
            entity_id, _, stated = (part.strip() for part in entry.partition("="))
            own = self._policy_of(stated, pipe.id)
            self._add(found, pipe.id, [entity_id], own, None, declared_by="tag", fallback=policy)
        removed = _listed(pipe.tags.get(NO_RESTART_ON_TAG, ""))
        for entity_id in self._tables(removed, f"tag {NO_RESTART_ON_TAG} of pipe {pipe.id}"):
            found.pop(entity_id, None)
        return found

    def _add(
        self,
        found: dict[str, StreamDependency],
        stream_id: str,
        entity_ids: Sequence[str],
        policy: RestartPolicy | None,
        read_kind: ReadKind | None,
        *,
        declared_by: str,
        fallback: RestartPolicy | None = None,
    ) -> None:
        if policy is not None:
            self._policy_of(policy, stream_id)
        for entity_id in self._tables(entity_ids, f"dimension of {stream_id}"):
            known = found.get(entity_id)
            found[entity_id] = StreamDependency(
                stream_id,
                entity_id,
                read_kind or (known.read_kind if known else "captured"),
                policy or (known.policy if known else fallback or self._policy),
                known.inputs if known else (),
                known.declared_by if known else declared_by,
            )

    def _tables(self, entity_ids: Sequence[str], where: str) -> list[str]:
        """The tables behind entities; raises DeclarationError for an unknown one."""
        unknown = [entity_id for entity_id in entity_ids if entity_id not in self._manifest.entities_by_id]
        if unknown:
            raise DeclarationError(
                f"No such entity: {', '.join(unknown)} ({where}).",
                "Declare it, or name one that the app declares.",
            )
        return list(dict.fromkeys(table for id_ in entity_ids for table in self._behind(id_)))

    def _behind(self, entity_id: str) -> dict[str, ReadKind]:
        """The tables behind an entity, and how a query that reads the entity sees each."""
        tables: dict[str, ReadKind] = {}
        seen: set[str] = set()
        stack = [entity_id]
        while stack:
            current_id = stack.pop()
            if current_id in seen:
                continue
            seen.add(current_id)
            entity = self._manifest.entities_by_id.get(current_id)
            below = self._below(current_id, entity)
            if below:
                stack.extend(reversed(below))
            else:
                tables[current_id] = _read_kind(entity)
        return tables

    def _below(self, entity_id: str, entity: EntitySpec | None) -> tuple[str, ...]:
        """What an entity is a view of, if it is one. Spark resolves a view to its tables, and reads these."""
        if entity is None:
            return ()
        if entity.companion_of:  # Kindling reads the base table and filters it
            return (entity.companion_of,)
        return entity.sql_inputs or self._views.get(entity_id, ())

    @cached_property
    def _views(self) -> Mapping[str, tuple[str, ...]]:
        """Entities that view pipes make of others, in the session alone → what they read."""
        entities = self._manifest.entities_by_id
        return {
            pipe.output_entity_id: pipe.input_entity_ids
            for pipe in self._manifest.pipes
            if pipe.kind == "view"
            and pipe.output_entity_id in entities
            and entities[pipe.output_entity_id].location.kind in ("memory", "none")
        }

    @staticmethod
    def _policy_of(stated: str, pipe_id: str) -> RestartPolicy | None:
        asked = stated.strip().lower()
        if not asked:
            return None
        for policy in POLICIES:
            if asked == policy:
                return policy
        raise SelectionError(
            f"There is no restart policy {stated!r}, asked for stream {pipe_id!r}.",
            f"Use one of {', '.join(POLICIES)}.",
        )


def _read_kind(entity: EntitySpec | None) -> ReadKind:
    """How a query sees a table, or a view of which it is not known what is behind it."""
    if entity is None:
        return "captured"
    if entity.provider == "delta":
        return "delta"
    if entity.provider in FILE_FORMATS:
        return "files"
    if entity.provider == "memory":
        return "memory"
    return "view" if entity.sql else "captured"


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
