"""How old the last data of a source is: by its Delta log's last commit that changed data, or its files' times."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

from kindling_dagster.delta_log import local_path
from kindling_dagster.errors import RunError
from kindling_dagster.streaming.dimensions.log import LogFiles, open_log, read_commits, versions_in
from kindling_dagster.table_checks.declared import TableCheck, spell_age
from kindling_dagster.table_checks.keys import ANSWERED_BY
from kindling_dagster.table_checks.outcome import CheckOutcome

_FIRST_LOOK: Final = 10
_COMMITS: Final = 500
"""How far back the log is read: maintenance alone does not make more commits between two of data."""


@dataclass(frozen=True)
class LastData:
    """When data last came (Unix seconds); ``exact`` is False where it may have been even earlier."""

    at: float
    exact: bool
    source: str
    version: int | None = None


def check_freshness(
    check: TableCheck,
    provider: str,
    location: str,
    storage_options: Mapping[str, str] | None = None,
    now: float | None = None,
) -> CheckOutcome:
    """Whether the last data is young enough.

    Raises:
        RunError: When it came is not known: there is no data, or none of it within reach.
        Exception: Whatever storage raises.
    """
    assert check.max_age is not None
    last = (
        last_data_commit(open_log(location, storage_options), location)
        if provider == "delta"
        else newest_file(location)
    )
    age = timedelta(seconds=max(0.0, (time.time() if now is None else now) - last.at))
    passed = age <= check.max_age
    if passed and not last.exact:
        raise RunError(
            f"The log at {location} holds no commit of data any more: it came before {_moment(last.at)}.",
            "Give the source a longer log retention.",
        )
    metadata: dict[str, Any] = {
        "kindling/last_data": _moment(last.at),
        "kindling/age_hours": round(age.total_seconds() / 3600, 2),
        "kindling/max_age_hours": round(check.max_age.total_seconds() / 3600, 2),
        ANSWERED_BY: last.source,
    }
    if last.version is not None:
        metadata["kindling/delta_version"] = last.version
    least = "" if last.exact else "at least "
    return CheckOutcome(
        check.name,
        passed=passed,
        severe=check.severe,
        text=f"The last data is {least}{spell_age(age)} old; {spell_age(check.max_age)} is allowed.",
        metadata=metadata,
        blocking=check.blocking,
    )


def last_data_commit(log: LogFiles, location: str) -> LastData:
    """The last commit that changed data; OPTIMIZE, VACUUM and changes of the schema alone are none.

    Raises:
        RunError: There is no table, or no commit of it is left.
        CorruptLogError: A commit makes no sense.
    """
    versions = sorted(versions_in(log.names()).commits, reverse=True)[:_COMMITS]
    if not versions:
        raise RunError(f"There is no Delta table with commits at {location}.")
    oldest, done, step = time.time(), 0, _FIRST_LOOK
    while done < len(versions):
        for commit in read_commits(log, versions[done : done + step]):
            if commit.timestamp is None:
                continue
            oldest = min(oldest, commit.timestamp)
            if commit.data_change:
                return LastData(commit.timestamp, True, "the table's log", commit.version)
        done, step = done + step, step * 2
    return LastData(oldest, False, "the table's log")


def newest_file(location: str) -> LastData:
    """When the newest file of a folder, or a single file, was written.

    Raises:
        RunError: There is none, or they are not on this machine's disk.
    """
    path = local_path(location)
    if path is None:
        raise RunError(
            f"The files at {location} are not on a local disk, and no log tells of them.",
            "Keep the source as a Delta table, or switch the check off for it.",
        )
    times = [file.stat().st_mtime for file in _data_files(path)]
    if not times:
        raise RunError(f"There are no files at {path}.")
    return LastData(max(times), True, "the files' times")


def _data_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    # As Spark lists them: names that begin with a dot or an underscore are no data.
    return [
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
    ]


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
