"""A look at a table of plain Parquet or CSV files: their listing, and their rows where the method asks for them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kindling_dagster.delta_log import local_path
from kindling_dagster.streaming.dimensions.fingerprint import (
    CommitMark,
    Fingerprint,
    chosen,
    digest_of,
    method_text,
    schema_difference,
)
from kindling_dagster.streaming.dimensions.model import Change, Dimension, DimensionLook
from kindling_dagster.streaming.dimensions.rows import RowsDigest, digest_rows
from kindling_dagster.streaming.dimensions.values import ColumnError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

_BATCH = 10_000
_TRIES = 3
_FALSE = ("false", "no", "0", "off")


@dataclass(frozen=True)
class ListedFile:
    """One file: path as its file system takes it, size in bytes, when it was written (Unix seconds)."""

    path: str
    size: int
    modified: float


@dataclass(frozen=True)
class Listing:
    """A table's files, by path, and the file system they are in."""

    files: tuple[ListedFile, ...]
    system: FileSystem

    @property
    def digest(self) -> str:
        """The same exactly when names, sizes and times are."""
        text = "\n".join(f"{file.path}\t{file.size}\t{file.modified!r}" for file in self.files)
        return digest_of(text.encode())

    @property
    def newest(self) -> float:
        """When the newest file was written."""
        return max((file.modified for file in self.files), default=0.0)


def look_at_files(dimension: Dimension, location: str, previous: Fingerprint | None) -> DimensionLook:
    """Look at a table of files: by the method ``files`` at their listing, by ``hash`` at their rows.

    Rows are read only when the listing has changed.

    Raises:
        FileNotFoundError: There are no files.
        ColumnError: A chosen column is not there.
        OSError: A writer replaces the files faster than they are read.
        Exception: Whatever storage or the format's reader raise.
    """
    for _ in range(_TRIES):
        try:
            listing = list_files(location, dimension)
            if listing.files:
                return _compared(dimension, listing, previous)
        except FileNotFoundError:
            continue  # a writer has just put another in its place
        raise FileNotFoundError("no files")
    raise OSError("its files are replaced while they are read")


def _compared(dimension: Dimension, listing: Listing, previous: Fingerprint | None) -> DimensionLook:
    if previous is not None and previous.commit.digest == listing.digest:
        return _look(dimension, previous, None, "", previous=previous)
    current = _measured(dimension, listing)
    if previous is None:
        return _look(dimension, current, None, "", first=True)
    change: Change | None = None
    reason = ""
    if current.value != previous.value:
        change = "data"
        reason = "rows differ" if dimension.method == "hash" else "files were added, removed or rewritten"
    before, after = (chosen(item.schema or (), dimension.columns) for item in (previous, current))
    difference = None
    if before != after:
        change, difference = "schema", schema_difference(before, after)
        reason = str(difference)
    look = _look(dimension, current, change, reason, previous=previous)
    return DimensionLook(
        **{**vars(look), "changed_at": listing.newest if change else None, "schema": difference}
    )


def _measured(dimension: Dimension, listing: Listing) -> Fingerprint:
    mark = CommitMark(digest=listing.digest)
    method = method_text(dimension)
    if dimension.method != "hash":
        return Fingerprint(method, listing.digest, "files", commit=mark)
    digest, schema = (_parquet if dimension.provider == "parquet" else _csv)(dimension, listing)
    return Fingerprint(method, digest.to_value(), "files", commit=mark, schema=schema, rows=digest.rows)


def _look(
    dimension: Dimension,
    current: Fingerprint,
    change: Change | None,
    reason: str,
    *,
    first: bool = False,
    previous: Fingerprint | None = None,
) -> DimensionLook:
    return DimensionLook(
        dimension.entity_id,
        dimension.method,
        fingerprint=current.to_text(),
        change=change,
        reason=reason,
        first=first and previous is None,
        rows=current.rows,
    )


