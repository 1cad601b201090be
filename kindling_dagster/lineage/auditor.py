"""The audit of an app's lineage: which tables hold rows of old versions. Starts no JVM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kindling_dagster.delta_log import DeltaCommit, last_commits, table_version
from kindling_dagster.errors import KindlingDagsterError, LineageError
from kindling_dagster.lineage.audit import Staleness, TableLineage, audit_table
from kindling_dagster.lineage.commits import CommitLineage, commit_lineage
from kindling_dagster.lineage.settings import PipeLineage, lineage_pipes
from kindling_dagster.locations import table_location
from kindling_dagster.manifest import Manifest
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.table_checks.outcome import told_in_a_line

if TYPE_CHECKING:
    from kindling.signaling import SignalProvider
    from pyspark.sql import SparkSession

# How far back the log is searched for each pipe's last commit.
_COMMITS = 200
_NEVER = datetime.min.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class EntityAudit:
    """What an audit found of one entity.

    Args:
        entity_id: The entity.
        layer: Whose lineage column was looked at.
        current: The current version by pipe.
        lineage: The versions in its table.
    """

    entity_id: str
    layer: str
    current: Mapping[str, str]
    lineage: TableLineage

    @property
    def stale_share(self) -> float:
        """The share of the table's rows that are too old, 0 to 1."""
        return self.lineage.stale_rows / self.lineage.rows if self.lineage.rows else 0.0


class LineageAuditor(AsyncSignalEmitter):
    """Looks at tables of one app.

    Args:
        manifest: What the app declares.
        working_dir: Where relative paths count from.
        signals: Where ``datapipes.lineage_audit`` is sent; nowhere when None.
        storage_options: As deltalake takes them.
        spark: Counts the rows of tables with deletion vectors; these cannot be audited when None.
    """

    EMITS: ClassVar[list[str]] = ["datapipes.lineage_audit"]

    def __init__(
        self,
        manifest: Manifest,
        working_dir: Path | None,
        *,
        signals: SignalProvider | None = None,
        storage_options: Mapping[str, str] | None = None,
        spark: SparkSession | None = None,
    ) -> None:
        self._init_signal_emitter(signals)
        self._manifest = manifest
        self._working_dir = working_dir
        self._storage_options = storage_options
        self._spark = spark
        self._pipes = lineage_pipes(manifest)

    @property
    def entity_ids(self) -> tuple[str, ...]:
        """The entities whose rows carry lineage."""
        return tuple(dict.fromkeys(pipe.entity_id for pipe in self._pipes.values()))

    def location(self, entity_id: str) -> str:
        """Where an entity's table lies.

        Raises:
            LineageError: The app has no such entity with lineage, or only Spark knows where its table lies.
            RunError: The place is a secret that is not there.
        """
        if entity_id not in self.entity_ids:
            known = ", ".join(self.entity_ids) or "none"
            raise LineageError(
                f"The entity {entity_id} takes no part in lineage.", f"Entities that do: {known}."
            )
        found = table_location(self._manifest.entities_by_id[entity_id], self._working_dir)
        if found is None:
            raise LineageError(
                f"The table of {entity_id} is known to Spark's catalog alone.",
                "Give the entity a provider.path, or run the queries of kindling_dagster.lineage in Spark.",
            )
        return found

    def has_table(self, entity_id: str) -> bool:
        """Whether an entity's table is there; raises as ``audit``."""
        with self._reading(entity_id):
            return table_version(self.location(entity_id), self._storage_options) is not None

    def layer(self, entity_id: str) -> str:
        """The layer whose column an entity's rows carry."""
        return self._writers(entity_id)[0].layer

    def current_versions(self, entity_id: str) -> dict[str, str]:
        """The version each pipe of an entity last wrote with: by its table's log, where that is silent by its newest row.

        Without those that have written neither.

        Raises:
            LineageError: As ``audit``.
        """
        found: dict[str, str] = {}
        for commit in self._last_commits(entity_id, _COMMITS):
            written = commit_lineage(commit.user_metadata, entity_id)
            if written is not None:
                found.setdefault(written.pipe, written.version)
        silent = self.pipe_ids(entity_id) - found.keys()
        if silent:
            counts = [count for count in self._count(entity_id).counts if count.pipe in silent]
            for count in sorted(counts, key=lambda count: count.last_written or _NEVER, reverse=True):
                found.setdefault(count.pipe, count.version)
        return found

    def pipe_ids(self, entity_id: str) -> frozenset[str]:
        """The pipes that stamp lineage on an entity's rows."""
        return frozenset(pipe.pipe_id for pipe in self._writers(entity_id))

    def writer_of(self, entity_id: str, version: int) -> CommitLineage | None:
        """Who wrote a version of an entity's table; None when the commit does not say, or is not in the log.

        Raises:
            LineageError: As ``audit``.
        """
        for commit in self._last_commits(entity_id, None):
            if commit.version == version:
                return commit_lineage(commit.user_metadata, entity_id)
        return None

    def audit(
        self,
        entity_id: str,
        *,
        max_age: timedelta | None = None,
        current: Mapping[str, str] | None = None,
        now: datetime | None = None,
    ) -> EntityAudit:
        """Count an entity's rows by version, and those that are too old.

        Args:
            entity_id: The entity.
            max_age: Rows of other versions may be so old; none at all when None.
            current: The current version by pipe; as ``current_versions`` when None.
            now: The moment, with a time zone.

        Raises:
            LineageError: As ``location``; or there is no table, or it cannot be read.
        """
        current = self.current_versions(entity_id) if current is None else current
        before = (now or datetime.now(timezone.utc)) - max_age if max_age is not None else None
        layer = self.layer(entity_id)
        found = self._count(entity_id, Staleness(current, before))
        self.emit(
            "datapipes.lineage_audit",
            entity_id=entity_id,
            layer=layer,
            current_version=", ".join(dict.fromkeys(current.values())),
            oldest_version=found.versions[0] if found.versions else "",
            versions=list(found.versions),
            row_count=found.rows,
            stale_row_count=found.stale_rows,
            file_count=found.files,
            stale_file_count=found.stale_files,
        )
        return EntityAudit(entity_id, layer, current, found)

    def _count(self, entity_id: str, stale: Staleness | None = None) -> TableLineage:
        with self._reading(entity_id):
            return audit_table(
                self.location(entity_id),
                self.layer(entity_id),
                stale=stale,
                storage_options=self._storage_options,
                spark=self._spark,
            )

    def _last_commits(self, entity_id: str, limit: int | None) -> tuple[DeltaCommit, ...]:
        with self._reading(entity_id):
            return last_commits(self.location(entity_id), limit, self._storage_options)

    @contextmanager
    def _reading(self, entity_id: str) -> Iterator[None]:
        """Whatever storage and log raise, as an error that names the table."""
        try:
            yield
        except KindlingDagsterError:
            raise
        except Exception as error:
            line = told_in_a_line(error, self._manifest.entities_by_id[entity_id])
            raise LineageError(
                f"The table of {entity_id} cannot be read: {line}",
                "Look at its _delta_log and at the access to its storage.",
            ) from error

    def _writers(self, entity_id: str) -> list[PipeLineage]:
        return [pipe for pipe in self._pipes.values() if pipe.entity_id == entity_id]
