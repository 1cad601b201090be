"""Which landed files go to which entities, as the app's file ingestion entries declare it. Free of Dagster."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from kindling_dagster.delta_log import local_path
from kindling_dagster.errors import DeclarationError
from kindling_dagster.locations import absolute_location
from kindling_dagster.manifest import IngestionSpec, Manifest

_SETTINGS = "kindling.dagster.ingestion."
_UNFINISHED = re.compile(r"^[._]|\.(tmp|part|partial|filepart|crdownload)$|~$", re.IGNORECASE)


@dataclass(frozen=True)
class LandedFile:
    """A file as it lies there: name, bytes, time of its last change in nanoseconds."""

    name: str
    size: int
    changed: int


@dataclass(frozen=True)
class IngestionPaths:
    """Where files land and where they are kept once they are taken.

    Args:
        landing: A local directory.
        archive: Another one; a directory for each batch, and the batches' records.
        settle: Seconds for which a file must not have changed, so that none is taken half written.
    """

    landing: Path
    archive: Path
    settle: float = 5.0

    @staticmethod
    def of(manifest: Manifest, working_dir: Path | None) -> IngestionPaths | None:
        """The paths that the app's settings name (``kindling.dagster.ingestion.landing``, ``.archive``, ``.settle``).

        None where they name no landing path.

        Raises:
            DeclarationError: They do not go together.
        """
        said = {name: manifest.settings.get(_SETTINGS + name) for name in ("landing", "archive", "settle")}
        if not said["landing"]:
            return None
        if not said["archive"]:
            raise DeclarationError(
                f"{_SETTINGS}landing is set, and no path for the files once they are taken.",
                f"Set {_SETTINGS}archive, on the same disk.",
            )
        landing, archive = (
            _local(str(said[name]), working_dir, _SETTINGS + name) for name in ("landing", "archive")
        )
        if landing == archive or landing in archive.parents:
            raise DeclarationError(
                f"{_SETTINGS}archive lies in the landing path.", "Give the archive a directory beside it."
            )
        try:
            settle = float(said["settle"]) if said["settle"] is not None else IngestionPaths.settle
        except (TypeError, ValueError) as error:
            raise DeclarationError(
                f"{_SETTINGS}settle is {said['settle']!r}.", "Give a number of seconds."
            ) from error
        return IngestionPaths(landing, archive, settle)

    def files(self, now: float | None = None) -> list[LandedFile]:
        """The files that lie there and have settled, by name; none when there is no such directory."""
        latest = (time.time() if now is None else now) - self.settle
        found = []
        for path in sorted(self.landing.iterdir()) if self.landing.is_dir() else ():
            try:
                state = path.stat()
            except FileNotFoundError:
                continue  # taken away just now
            if path.is_file() and state.st_mtime <= latest and not _UNFINISHED.search(path.name):
                found.append(LandedFile(path.name, state.st_size, state.st_mtime_ns))
        return found


def _local(said: str, working_dir: Path | None, name: str) -> Path:
    path = local_path(absolute_location(said, working_dir))
    if path is None or not path.is_absolute():
        raise DeclarationError(
            f"{name} is {said}, which is no directory of this machine.",
            "Mount it, or take the files in by a pipe; the project must know its working_dir for relative paths.",
        )
    return path


@dataclass(frozen=True)
class Entries:
    """An app's file ingestion entries, in the order in which Kindling asks them.

    Args:
        manifest: What the app declares.
    """

    manifest: Manifest

    def destination(self, file_name: str) -> str | None:
        """The entity that a file goes to: that of the first entry of which a pattern fits; None for no entry."""
        for entry in self.manifest.ingestion:
            if entry.discovery != "batch":
                continue
            for pattern in entry.patterns:
                found = re.match(pattern, file_name)
                if found:
                    return entry.dest_entity_id.format(**found.groupdict())
        return None

    def sorted(
        self, files: Iterable[LandedFile], entity_ids: Collection[str]
    ) -> tuple[dict[str, list[LandedFile]], list[LandedFile]]:
        """Files by the entity that they go to, and those that go to none of ``entity_ids``."""
        fit: dict[str, list[LandedFile]] = {}
        rest = []
        for file in files:
            destination = self.destination(file.name)
            if destination is None or destination not in entity_ids:
                rest.append(file)
            else:
                fit.setdefault(destination, []).append(file)
        return fit, rest

    def reachable(self) -> Mapping[str, tuple[IngestionSpec, ...]]:
        """The entities that files can go to, with the entries that lead there; a template leads to all that fit it.

        Raises:
            DeclarationError: One of them cannot take each file exactly once.
        """
        found: dict[str, list[IngestionSpec]] = {}
        for entry in self.manifest.ingestion:
            if entry.discovery != "batch":
                raise DeclarationError(
                    f"The file ingestion entry {entry.id} is discovered by {entry.discovery}, not from a landing path.",
                    "Run the app's ingestion where that is, and unset kindling.dagster.ingestion.landing.",
                )
            _check_patterns(entry)
            parts = re.split(r"\{[^{}]*\}", entry.dest_entity_id)
            template = re.compile("(.+)".join(map(re.escape, parts)))
            for entity in self.manifest.entities:
                if entity.companion_of or not template.fullmatch(entity.id):
                    continue
                if entity.provider != "delta":
                    if len(parts) > 1:
                        continue
                    raise DeclarationError(
                        f"Files of {entry.id} go to {entity.id} ({entity.provider}), which keeps no record of what "
                        "was written: a file could be taken twice.",
                        "Keep the entity in Delta.",
                    )
                found.setdefault(entity.id, []).append(entry)
        return {id_: tuple(entries) for id_, entries in found.items()}


def _check_patterns(entry: IngestionSpec) -> None:
    """Refuse patterns that leave a part of the destination's name open: the first file would end every look."""
    try:
        wanted = {name for _, name, _, _ in Formatter().parse(entry.dest_entity_id) if name is not None}
    except ValueError as error:
        raise DeclarationError(
            f"The file ingestion entry {entry.id} goes to {entry.dest_entity_id!r}, which is no template: {error}.",
            "Write a group of its patterns as {group}.",
        ) from error
    for pattern in entry.patterns:
        try:
            missing = wanted - set(re.compile(pattern).groupindex)
        except re.error as error:
            raise DeclarationError(
                f"The pattern {pattern!r} of the file ingestion entry {entry.id} is no regular expression: {error}.",
                "Correct it.",
            ) from error
        if missing:
            raise DeclarationError(
                f"The file ingestion entry {entry.id} goes to {entry.dest_entity_id}, and its pattern {pattern!r} has "
                f"no group {', '.join(map(repr, sorted(missing)))}.",
                "Name each group in every pattern: (?P<name>…).",
            )