def list_files(location: str, dimension: Dimension) -> Listing:
    """The files of a path, folder, glob pattern or URI; hidden ones and those Spark keeps for itself left out."""
    from pyarrow.fs import LocalFileSystem

    path = local_path(location)
    if path is None:
        return _list_remote(location, dimension)
    if any(sign in path.name for sign in "*?["):
        found = [item for item in path.parent.glob(path.name) if item.is_file()]
        base = path.parent
    elif path.is_dir():
        found = [item for item in path.rglob("*") if item.is_file()]
        base = path
    else:
        found, base = ([path] if path.exists() else []), path.parent
    files = []
    for item in found:
        if _is_data(item.relative_to(base)):
            try:
                status = item.stat()
            except FileNotFoundError:
                continue  # removed since it was listed
            files.append(ListedFile(str(item), status.st_size, status.st_mtime))
    return Listing(tuple(sorted(files, key=lambda file: file.path)), LocalFileSystem())


def _list_remote(location: str, dimension: Dimension) -> Listing:
    from deltalake.fs import DeltaStorageHandler
    from pyarrow.fs import FileSelector, FileType, PyFileSystem

    options = dict(dimension.storage_options)
    system = PyFileSystem(DeltaStorageHandler(location, options))
    found = system.get_file_info(FileSelector("", allow_not_found=True, recursive=True))
    if not any(info.type == FileType.File for info in found):  # the location may be one file
        folder, _, name = location.rstrip("/").rpartition("/")
        system = PyFileSystem(DeltaStorageHandler(folder, options))
        found = system.get_file_info([name])
    files = [
        ListedFile(info.path, info.size, info.mtime_ns / 1e9 if info.mtime_ns else 0.0)
        for info in found
        if info.type == FileType.File and _is_data(Path(info.path))
    ]
    return Listing(tuple(sorted(files, key=lambda file: file.path)), system)


def _is_data(path: Path) -> bool:
    """Spark's own rule: names that start with ``_`` or ``.`` are no data, but for partitions (``_k=v``)."""
    return not any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in path.parts)


def _parquet(dimension: Dimension, listing: Listing) -> tuple[RowsDigest, tuple[str, ...]]:
    import pyarrow as pa
    import pyarrow.dataset as ds

    paths = [file.path for file in listing.files if file.size]
    dataset = ds.dataset(paths, filesystem=listing.system, format="parquet", partitioning="hive")
    physical = [fragment.physical_schema for fragment in dataset.get_fragments()]
    schema = pa.unify_schemas([dataset.schema, *physical], promote_options="permissive")
    columns = _existing(schema.names, dimension.columns)
    batches = dataset.replace_schema(schema).to_batches(columns=columns)
    entries = tuple(f"{item.name}: {item.type}{'' if item.nullable else '!'}" for item in schema)
    return digest_rows(batches), entries


def _csv(dimension: Dimension, listing: Listing) -> tuple[RowsDigest, tuple[str, ...]]:
    names: dict[str, None] = {}

    def batches() -> Iterator[pa.RecordBatch]:
        for file in listing.files:
            yield from _csv_batches(dimension, listing, file, names)

    return digest_rows(batches()), tuple(f"{name}: string" for name in names)


def _csv_batches(
    dimension: Dimension, listing: Listing, file: ListedFile, names: dict[str, None]
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    options = dimension.options
    with (
        listing.system.open_input_stream(file.path) as stream,
        io.TextIOWrapper(stream, encoding=options.get("encoding", "utf-8"), newline="") as text,
    ):
        rows = csv.reader(text, delimiter=options.get("delimiter", ","), quotechar=options.get("quote", '"'))
        first = next(rows, None)
        if first is None:
            return
        header = options.get("header", "true").strip().lower() not in _FALSE
        own = first if header else [f"_c{index}" for index in range(len(first))]
        names.update(dict.fromkeys(own))
        columns = _existing(own, dimension.columns)
        waiting = rows if header else iter([first, *rows])
        while chunk := list(islice(waiting, _BATCH)):
            by_name: dict[str, list[Any]] = {
                name: [row[index] if index < len(row) else None for row in chunk]
                for index, name in enumerate(own)
            }
            yield pa.record_batch({name: pa.array(by_name[name], pa.string()) for name in columns})


def _existing(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    missing = [name for name in columns if name not in names]
    if missing:
        raise ColumnError(f"there is no column {', '.join(missing)}; there are {', '.join(names)}")
    return list(columns or names)
