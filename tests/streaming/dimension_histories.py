"""Random histories of a Delta table with a model of it, which says what each method must find.

The model never looks at the table: it knows the rows from the operations alone.
As a program: ``python tests/streaming/dimension_histories.py [HISTORIES] [SEED]``.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, Field, write_deltalake

from kindling_dagster.streaming.dimensions.look import look
from kindling_dagster.streaming.dimensions.model import Dimension, DimensionLook

EPOCH = datetime(2024, 1, 1, tzinfo=timezone.utc)
BASE = {
    "id": pa.int64(),
    "name": pa.string(),
    "updated": pa.timestamp("us", "UTC"),
    "__is_current": pa.bool_(),
    "__effective_from": pa.timestamp("us", "UTC"),
    "__effective_to": pa.timestamp("us", "UTC"),
}
EXTRA = ("extra1", "extra2")
BOOKKEEPING = ("__is_current", "__effective_from", "__effective_to")

Row = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class State:
    """What is in the table: rows, columns, and a token that is the same exactly when its files are."""

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    files: int

    def contents(self, columns: tuple[str, ...] = ()) -> Counter[Row]:
        wanted = columns or self.columns
        return Counter(tuple((name, dict(row).get(name)) for name in wanted) for row in self.rows)

    def current(self, columns: tuple[str, ...] = ()) -> dict[int, Counter[Row]]:
        found: dict[int, Counter[Row]] = {}
        names = [name for name in columns or self.columns if name not in BOOKKEEPING]
        for row in map(dict, self.rows):
            if row["__is_current"]:
                found.setdefault(row["id"], Counter())[tuple((name, row.get(name)) for name in names)] += 1
        return found

    def maximum(self, column: str) -> Any:
        return max((value for row in self.rows if (value := dict(row).get(column)) is not None), default=None)


@dataclass
class Seen:
    """What happened since a method's last look."""

    state: State
    version: int
    fingerprint: str | None = None
    data_commits: int = 0
    recreated: bool = False
    unread_lost: bool = False
    files_lost: bool = False


