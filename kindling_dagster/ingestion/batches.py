"""Batches of landed files: taken, written and recorded so that a run may be killed at any moment. Free of Dagster.

A batch has a number and is recorded before anything is touched. Its files are moved into a directory of its
own, written from there under its number as Delta's transaction version, and then it is recorded as done. A
batch that was begun and is not done is taken up again: what is committed already, Delta leaves out.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kindling_dagster.errors import RunError
from kindling_dagster.ingestion.landing import LandedFile

_BEGUN, _DONE = ".json", ".done.json"


@dataclass(frozen=True)
class Batch:
    """Some files that are written together.

    Args:
        number: Counts up from 1; Delta's transaction version.
        files: As they lay there.
    """

    number: int
    files: tuple[LandedFile, ...]

    @property
    def name(self) -> str:
        """Of its directory and record."""
        return _name(self.number)


def _name(number: int) -> str:
    return f"batch-{number:08d}"


Write = Callable[[Path, str, int], None]
"""Writes the files of a directory under a transaction's application id and version."""


@dataclass(frozen=True)
class Batches:
    """The batches of one landing path.

    Args:
        landing: Where files land.
        archive: Where batches and their records are kept.
    """

    landing: Path
    archive: Path

    @property
    def _records(self) -> Path:
        return self.archive / "_batches"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within it, nobody else takes files of this archive; the system lets go when a process is killed.

        Raises:
            RunError: Somebody does.
        """
        self._records.mkdir(parents=True, exist_ok=True)
        with (self._records / "lock").open("a") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(
                    f"Another run takes the files of {self.landing}.", "Wait until it has ended."
                ) from error
            yield

    @property
    def app_id(self) -> str:
        """Delta's transaction application id: that of these records, so that new ones never seem done already."""
        path = self._records / "id"
        if not path.exists():
            _write_new(path, f"kindling-dagster ingestion {uuid.uuid4()}")
        return path.read_text(encoding="utf-8")

    def pending(self) -> Batch | None:
        """The batch that was begun and is not done: none but the last, since one is done before the next begins."""
        record = self._records / f"{_name(self._last())}{_BEGUN}"
        if not record.exists() or self._done(record).exists():
            return None
        said = json.loads(record.read_text(encoding="utf-8"))
        return Batch(said["number"], tuple(LandedFile(**file) for file in said["files"]))

    def begin(self, files: Sequence[LandedFile]) -> Batch:
        """Record a batch of these files; they are where they were."""
        batch = Batch(self._last() + 1, tuple(files))
        _write_new(self._records / f"{batch.name}{_BEGUN}", json.dumps(asdict(batch)))
        return batch

    def _last(self) -> int:
        """The number of the last batch that was begun; 0 where none was."""
        numbers = (int(path.name[6:14]) for path in self._records.glob(f"batch-*{_BEGUN}"))
        return max(numbers, default=0)

    def take(self, batch: Batch) -> Path:
        """Move the batch's files into its directory, as far as they are not there; gives the directory."""
        directory = self.archive / batch.name
        directory.mkdir(parents=True, exist_ok=True)
        for file in batch.files:
            _move(self.landing / file.name, directory / file.name, file)
        return directory

    def finish(self, batch: Batch) -> None:
        """Record that the batch is done."""
        record = self._records / f"{batch.name}{_BEGUN}"
        self._done(record).touch()

    def run(self, batch: Batch, write: Write) -> None:
        """Take the batch's files, write them, record it as done; raises what ``write`` raises."""
        directory = self.take(batch)
        if any(directory.iterdir()):
            write(directory, self.app_id, batch.number)
        self.finish(batch)

    @staticmethod
    def _done(record: Path) -> Path:
        return record.with_name(record.name.removesuffix(_BEGUN) + _DONE)


def _write_new(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all, and that survives a loss of power."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _move(source: Path, target: Path, file: LandedFile) -> None:
    """Move a file, whole or not at all. One of the same name that has landed since is left alone."""
    if target.exists():
        # A move between disks may have been cut off between its two halves.
        if source.exists() and (source.stat().st_size, source.stat().st_mtime_ns) == (
            file.size,
            file.changed,
        ):
            source.unlink()
        return
    if not source.exists():
        return  # somebody took it away before anything was done with it
    try:
        source.rename(target)
    except OSError:  # on another disk
        partial = target.with_name(f".{target.name}.partial")
        shutil.copy2(source, partial)
        partial.replace(target)
        source.unlink()
