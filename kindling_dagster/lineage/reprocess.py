"""Recomputes the rows that one version of a pipe wrote: its driving input is narrowed to their keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.columns import lineage_column
from kindling_dagster.lineage.settings import lineage_pipes
from kindling_dagster.manifest import Manifest
from kindling_dagster.narrowing import narrowed_reads

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def check_reprocess(manifest: Manifest, versions: Mapping[str, str]) -> None:
    """Refuse what cannot be recomputed row by row, before anything runs.

    Args:
        manifest: What the app declares.
        versions: By pipe, the version whose rows to recompute.

    Raises:
        LineageError: Names the pipe, and why not.
    """
    stamped = lineage_pipes(manifest)
    for pipe_id in versions:
        if pipe_id not in stamped:
            raise LineageError(
                f"The rows of {pipe_id} carry no lineage, so nothing tells which version wrote them.",
                "Turn lineage on, or run it as a full refresh.",
            )
        pipe = manifest.pipes_by_id[pipe_id]
        entity = manifest.entities_by_id[pipe.output_entity_id]
        if entity.kind == "derived" or not entity.merge_columns:
            raise LineageError(
                f"{pipe_id} does not merge into {entity.id} by keys, so single rows cannot be recomputed.",
                "Run it as a full refresh.",
            )


class Reprocessing:
    """Narrows what pipes read in one run.

    Args:
        manifest: What the app declares.
        versions: By pipe, the version whose rows to recompute.
        signals: Kindling's SignalProvider.
        read: Gives the live rows of an entity.
    """

    def __init__(
        self,
        manifest: Manifest,
        versions: Mapping[str, str],
        signals: Any,
        read: Callable[[str], DataFrame],
    ) -> None:
        self._manifest = manifest
        self._versions = versions
        self._signals = signals
        self._read = read
        self._stamped = lineage_pipes(manifest) if versions else {}

    @contextmanager
    def narrowing(self) -> Iterator[None]:
        """Within it, the pipes read only what belongs to the keys of those rows."""
        if not self._versions:
            yield
            return
        with narrowed_reads(self._signals, self._after_read):
            yield

    def _after_read(self, sender: Any, **payload: Any) -> DataFrame | None:  # noqa: ARG002
        pipe_id = str(payload.get("pipe_id"))
        version = self._versions.get(pipe_id)
        if version is None:
            return None
        pipe = self._manifest.pipes_by_id[pipe_id]
        if payload.get("entity_id") not in pipe.driving_entity_ids:
            return None
        frame: DataFrame = payload["df"]
        keys = self._keys(pipe_id, version)
        missing = [name for name in keys.columns if name not in frame.columns]
        if missing:
            raise LineageError(
                f"{pipe_id} cannot be recomputed for single rows: {payload.get('entity_id')} lacks the key "
                f"{', '.join(missing)} of {pipe.output_entity_id}.",
                "Run it as a full refresh.",
            )
        return frame.join(keys, on=keys.columns, how="left_semi")

    def _keys(self, pipe_id: str, version: str) -> DataFrame:
        """Keys of the rows that this version of the pipe wrote and that are still current."""
        from pyspark.sql.functions import col

        stamped = self._stamped[pipe_id]
        entity = self._manifest.entities_by_id[stamped.entity_id]
        stamp = col(lineage_column(stamped.layer))
        rows = self._read(stamped.entity_id)
        of_version = rows.where((stamp["version"] == version) & (stamp["pipe"] == pipe_id))
        if entity.scd2:
            of_version = of_version.where(col(entity.tags.get("scd.current_col", "__is_current")))
        return of_version.select(*entity.merge_columns).distinct()
