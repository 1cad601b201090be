"""Tables of plain files: by their listing, and by their rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kindling_dagster.streaming.dimensions import files
from kindling_dagster.streaming.dimensions.look import look
from kindling_dagster.streaming.dimensions.model import Dimension

ROWS = pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "rates"
    path.mkdir()
    pq.write_table(ROWS, path / "part-1.parquet")
    (path / "_SUCCESS").write_text("")
    return path


def dimension(
    location: Path | str, method: str = "files", provider: str = "parquet", **changes: object
) -> Dimension:
    return Dimension("ref.rates", provider, str(location), method, **changes)  # type: ignore[arg-type]


def reorder(folder: Path) -> None:
    (folder / "part-1.parquet").unlink()
    pq.write_table(ROWS.slice(1), folder / "part-3.parquet")
    pq.write_table(ROWS.slice(0, 1), folder / "part-2.parquet")


def touch(folder: Path) -> None:
    os.utime(folder / "part-1.parquet", (1, 1))


CHANGES: dict[str, tuple[Callable[[Path], object], str | None, str | None]] = {
    "nothing": (lambda folder: None, None, None),
    "a marker": (lambda folder: (folder / "_SUCCESS").write_text("again"), None, None),
    "a hidden file": (lambda folder: (folder / ".part.crc").write_text("x"), None, None),
    "another writer at work": (
        lambda f: ((f / "_temporary").mkdir(), (f / "_temporary" / "0").write_text("")),
        None,
        None,
    ),
    "one more file": (lambda folder: pq.write_table(ROWS, folder / "part-2.parquet"), "data", "data"),
    "the same rows in other files": (reorder, "data", None),
    "the same file at another time": (touch, "data", None),
    "other rows": (lambda folder: pq.write_table(ROWS.slice(1), folder / "part-1.parquet"), "data", "data"),
    "a column": (
        lambda folder: pq.write_table(
            ROWS.append_column("x", pa.array([1, 2, 3])), folder / "part-1.parquet"
        ),
        "data",
        "schema",
    ),
}


@pytest.mark.parametrize("method", ["files", "hash"])
@pytest.mark.parametrize(("act", "listing", "rows"), CHANGES.values(), ids=CHANGES)
def test_parquet(
    folder: Path, method: str, act: Callable[[Path], object], listing: str | None, rows: str | None
) -> None:
    seen = look(dimension(folder, method))
    assert (seen.first, seen.problem) == (True, None)
    act(folder)
    found = look(dimension(folder, method), seen.fingerprint)
    assert (found.change, found.problem) == (listing if method == "files" else rows, None)
    assert (found.changed_at is None) == (found.change is None)
    assert look(dimension(folder, method), found.fingerprint).change is None


def test_rows_are_read_only_when_the_listing_differs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = look(dimension(folder, "hash"))
    assert seen.rows == 3
    monkeypatch.setattr(files, "digest_rows", lambda _: pytest.fail("rows were read"))
    found = look(dimension(folder, "hash"), seen.fingerprint)
    assert (found.change, found.rows, found.problem) == (None, 3, None)


@pytest.mark.parametrize("method", ["files", "hash"])
def test_a_file_that_vanishes_after_it_was_listed_is_no_missing_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    seen = look(dimension(folder, method))
    pq.write_table(ROWS, folder / "part-2.parquet")
    real = files._is_data

    def vanish(path: Path) -> bool:
        if path.name == "part-2.parquet":
            (folder / path).unlink()
        return real(path)

    monkeypatch.setattr(files, "_is_data", vanish)
    found = look(dimension(folder, method), seen.fingerprint)
    assert (found.change, found.problem) == (None, None)


@pytest.mark.parametrize(("times", "problem"), [(1, None), (99, "error")])
def test_files_replaced_while_they_are_read_are_listed_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, times: int, problem: str | None
) -> None:
    seen = look(dimension(folder, "hash"))
    touch(folder)
    real, calls = files._parquet, []

    def replaced(watched: Dimension, listing: files.Listing) -> object:
        calls.append(listing)
        if len(calls) <= times:
            [file] = listing.files
            Path(file.path).rename(folder / f"part-{len(calls) + 1}.parquet")
        return real(watched, listing)

    monkeypatch.setattr(files, "_parquet", replaced)
    found = look(dimension(folder, "hash"), seen.fingerprint)
    assert found.change is None
    assert (found.problem.kind if found.problem else None) == problem
    assert found.fingerprint != seen.fingerprint or problem


def test_partitions_are_columns(tmp_path: Path) -> None:
    for year in (2023, 2024):
        (tmp_path / f"year={year}").mkdir()
        pq.write_table(ROWS.slice(0, year - 2022), tmp_path / f"year={year}" / "part.parquet")
    seen = look(dimension(tmp_path, "hash", columns=("id", "year")))
    (tmp_path / "year=2023" / "part.parquet").rename(tmp_path / "year=2024" / "other.parquet")
    assert (seen.problem, seen.rows) == (None, 3)
    assert look(dimension(tmp_path, "hash", columns=("id", "year")), seen.fingerprint).change == "data"
    without = look(dimension(tmp_path, "hash", columns=("id",)))
    (tmp_path / "year=2024" / "other.parquet").rename(tmp_path / "year=2023" / "part.parquet")
    assert look(dimension(tmp_path, "hash", columns=("id",)), without.fingerprint).change is None


CSV: dict[str, tuple[str, dict[str, str], str | None]] = {
    "rows in another order": ("id,name\n2,b\n1,a\n", {}, None),
    "quotes that are not needed": ('id,name\n1,"a"\n2,"b"\n', {}, None),
    "another value": ("id,name\n1,a\n2,c\n", {}, "data"),
    "a row twice": ("id,name\n1,a\n2,b\n2,b\n", {}, "data"),
    "a column": ("id,name,x\n1,a,\n2,b,\n", {}, "schema"),
    "a short row": ("id,name\n1,a\n2\n", {}, "data"),
}


@pytest.mark.parametrize(("text", "options", "expected"), CSV.values(), ids=CSV)
def test_csv_rows(tmp_path: Path, text: str, options: dict[str, str], expected: str | None) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("id,name\n1,a\n2,b\n")
    watched = dimension(path, "hash", "csv", options=options)
    seen = look(watched)
    assert (seen.rows, seen.problem) == (2, None)
    path.write_text(text)
    assert look(watched, seen.fingerprint).change == expected


def test_csv_of_another_dialect(tmp_path: Path) -> None:
    options = {"delimiter": ";", "quote": "'", "encoding": "latin-1", "header": "false"}
    path = tmp_path / "rates.csv"
    path.write_bytes("1;'a;b'\n2;ü\n".encode("latin-1"))
    watched = dimension(path, "hash", "csv", options=options, columns=("_c1",))
    seen = look(watched)
    assert (seen.problem, seen.rows) == (None, 2)
    path.write_bytes("9;ü\n8;'a;b'\n".encode("latin-1"))
    assert look(watched, seen.fingerprint).change is None


def test_a_pattern(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "c.txt"):
        (tmp_path / name).write_text("id\n1\n")
    watched = dimension(tmp_path / "*.csv", provider="csv")
    seen = look(watched)
    (tmp_path / "c.txt").write_text("changed")
    assert look(watched, seen.fingerprint).change is None
    (tmp_path / "b.csv").unlink()
    assert look(watched, seen.fingerprint).change == "data"


@pytest.mark.parametrize("method", ["files", "hash"])
def test_through_remote_storage(folder: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "local_path", lambda uri: None)
    watched = dimension(folder.as_uri(), method)
    seen = look(watched)
    assert (seen.problem, look(watched, seen.fingerprint).change) == (None, None)
    pq.write_table(ROWS.slice(1), folder / "part-1.parquet")
    assert look(watched, seen.fingerprint).change == "data"
    one = look(dimension((folder / "part-1.parquet").as_uri(), method))
    assert (one.problem, one.first) == (None, True)


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda folder: (folder / "part-1.parquet").unlink(), "missing"),
        (lambda folder: (folder / "part-1.parquet").write_text("no parquet at all"), "corrupt"),
    ],
)
def test_problems(folder: Path, spoil: Callable[[Path], object], kind: str) -> None:
    seen = look(dimension(folder, "hash"))
    spoil(folder)
    found = look(dimension(folder, "hash"), seen.fingerprint)
    assert found.problem is not None
    assert (found.problem.kind, found.fingerprint) == (kind, seen.fingerprint)


def test_no_such_column(folder: Path) -> None:
    found = look(dimension(folder, "hash", columns=("nope",)))
    assert found.problem is not None
    assert found.problem.kind == "configuration"


class TestCustom:
    """A callable of the user's."""

    def test_another_answer_is_a_change(self) -> None:
        answers = iter([{"n": 1}, {"n": 1}, {"n": 2}])
        watched = Dimension("ref.api", "rest", method="custom", custom=lambda: next(answers))
        first = look(watched)
        same = look(watched, first.fingerprint)
        other = look(watched, same.fingerprint)
        assert (first.first, same.change, other.change) == (True, None, "data")

    def test_one_that_fails_is_a_problem(self) -> None:
        watched = Dimension("ref.api", "rest", method="custom", custom=lambda: 1 // 0)
        found = look(watched)
        assert found.problem is not None
        assert (found.problem.kind, "ZeroDivisionError" in found.problem.message) == ("custom", True)
