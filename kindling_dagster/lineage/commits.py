"""Lineage in Delta's commits: what goes into ``userMetadata``, and how it is read back. JSON; no scan of rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Final

USER_METADATA_CONF: Final = "spark.databricks.delta.commitInfo.userMetadata"
"""Delta's session setting for the ``userMetadata`` of the commits that follow."""
_KEY: Final = "kindling"


@dataclass(frozen=True)
class CommitLineage:
    """Who wrote a version of an entity's table."""

    pipe: str
    entity: str
    package: str
    version: str
    run_id: str


def user_metadata(writing: Iterable[CommitLineage]) -> str:
    """Text for ``userMetadata`` while these pipes write.

    The setting belongs to the session, which pipes that run at the same time share. Each writes another
    entity, so every commit names them all, and ``commit_lineage`` picks by entity. Empty when none writes.
    """
    pipes = [asdict(item) for item in sorted(writing, key=lambda item: item.pipe)]
    return json.dumps({_KEY: pipes}, separators=(",", ":")) if pipes else ""


def commit_lineage(text: str, entity_id: str) -> CommitLineage | None:
    """Who wrote the commit with this ``userMetadata`` to an entity's table; None for foreign commits."""
    return next((item for item in _writers(text) if item.entity == entity_id), None)


def names_writer(text: str, writer: CommitLineage) -> bool:
    """Whether ``userMetadata`` names this pipe in this run, in whatever version."""
    mine = (writer.pipe, writer.entity, writer.run_id)
    return any((item.pipe, item.entity, item.run_id) == mine for item in _writers(text))


def _writers(text: str) -> Iterator[CommitLineage]:
    try:
        stated = json.loads(text)
    except ValueError:
        return
    pipes = stated.get(_KEY) if isinstance(stated, Mapping) else None
    for item in pipes if isinstance(pipes, list) else ():
        if isinstance(item, Mapping):
            yield CommitLineage(
                **{
                    name: str(item.get(name, ""))
                    for name in ("pipe", "entity", "package", "version", "run_id")
                }
            )
