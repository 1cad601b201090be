"""Batches: each file exactly once whenever a run is killed, and what is where afterwards."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifests import entity, manifest

from kindling_dagster.errors import DeclarationError, RunError
from kindling_dagster.ingestion.batches import Batches, _move
from kindling_dagster.ingestion.landing import Entries, IngestionPaths, LandedFile
from kindling_dagster.manifest import IngestionSpec, Manifest


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it."""


class Table:
    """A Delta table: what is committed under an application id and version is not committed again."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self._versions: dict[str, int] = {}

    def write(self, directory: Path, app_id: str, version: int) -> None:
        if self._versions.get(app_id, 0) >= version:
            return
        self._versions[app_id] = version
        self.rows.update(path.read_text() for path in sorted(directory.iterdir()))


def ingest(batches: Batches, paths: IngestionPaths, write: Any) -> None:
    """What a run does."""
    with batches.locked():
        pending = batches.pending()
        if pending is not None:
            batches.run(pending, write)
        files = paths.files(now=time.time() + 60)
        if files:
            batches.run(batches.begin(files), write)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    kills=st.lists(st.integers(0, 12), max_size=6),
    arrivals=st.lists(st.integers(0, 2), min_size=1, max_size=7),
)
def test_each_file_exactly_once_whenever_runs_are_killed(
    tmp_path_factory: pytest.TempPathFactory, kills: list[int], arrivals: list[int]
) -> None:
    root = tmp_path_factory.mktemp("lake")
    (root / "landing").mkdir()
    paths = IngestionPaths(root / "landing", root / "archive")
    batches, table, names = Batches(paths.landing, paths.archive), Table(), itertools.count()
    landed: Counter[str] = Counter()
    real_rename, real_touch, real_replace = Path.rename, Path.touch, Path.replace

    def run(steps: int | None) -> None:
        left = itertools.count() if steps is None else iter(range(steps))

        def step(call: Any) -> Any:
            def counted(*arguments: Any, **options: Any) -> Any:
                if next(left, None) is None:
                    raise Killed
                return call(*arguments, **options)

            return counted

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "rename", step(real_rename))
            patch.setattr(Path, "touch", step(real_touch))
            patch.setattr(Path, "replace", step(real_replace))
            try:
                ingest(batches, paths, step(table.write))
            except Killed:
                assert steps is not None

    for number, kill in itertools.zip_longest(arrivals, kills):
        for _ in range(number or 0):
            serial = next(names)
            # Names come again: a file of the same name is another file.
            (paths.landing / f"orders_{serial % 3}.csv").write_text(f"content {serial}") if not (
                paths.landing / f"orders_{serial % 3}.csv"
            ).exists() else None
        landed.update(path.read_text() for path in paths.landing.iterdir() if path.read_text() not in landed)
        run(kill)
    run(None)
    assert table.rows == Counter(dict.fromkeys(landed, 1))
    assert not list(paths.landing.iterdir())
    assert batches.pending() is None
    kept = [path.read_text() for path in paths.archive.rglob("*.csv")]
    assert Counter(kept) == table.rows


def test_a_batch_that_cannot_be_written_is_tried_again_before_any_other(tmp_path: Path) -> None:
    paths = IngestionPaths(tmp_path / "landing", tmp_path / "archive")
    paths.landing.mkdir()
    (paths.landing / "bad.csv").write_text("bad")
    batches, table = Batches(paths.landing, paths.archive), Table()

    def fail(*_: Any) -> None:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        ingest(batches, paths, fail)
    (paths.landing / "good.csv").write_text("good")
    with pytest.raises(ValueError, match="bad"):
        ingest(batches, paths, fail)
    assert (paths.landing / "good.csv").exists()
    (paths.archive / "batch-00000001" / "bad.csv").unlink()  # a person gives it up
    ingest(batches, paths, table.write)
    assert dict(table.rows) == {"good": 1}


def test_only_one_run_at_a_time(tmp_path: Path) -> None:
    first, second = (Batches(tmp_path / "landing", tmp_path / "archive") for _ in range(2))
    with first.locked(), pytest.raises(RunError, match="Another run takes the files"), second.locked():
        pass
    with second.locked():
        assert first.app_id == second.app_id
    assert Batches(tmp_path, tmp_path / "other").archive != tmp_path / "archive"


def test_a_move_between_disks_that_was_cut_off_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "a.csv", tmp_path / "to" / "a.csv"
    target.parent.mkdir()
    source.write_text("one")

    def other_disk(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", other_disk)
    state = source.stat()
    file = LandedFile("a.csv", state.st_size, state.st_mtime_ns)
    _move(source, target, file)
    assert (source.exists(), target.read_text()) == (False, "one")
    target_state = target.stat()
    source.write_text("one")
    os.utime(source, ns=(target_state.st_atime_ns, file.changed))
    _move(source, target, file)  # the same file: its first half was done
    assert not source.exists()
    source.write_text("another")
    _move(source, target, file)  # landed since, under the same name
    assert (source.read_text(), target.read_text()) == ("another", "one")


def app(**entry: Any) -> Manifest:
    values: dict[str, Any] = {
        "patterns": (r"(?P<region>\w+)_orders_\d+\.csv", r"(?P<region>\w+)\.json"),
        "dest_entity_id": "bronze.orders_{region}",
    }
    named = ("bronze.orders_eu", "bronze.orders_us", "bronze.returns", "silver.orders_eu")
    return manifest(
        entities=(*map(entity, named), entity("bronze.orders_csv", provider="csv")),
        ingestion=(
            IngestionSpec("returns", "returns", (r"returns\.csv",), "bronze.returns"),
            IngestionSpec("orders", "orders", **{**values, **entry}),
        ),
        settings={
            "kindling.dagster.ingestion.landing": "landing",
            "kindling.dagster.ingestion.archive": "archive",
        },
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("returns.csv", "bronze.returns"),
        ("eu_orders_1.csv", "bronze.orders_eu"),
        ("us.json", "bronze.orders_us"),
        ("asia_orders_1.csv", "bronze.orders_asia"),
        ("orders.xml", None),
        ("my eu_orders_1.csv", None),
    ],
)
def test_where_a_file_goes(name: str, expected: str | None) -> None:
    assert Entries(app()).destination(name) == expected


def test_files_that_go_nowhere_are_told_and_templates_reach_what_fits() -> None:
    files = [LandedFile(name, 1, 1) for name in ("eu_orders_1.csv", "asia.json", "x.xml", "eu.json")]
    fit, rest = Entries(app()).sorted(files, {"bronze.orders_eu"})
    assert {id_: [file.name for file in found] for id_, found in fit.items()} == {
        "bronze.orders_eu": ["eu_orders_1.csv", "eu.json"]
    }
    assert [file.name for file in rest] == ["asia.json", "x.xml"]
    reached = Entries(app()).reachable()
    assert list(reached) == ["bronze.returns", "bronze.orders_eu", "bronze.orders_us"]
    with pytest.raises(DeclarationError, match="a file could be taken twice"):
        Entries(app(dest_entity_id="bronze.orders_csv")).reachable()
    with pytest.raises(DeclarationError, match="discovered by autoloader"):
        Entries(app(discovery="autoloader")).reachable()


@pytest.mark.parametrize(
    ("patterns", "destination", "words"),
    [
        ((r"(?P<region>\w+)\.csv", r"\w+\.json"), "bronze.orders_{region}", "no group 'region'"),
        ((r"(\w+)\.csv",), "bronze.orders_{}", "no group ''"),
        ((r"(?P<a>\w+)\.csv",), "bronze.{a}_{b}", "no group 'b'"),
        ((r"(?P<a>\w+)\.csv",), "bronze.{a", "no template"),
        ((r"(\w+",), "bronze.orders_eu", "no regular expression"),
    ],
)
def test_patterns_that_cannot_name_their_entity_are_refused_at_load(
    patterns: tuple[str, ...], destination: str, words: str
) -> None:
    entries = Entries(app(patterns=patterns, dest_entity_id=destination))
    with pytest.raises(DeclarationError, match=words):
        entries.reachable()


def test_files_are_taken_once_they_have_settled(tmp_path: Path) -> None:
    paths = IngestionPaths.of(app(), tmp_path)
    assert paths is not None
    assert paths.files() == []
    paths.landing.mkdir()
    for name in ("b.csv", "a.csv", ".hidden", "_tmp.csv", "c.csv.part", "d.csv~"):
        (paths.landing / name).touch()
    (paths.landing / "folder").mkdir()
    assert paths.files() == []
    assert [file.name for file in paths.files(now=time.time() + 10)] == ["a.csv", "b.csv"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"archive": None}, "Set kindling.dagster.ingestion.archive"),
        ({"landing": "s3://bucket/landing"}, "is no directory of this machine"),
        ({"archive": "landing"}, "Give the archive a directory beside it"),
        ({"archive": "landing/archive"}, "Give the archive a directory beside it"),
        ({"settle": "long"}, "Give a number of seconds"),
    ],
)
def test_paths_that_do_not_go_together(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    from dataclasses import replace

    made = app()
    said = {f"kindling.dagster.ingestion.{name}": value for name, value in changes.items()}
    with pytest.raises(DeclarationError, match=told):
        IngestionPaths.of(replace(made, settings={**made.settings, **said}), tmp_path)
    assert IngestionPaths.of(replace(made, settings={}), tmp_path) is None
