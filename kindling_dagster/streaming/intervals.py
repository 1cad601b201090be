"""Spark's interval texts (``10 seconds``, ``1 minute 30 seconds``) as seconds."""

from __future__ import annotations

import re
from typing import Any, Final

_UNITS: Final = {
    "microsecond": 1e-6,
    "millisecond": 1e-3,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3_600.0,
    "day": 86_400.0,
    "week": 604_800.0,
}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")
_WHOLE: Final = re.compile(rf"(?:interval\s+)?(?:{_PART.pattern}\s*)+")


def seconds_of(text: str) -> float:
    """Seconds of an interval as Spark writes it.

    Raises:
        ValueError: It is none, or has months in it, which have no fixed length.
    """
    clean = text.strip().lower()
    if not _WHOLE.fullmatch(clean):
        raise ValueError(f"{text!r} is not an interval such as '10 seconds'")
    seconds = 0.0
    for amount, unit in _PART.findall(clean):
        factor = _UNITS.get(unit.removesuffix("s"))
        if factor is None:
            raise ValueError(f"{text!r} has the unknown unit {unit!r}; use seconds, minutes, hours or days")
        seconds += float(amount) * factor
    return seconds


def trigger_seconds(trigger: Any) -> float:
    """Seconds between two batches that a trigger asks for; 0 where batches follow each other at once."""
    if not trigger or "processingTime" not in trigger:
        return 0.0
    return seconds_of(str(trigger["processingTime"]))
