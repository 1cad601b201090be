"""Helpers for tests of your own app: pipes on small frames, a throw-away instance, a stand-in for the stream host."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kindling_dagster.testing.instance import throwaway_instance
    from kindling_dagster.testing.pipes import PipeTester, RunOutcome
    from kindling_dagster.testing.streams import FakeStreamHost

__all__ = ["FakeStreamHost", "PipeTester", "RunOutcome", "throwaway_instance"]

# Fetched when first asked for: a test of sensors needs no PySpark, one of pipes no Dagster.
_HOMES = {
    "FakeStreamHost": "streams",
    "PipeTester": "pipes",
    "RunOutcome": "pipes",
    "throwaway_instance": "instance",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
