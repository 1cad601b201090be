"""Looks at Delta tables: what they see, what they cost, and what the log alone decides."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from deltalake import DeltaTable, Field, write_deltalake
from dimension_tables import DELTA_METHODS, ROWS, append, commit, dimension

from kindling_dagster.streaming.dimensions import delta, log
from kindling_dagster.streaming.dimensions.fingerprint import Fingerprint
from kindling_dagster.streaming.dimensions.look import look
from kindling_dagster.streaming.dimensions.model import Method


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "planes"
    write_deltalake(str(path), ROWS)
    return path


def rearrange(version: int) -> tuple[dict[str, object], ...]:
    """The actions of an OPTIMIZE that puts one file in place of another."""
    names = [f"part-{version - step}.parquet" for step in (1, 0)]
    stats = json.dumps({"numRecords": 1})
    return (
        {"commitInfo": {"timestamp": 1_700_000_000_000 + version, "operation": "OPTIMIZE"}},
        {"remove": {"path": names[0], "dataChange": False, "deletionTimestamp": 1}},
        {
            "add": {
                "path": names[1],
                "partitionValues": {},
                "size": 1,
                "modificationTime": 1,
                "dataChange": False,
                "stats": stats,
            }
        },
    )


@pytest.mark.parametrize("method", DELTA_METHODS)
def test_first_look_is_no_change(table: Path, method: Method) -> None:
    found = look(dimension(table, method))
    assert (found.first, found.change, found.problem, found.version) == (True, None, None, 0)
    assert found.fingerprint


@pytest.mark.parametrize("method", DELTA_METHODS)
def test_an_unchanged_table_costs_two_file_marks(
    table: Path, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Counting(log.LocalLog):
        def marks(self, names: Sequence[str]) -> list[log.FileMark | None]:
            asked.extend(names)
            return super().marks(names)

        def names(self) -> list[str]:
            raise AssertionError("the log was listed")

        def read(self, names: Sequence[str]) -> list[bytes]:
            raise AssertionError(f"{names} were read")

    seen = look(dimension(table, method))
    monkeypatch.setattr(delta, "open_log", lambda uri, options=None: Counting(Path(uri)))
    found = look(dimension(table, method), seen.fingerprint)
    assert (found.change, found.problem, found.fingerprint) == (None, None, seen.fingerprint)
    assert asked == [log.commit_name(0), log.commit_name(1)]


@pytest.mark.parametrize("optimizes", [990])
def test_of_a_thousand_commits_only_data_changes_count(table: Path, optimizes: int) -> None:
    seen = look(dimension(table))
    changed = set(range(50, 1000, 100))
    for version in range(1, 1001):
        if version in changed:
            info = {"commitInfo": {"timestamp": version * 1000, "operation": "WRITE"}}
            add = {"path": f"new-{version}.parquet", "partitionValues": {}, "size": 1, "dataChange": True}
            commit(table, version, info, {"add": {**add, "modificationTime": 1}})
        else:
            commit(table, version, *rearrange(version))
    assert 1000 - len(changed) == optimizes
    found = look(dimension(table), seen.fingerprint)
    assert (found.change, found.commits, found.operations, found.version) == ("data", 10, ("WRITE",), 1000)
    assert found.changed_at == 950
    again = look(dimension(table), found.fingerprint)
    assert (again.change, again.commits) == (None, 0)


def test_counts_once_over_many_looks(table: Path) -> None:
    fingerprint = look(dimension(table)).fingerprint
    counted = 0
    for version in range(1, 41):
        if version % 4 == 0:
            append(table, version)
        else:
            DeltaTable(str(table)).optimize.compact()
            DeltaTable(str(table)).alter.set_table_properties({"delta.appendOnly": "false"})
        found = look(dimension(table), fingerprint)
        counted += found.commits or 0
        assert (found.change == "data") == (found.commits == 1)
        fingerprint = found.fingerprint
    assert counted == 10


def test_version_needs_no_snapshot_after_the_first_look(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = look(dimension(table))
    append(table)

    def refuse(*_: object) -> None:
        raise AssertionError("the table was opened")

    monkeypatch.setattr(delta, "Snapshot", refuse)
    assert look(dimension(table), seen.fingerprint).change == "data"


@pytest.mark.parametrize("method", ["row_count", "hash", "watermark"])
def test_many_commits_are_not_read_one_by_one(
    table: Path, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = look(dimension(table, method))
    append(table)
    monkeypatch.setattr(delta, "_READ_SINGLY", 0)
    monkeypatch.setattr(delta, "read_commits", lambda *_: pytest.fail("commits were read"))
    assert look(dimension(table, method), seen.fingerprint).change == "data"


CHANGES: list[tuple[str, Callable[[DeltaTable], object], dict[str, str | None]]] = [
    ("delete", lambda t: t.delete("id = 3"), {"version": "data", "row_count": "data", "watermark": "data"}),
    ("delete nothing", lambda t: t.delete("id = 99"), {}),
    (
        "update",
        lambda t: t.update(updates={"name": "'z'"}, predicate="id = 1"),
        {"version": "data", "hash": "data"},
    ),
    ("rewrite as it was", lambda t: t.update(updates={"name": "name"}), {"version": "data"}),
    ("compact", lambda t: t.optimize.compact(), {}),
    ("vacuum", lambda t: t.vacuum(0, dry_run=False, enforce_retention_duration=False), {}),
    ("property", lambda t: t.alter.set_table_properties({"delta.appendOnly": "false"}), {}),
    ("comment", lambda t: t.alter.set_column_metadata("id", {"comment": "the key"}), {}),
    ("constraint", lambda t: t.alter.add_constraint({"positive": "id >= 0"}), {}),
    (
        "column",
        lambda t: t.alter.add_columns([Field("extra", "integer")]),
        dict.fromkeys(DELTA_METHODS, "schema"),
    ),
]


@pytest.mark.parametrize("method", DELTA_METHODS)
@pytest.mark.parametrize(("name", "change", "expected"), CHANGES, ids=[name for name, *_ in CHANGES])
def test_what_each_method_sees(
    table: Path,
    method: Method,
    name: str,
    change: Callable[[DeltaTable], object],
    expected: dict[str, str | None],
) -> None:
    append(table, 0)
    seen = look(dimension(table, method))
    change(DeltaTable(str(table)))
    found = look(dimension(table, method), seen.fingerprint)
    if name == "delete" and method == "hash":
        expected = {**expected, "hash": "data"}
    assert (found.change, found.problem) == (expected.get(method), None)


def test_a_column_that_is_added_is_named(table: Path) -> None:
    seen = look(dimension(table))
    DeltaTable(str(table)).alter.add_columns([Field("extra", "integer")])
    found = look(dimension(table), seen.fingerprint)
    assert found.schema is not None
    assert (found.schema.added, found.reason) == (("extra: integer",), "added extra: integer")


def test_other_columns_than_the_chosen_do_not_matter(table: Path) -> None:
    watched = dimension(table, "hash", columns=("name",))
    seen = look(watched)
    DeltaTable(str(table)).alter.add_columns([Field("extra", "integer")])
    DeltaTable(str(table)).update(updates={"id": "id + 1"})
    assert look(watched, seen.fingerprint).change is None
    DeltaTable(str(table)).update(updates={"name": "'z'"}, predicate="id = 2")
    assert look(watched, seen.fingerprint).change == "data"


class TestRestore:
    """A RESTORE changes data: the methods that look at contents say whether they are others."""

    @pytest.fixture
    def restored(self, table: Path) -> Path:
        append(table)
        return table

    @pytest.mark.parametrize(
        ("method", "expected"),
        [
            ("version", "data"),
            ("row_count", "data"),
            ("hash", "data"),
            ("watermark", "data"),
            ("schema", None),
        ],
    )
    def test_back_to_other_rows(self, restored: Path, method: Method, expected: str | None) -> None:
        seen = look(dimension(restored, method))
        DeltaTable(str(restored)).restore(0)
        found = look(dimension(restored, method), seen.fingerprint)
        assert found.change == expected
        assert found.operations == ("RESTORE",)

    @pytest.mark.parametrize("method", ["row_count", "hash", "watermark"])
    def test_back_to_the_rows_that_were_seen(self, restored: Path, method: Method) -> None:
        seen = look(dimension(restored, method))
        append(restored, 20)
        DeltaTable(str(restored)).restore(1)
        assert look(dimension(restored, method), seen.fingerprint).change is None


class TestAnotherTable:
    """The path holds something else than was seen."""

    @pytest.mark.parametrize("method", DELTA_METHODS)
    @pytest.mark.parametrize("commits", [0, 1, 3])
    def test_created_anew(self, table: Path, method: Method, commits: int) -> None:
        append(table)
        seen = look(dimension(table, method))
        shutil.rmtree(table)
        write_deltalake(str(table), ROWS)
        for number in range(commits):
            append(table, number)
        found = look(dimension(table, method), seen.fingerprint)
        assert (found.change, found.reason) == ("replaced", "the table was created anew")
        assert look(dimension(table, method), found.fingerprint).change is None

    def test_put_back_from_a_backup(self, table: Path, tmp_path: Path) -> None:
        shutil.copytree(table, tmp_path / "backup")
        append(table)
        seen = look(dimension(table))
        shutil.rmtree(table)
        shutil.copytree(tmp_path / "backup", table)
        found = look(dimension(table), seen.fingerprint)
        assert (found.change, found.reason) == ("replaced", "its log went back from version 1 to 0")
        append(table, 77)
        found = look(dimension(table), seen.fingerprint)
        assert (found.change, found.reason) == (
            "replaced",
            "its log was rewritten: version 1 is another commit now",
        )

    def test_copied_as_it_was(self, table: Path, tmp_path: Path) -> None:
        seen = look(dimension(table))
        table.rename(tmp_path / "away")
        shutil.copytree(tmp_path / "away", table, copy_function=shutil.copyfile)
        found = look(dimension(table), seen.fingerprint)
        assert (found.change, found.problem) == (None, None)

    def test_made_another_table_by_a_commit(self, table: Path) -> None:
        seen = look(dimension(table))
        (metadata,) = (
            json.loads(line)["metaData"]
            for line in (table / "_delta_log" / log.commit_name(0)).read_text().splitlines()
            if "metaData" in json.loads(line)
        )
        commit(table, 1, {"metaData": {**metadata, "id": "another"}})
        found = look(dimension(table), seen.fingerprint)
        assert (found.change, found.reason) == ("replaced", "version 1 made it another table")


class TestCleanedLog:
    """Commits go after a while; a checkpoint takes their place."""

    def clean(self, table: Path, below: int) -> None:
        DeltaTable(str(table)).create_checkpoint()
        for version in range(below):
            (table / "_delta_log" / log.commit_name(version)).unlink()

    @pytest.mark.parametrize(
        ("method", "expected"), [("version", "data"), ("row_count", None), ("hash", None), ("schema", None)]
    )
    def test_commits_that_were_never_seen(self, table: Path, method: Method, expected: str | None) -> None:
        seen = look(dimension(table, method))
        append(table)
        DeltaTable(str(table)).delete("id = 10")
        self.clean(table, 2)
        found = look(dimension(table, method), seen.fingerprint)
        assert (found.change, found.problem) == (expected, None)
        if method == "version":
            assert (found.reason, found.commits) == (
                "commits 1 to 1 were cleaned up before they were seen",
                None,
            )

    def test_commits_that_were_seen(self, table: Path) -> None:
        append(table)
        seen = look(dimension(table))
        append(table, 20)
        self.clean(table, 2)
        found = look(dimension(table), seen.fingerprint)
        assert (found.change, found.commits) == ("data", 1)

    def test_only_a_checkpoint_is_left(self, table: Path) -> None:
        append(table)
        seen = look(dimension(table))
        self.clean(table, 2)
        found = look(dimension(table), seen.fingerprint)
        assert (found.change, found.problem, found.version) == (None, None, 1)
        # By hand, since delta-rs refuses to write here.
        commit(table, 2, {"remove": {"path": "gone.parquet", "dataChange": True, "deletionTimestamp": 1}})
        assert look(dimension(table), found.fingerprint).change == "data"

    def test_only_a_checkpoint_was_left_and_the_table_was_created_anew(self, table: Path) -> None:
        append(table)
        self.clean(table, 2)
        seen = look(dimension(table))
        shutil.rmtree(table)
        write_deltalake(str(table), ROWS)
        for number in range(3):
            append(table, number)
        found = look(dimension(table), seen.fingerprint)
        assert (found.change, found.reason) == ("replaced", "the table was created anew")


class TestStoredFingerprint:
    """What was stored may be anything."""

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "nonsense",
            "[]",
            "null",
            "{}",
            '{"v": 99}',
            '{"v": 1, "method": 3, "commit": {}, "schema": null}',
        ],
    )
    def test_one_that_cannot_be_read_starts_afresh(self, table: Path, text: str) -> None:
        found = look(dimension(table), text)
        assert (found.change, found.problem, found.first) == (None, None, True)
        assert "starting afresh" in found.reason
        assert look(dimension(table), found.fingerprint).reason == ""

    def test_one_of_another_method_starts_afresh(self, table: Path) -> None:
        seen = look(dimension(table, "row_count"))
        append(table)
        found = look(dimension(table, "hash"), seen.fingerprint)
        assert (found.change, found.first) == (None, True)
        assert found.reason == "the method was row_count and is hash now: starting afresh"

    @pytest.mark.parametrize("method", DELTA_METHODS)
    def test_reads_back_what_it_wrote(self, table: Path, method: Method) -> None:
        text = look(dimension(table, method)).fingerprint
        read = Fingerprint.from_text(text)
        assert read is not None
        assert read.to_text() == text


class TestRemoteLog:
    """The log through delta-rs' own storage says the same as the local file system."""

    def test_says_the_same(self, table: Path) -> None:
        append(table)
        local, remote = log.LocalLog(table), log.RemoteLog(table.as_uri())
        names = [log.commit_name(version) for version in (0, 1, 2)]
        assert sorted(local.names()) == sorted(remote.names())
        assert local.read(names[:2]) == remote.read(names[:2])
        sizes = [[mark and mark.size for mark in one.marks(names)] for one in (local, remote)]
        assert sizes[0] == sizes[1]
        assert [mark is None for mark in remote.marks(names)] == [False, False, True]
        with pytest.raises(FileNotFoundError):
            remote.read([names[2]])

    def test_no_table_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(delta, "open_log", lambda uri, options=None: log.RemoteLog(Path(uri).as_uri()))
        (tmp_path / "empty").mkdir()
        for name in ("nothing", "empty"):
            found = look(dimension(tmp_path / name))
            assert found.problem is not None
            assert found.problem.kind == "missing"

    def test_a_look_through_it(self, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(delta, "open_log", lambda uri, options=None: log.RemoteLog(Path(uri).as_uri()))
        seen = look(dimension(table))
        assert look(dimension(table), seen.fingerprint).change is None
        append(table)
        found = look(dimension(table), seen.fingerprint)
        assert (found.change, found.commits) == ("data", 1)


def test_change_id_is_the_same_for_the_same_change(table: Path) -> None:
    seen = look(dimension(table))
    append(table)
    first, second = (look(dimension(table), seen.fingerprint) for _ in range(2))
    assert first.change_id == second.change_id
    append(table)
    assert look(dimension(table), first.fingerprint).change_id != first.change_id