@dataclass
class History:
    """A table that changes at random, and the model of it."""

    path: Path
    rng: random.Random
    state: State = State((), (), 0)
    restorable: dict[int, State] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    tokens: int = 0
    clock: int = 0

    # -- rows

    def new_rows(self, count: int) -> list[dict[str, Any]]:
        made = []
        for _ in range(count):
            self.clock += self.rng.choice((0, 1, 7, 1_000, 86_400_000_000))
            row: dict[str, Any] = {
                "id": self.rng.randrange(40),
                "name": self.rng.choice((None, "a", "b", "x" * 40 + "1", "x" * 40 + "2", "q|1:r")),
                "updated": self.rng.choice((None, EPOCH + timedelta(microseconds=self.clock))),
                "__is_current": self.rng.random() < 0.7,
                "__effective_from": EPOCH,
                "__effective_to": None,
            }
            for name in self.state.columns:
                if name in EXTRA:
                    row[name] = self.rng.choice((None, 1, 2))
            made.append(row)
        return made

    def table_of(self, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pa.Table:
        kinds = {**BASE, **dict.fromkeys(EXTRA, pa.int32())}
        schema = pa.schema([(name, kinds[name]) for name in columns])
        return pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows], schema)

    def freeze(self, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> tuple[Row, ...]:
        return tuple(tuple((name, row.get(name)) for name in columns) for row in rows)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self.state.rows]

    @property
    def table(self) -> DeltaTable:
        return DeltaTable(str(self.path))

    # -- what a commit means

    def committed(
        self,
        name: str,
        rows: list[dict[str, Any]] | None = None,
        columns: tuple[str, ...] | None = None,
        *,
        data: bool = False,
        files: int | None = None,
    ) -> None:
        self.done.append(name)
        columns = columns or self.state.columns
        if files is None:
            self.tokens += data
            files = self.tokens if data else self.state.files
        kept = self.rows if rows is None else rows
        self.state = State(self.freeze(kept, columns), columns, files)
        self.restorable[self.table.version()] = self.state
        for seen in self.seen.values():
            seen.data_commits += data

    # -- operations

    def create(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        columns = tuple(BASE)
        self.state = State((), columns, 0)
        rows = self.new_rows(self.rng.randint(1, 6))
        write_deltalake(str(self.path), self.table_of(rows, columns))
        self.restorable.clear()
        self.committed("create", rows, columns, data=True)
        for seen in self.seen.values():
            seen.recreated = True

    def append(self) -> None:
        rows = self.new_rows(self.rng.randint(1, 4))
        write_deltalake(str(self.path), self.table_of(rows, self.state.columns), mode="append")
        self.committed("append", [*self.rows, *rows], data=True)

    def append_nothing(self) -> None:
        write_deltalake(str(self.path), self.table_of([], self.state.columns), mode="append")
        self.committed("append nothing")

    def overwrite(self) -> None:
        rows = self.new_rows(self.rng.randint(1, 5))
        drop = self.rng.random() < 0.5
        columns = tuple(BASE) if drop else self.state.columns
        write_deltalake(
            str(self.path),
            self.table_of(rows, columns),
            mode="overwrite",
            schema_mode="overwrite" if drop else None,
        )
        self.committed(f"overwrite{' all columns' if drop else ''}", rows, columns, data=True)

    def merge(self) -> None:
        fresh = {row["id"]: row for row in self.new_rows(self.rng.randint(1, 4))}
        source = self.table_of(list(fresh.values()), self.state.columns)
        self.table.merge(
            source, "t.id = s.id", source_alias="s", target_alias="t"
        ).when_matched_update_all().when_not_matched_insert_all().execute()
        known = {row["id"] for row in self.rows}
        rows = [dict(fresh[row["id"]]) if row["id"] in fresh else row for row in self.rows]
        rows += [row for key, row in fresh.items() if key not in known]
        self.committed("merge", rows, data=True)

    def update(self) -> None:
        key = self.rng.randrange(40)
        name = self.rng.choice(("a", "c", "new"))
        self.table.update(updates={"name": f"'{name}'"}, predicate=f"id = {key}")
        rows = [{**row, "name": name} if row["id"] == key else row for row in self.rows]
        self.committed("update", rows, data=any(row["id"] == key for row in self.rows))

    def close(self) -> None:
        key = self.rng.randrange(40)
        self.table.update(updates={"__is_current": "false"}, predicate=f"id = {key}")
        rows = [{**row, "__is_current": False} if row["id"] == key else row for row in self.rows]
        self.committed("close", rows, data=any(row["id"] == key for row in self.rows))

    def rewrite(self) -> None:
        self.table.update(updates={"name": "name"}, predicate="id >= 0")
        self.committed("rewrite", data=bool(self.state.rows))

    def delete(self) -> None:
        key = self.rng.randrange(40)
        self.table.delete(f"id = {key}")
        rows = [row for row in self.rows if row["id"] != key]
        self.committed("delete", rows, data=len(rows) < len(self.rows))

    def optimize(self) -> None:
        before = self.table.version()
        if self.rng.random() < 0.5:
            self.table.optimize.compact()
        else:
            self.table.optimize.z_order(["id"])
        if self.table.version() > before:
            self.tokens += 1
        self.committed("optimize", files=self.tokens if self.table.version() > before else None)

    def vacuum(self) -> None:
        self.table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        self.restorable.clear()
        self.committed("vacuum")
        for seen in self.seen.values():
            seen.files_lost = True

    def add_column(self) -> None:
        free = [name for name in EXTRA if name not in self.state.columns]
        if free:
            self.table.alter.add_columns([Field(free[0], "integer")])
            self.committed("add column", columns=(*self.state.columns, free[0]))

    def set_property(self) -> None:
        self.table.alter.set_table_properties({"delta.appendOnly": "false"})
        self.committed("set property")

    def checkpoint(self) -> None:
        self.table.create_checkpoint()
        self.done.append("checkpoint")

    def clean_log(self) -> None:
        """What retention does after 30 days: a checkpoint, and the commits before it deleted."""
        table = self.table
        table.create_checkpoint()
        last = table.version()
        for file in (self.path / "_delta_log").glob("*.json"):
            if int(file.stem) < last:
                file.unlink()
        self.restorable = {last: self.state}
        self.done.append("clean log")
        for seen in self.seen.values():
            seen.unread_lost = seen.unread_lost or seen.version + 1 < last
            seen.files_lost = seen.files_lost or seen.version < last

    def restore(self) -> None:
        version = self.rng.choice(list(self.restorable))
        state = self.restorable[version]
        if version == self.table.version():
            return
        self.table.restore(version)
        changed = state.files != self.state.files
        self.committed(
            f"restore {version}",
            [dict(r) for r in state.rows],
            state.columns,
            data=changed,
            files=state.files,
        )

    def step(self) -> None:
        operations: dict[Callable[[], None], int] = {
            self.append: 6,
            self.merge: 4,
            self.update: 4,
            self.delete: 4,
            self.close: 3,
            self.optimize: 5,
            self.restore: 4,
            self.rewrite: 2,
            self.append_nothing: 1,
            self.overwrite: 2,
            self.vacuum: 2,
            self.add_column: 2,
            self.set_property: 2,
            self.checkpoint: 1,
            self.clean_log: 1,
            self.create: 1,
        }
        (operation,) = self.rng.choices(list(operations), list(operations.values()))
        operation()

    # -- looking

    def dimensions(self) -> dict[str, Dimension]:
        plain = Dimension("ref.t", location=str(self.path))
        return {
            "version": plain,
            "row_count": replace(plain, method="row_count"),
            "hash": replace(plain, method="hash"),
            "hash of name": replace(plain, method="hash", columns=("name",)),
            "watermark": replace(plain, method="watermark", columns=("updated",)),
            "watermark of id": replace(plain, method="watermark", columns=("id",)),
            "watermark of name": replace(plain, method="watermark", columns=("name",)),
            "schema": replace(plain, method="schema"),
            "scd2": replace(plain, method="scd2", keys=("id",)),
        }

    def expected(self, name: str, seen: Seen) -> str | None:
        before, after = seen.state, self.state
        if seen.recreated:
            return "replaced"
        if before.columns != after.columns and name != "hash of name":
            return "schema"
        differs = {
            "version": seen.data_commits > 0 or seen.unread_lost,
            "row_count": len(before.rows) != len(after.rows),
            "hash": before.contents() != after.contents(),
            "hash of name": before.contents(("name",)) != after.contents(("name",)),
            "watermark": before.maximum("updated") != after.maximum("updated"),
            "watermark of id": before.maximum("id") != after.maximum("id"),
            "watermark of name": before.maximum("name") != after.maximum("name"),
            "schema": False,
            "scd2": before.current() != after.current(),
        }
        return "data" if differs[name] else None

    def look_at_all(self) -> list[str]:
        """Look by every method; gives what any of them got wrong."""
        wrong = []
        for name, dimension in self.dimensions().items():
            seen = self.seen.get(name)
            found = look(dimension, seen.fingerprint if seen else None)
            expected = self.expected(name, seen) if seen else None
            if found.problem is not None or found.change != expected:
                wrong.append(f"{name}: found {found.change} {found.reason}, expected {expected}")
            elif seen is not None:
                wrong += self.wrong_details(name, found, seen)
            self.seen[name] = Seen(self.state, self.table.version(), found.fingerprint)
        return [f"{text} (history {self.done})" for text in wrong]

    def wrong_details(self, name: str, found: DimensionLook, seen: Seen) -> list[str]:
        if name == "version" and found.commits not in (None, seen.data_commits):
            return [f"{name}: counted {found.commits} data-changing commits of {seen.data_commits}"]
        if name == "version" and found.commits is None and not (seen.unread_lost or seen.recreated):
            return [f"{name}: did not count data-changing commits"]
        if name in ("row_count", "hash") and found.rows != len(self.state.rows):
            return [f"{name}: {found.rows} rows instead of {len(self.state.rows)}"]
        if (
            name != "scd2"
            or seen.recreated
            or not found.changed
            or seen.state.current() == self.state.current()
        ):
            return []
        both = tuple(name for name in seen.state.columns if name in self.state.columns)
        before, after = seen.state.current(both), self.state.current(both)
        counts = (found.new_count, found.closed_count, found.changed_count)
        if seen.files_lost and counts == (None, None, None):
            return []
        true = (
            len(after.keys() - before.keys()),
            len(before.keys() - after.keys()),
            sum(before[key] != after[key] for key in before.keys() & after.keys()),
        )
        return [] if counts == true else [f"scd2: {counts} new, closed, changed instead of {true}"]

    def check_model(self) -> list[str]:
        """Whether the model is right about the table, by reading it as a whole."""
        read = DeltaTable(str(self.path)).to_pyarrow_table().to_pylist()
        real = Counter(tuple((name, row[name]) for name in self.state.columns) for row in read)
        return [] if real == self.state.contents() else [f"the model is wrong about {self.done}"]


def run_history(folder: Path, seed: int, steps: int = 12) -> tuple[list[str], int]:
    """One history; gives what was found wrong, and how many looks were compared."""
    history = History(folder / f"history{seed}", random.Random(seed))
    history.create()
    wrong = history.look_at_all()
    looks = 0
    for _ in range(steps):
        history.step()
        if history.rng.random() < 0.5:
            wrong += history.look_at_all()
            looks += 1
    wrong += history.look_at_all() + history.check_model()
    shutil.rmtree(history.path)
    return [f"seed {seed}: {text}" for text in wrong], (looks + 1) * len(history.dimensions())


def main(histories: int, seed: int) -> int:
    """Run many histories; prints what was wrong and a summary."""
    started = time.monotonic()
    wrong: list[str] = []
    looks = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(histories):
            found, count = run_history(Path(folder), seed + number)
            wrong += found
            looks += count
    for text in wrong:
        print(text)
    seconds = time.monotonic() - started
    print(f"{histories} histories from seed {seed}: {looks} looks, {len(wrong)} wrong, {seconds:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    arguments = [int(text) for text in sys.argv[1:]]
    sys.exit(main(*[*arguments, *(500, int.from_bytes(os.urandom(3), "big"))[len(arguments) :]]))
