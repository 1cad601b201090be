"""DimensionChangeDetector: looks at registered dimensions, keeps their fingerprints, and says what changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, ClassVar

from kindling.signaling import SignalProvider

from kindling_dagster.errors import SelectionError
from kindling_dagster.manifest import Manifest
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.payloads.streams import DimensionChangePayload
from kindling_dagster.streaming.dimensions.look import look
from kindling_dagster.streaming.dimensions.model import Dimension, DimensionLook
from kindling_dagster.streaming.dimensions.registry import dimensions_of

logger = logging.getLogger("kindling_dagster.streaming")

CHANGE_SIGNALS: Mapping[str, str] = {
    "persist.after_persist": "output_entity_id",
    "entity.after_merge": "entity_id",
    "entity.after_append": "entity_id",
    "entity.after_write": "entity_id",
    "entity.after_replace": "entity_id",
}
"""Kindling's signals that say that an entity was written → the argument that names it."""


class DimensionChangeDetector(AsyncSignalEmitter):
    """Sees changes of dimension tables, without Spark.

    Args:
        manifest: The app's manifest: says where entities are.
        fingerprints: Where fingerprints are kept, by entity id; any mutable mapping.
        signal_provider: Where ``streaming.dimension_changed`` goes; nowhere when None.
        options: As ``dimension_of`` takes them: ``working_directory``, ``storage_options``, ``resolve_secret``.

    Example:
        >>> detector = DimensionChangeDetector(manifest, fingerprints={})
        >>> detector.register_dimension("ref.planes", "hash", columns=("manufacturer",))
        >>> [look.entity_id for look in detector.check_all() if look.changed]
        []
    """

    EMITS: ClassVar[list[str]] = ["streaming.dimension_changed"]

    def __init__(
        self,
        manifest: Manifest,
        fingerprints: MutableMapping[str, str] | None = None,
        signal_provider: SignalProvider | None = None,
        **options: Any,
    ) -> None:
        self._init_signal_emitter(signal_provider)
        self._manifest = manifest
        self._fingerprints: MutableMapping[str, str] = {} if fingerprints is None else fingerprints
        self._options = options
        self._dimensions: dict[str, Dimension] = {}
        self._receivers: list[Callable[..., None]] = []

    @property
    def dimensions(self) -> Mapping[str, Dimension]:
        """The registered dimensions by entity id, in the order of their registration."""
        return dict(self._dimensions)

    def register_dimension(
        self,
        entity_id: str,
        change_detection: str | None = None,
        *,
        columns: tuple[str, ...] = (),
        custom: Callable[[], Any] | None = None,
    ) -> Dimension:
        """Watch an entity; a second registration replaces the first.

        Args:
            entity_id: The entity; the current-row companion of an SCD2 entity stands for that entity.
            change_detection: What counts as a change:

                - ``watermark``: the maximum of the one column named in ``columns`` differs;
                - ``row_count``: the number of rows differs;
                - ``hash``: the rows differ, in the chosen columns or in any;
                - ``version``: a commit changed data (OPTIMIZE, VACUUM and the like do not);
                - ``schema``: the columns differ;
                - ``scd2``: a current row is new, closed or has other values;
                - ``files``: the listing of a table of plain files differs;
                - ``custom``: ``custom()`` gives another answer.

                None for the entity's tag ``dagster/change_detection``, else what fits the entity. All but
                ``files`` and ``custom`` also see other columns, and a table that was created anew.
            columns: For ``watermark``, ``hash`` and ``scd2``.
            custom: For ``custom``; what it gives must fit into JSON.

        Raises:
            DeclarationError: The app declares no such entity.
            SelectionError: There is no such change detection.
        """
        entity = self._manifest.entities_by_id.get(entity_id)
        watched = (entity.companion_of if entity else "") or entity_id
        (dimension,) = dimensions_of(
            self._manifest,
            (watched,),
            method=change_detection,
            columns=columns,
            custom=custom,
            **self._options,
        ).values()
        self._dimensions[watched] = dimension
        return dimension

    def look(self, entity_id: str) -> DimensionLook:
        """Look at a dimension without keeping or telling anything; raises SelectionError for an unknown one."""
        return look(self._dimension(entity_id), self._fingerprints.get(entity_id))

    def check(self, entity_id: str) -> DimensionLook:
        """Look at a dimension, tell a change by ``streaming.dimension_changed``, then keep its fingerprint.

        A crash in between tells the same change again, with the same ``change_id``: better twice than never.

        Raises:
            SelectionError: The entity is not registered.
        """
        found = self.look(entity_id)
        if found.changed:
            self.emit_payload(payload_of(found))
        if found.fingerprint is not None and found.fingerprint != found.previous_fingerprint:
            self._fingerprints[entity_id] = found.fingerprint
        return found

    def check_all(
        self, entity_ids: Iterable[str] | None = None, *, budget: float | None = None
    ) -> Iterator[DimensionLook]:
        """Check several dimensions, each when it is asked for.

        Args:
            entity_ids: Which; all registered ones when None.
            budget: Seconds after which no further one is begun.
        """
        until = None if budget is None else time.monotonic() + budget
        for entity_id in tuple(self._dimensions if entity_ids is None else entity_ids):
            if until is not None and time.monotonic() >= until:
                return
            yield self.check(entity_id)

    def listen(self, provider: SignalProvider) -> None:
        """Check a registered dimension as soon as Kindling says that it was written in this process."""
        for name, argument in CHANGE_SIGNALS.items():

            def receive(_sender: object, argument: str = argument, **arguments: Any) -> None:
                entity_id = arguments.get(argument)
                if entity_id in self._dimensions:
                    found = self.check(entity_id)
                    if found.problem is not None:
                        logger.warning("%s %s", found.problem.message, found.problem.suggestion)

            self._receivers.append(receive)
            provider.create_signal(name).connect(receive, weak=False)

    def _dimension(self, entity_id: str) -> Dimension:
        try:
            return self._dimensions[entity_id]
        except KeyError:
            raise SelectionError(
                f"Entity {entity_id!r} is not registered as a dimension.", "Call register_dimension first."
            ) from None


def payload_of(found: DimensionLook) -> DimensionChangePayload:
    """A look that has found a change as the signal's payload."""
    return DimensionChangePayload(
        signal="streaming.dimension_changed",
        entity_id=found.entity_id,
        change_detection=found.method,
        change=found.change,
        previous_fingerprint=found.previous_fingerprint,
        fingerprint=found.fingerprint,
        version=found.version,
        operation=", ".join(found.operations) or None,
        new_count=found.new_count,
        closed_count=found.closed_count,
        changed_count=found.changed_count,
        reason=found.reason,
    )
