"""For all tests: JVMs that warm up quickly; those marked ``faults`` or ``browser`` run only when asked for."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Tests run little on each JVM, so its optimising compiler costs more time than it saves: measured on
# three small Delta writes and merges, 32 s of CPU with these options against 56 s without. Without that
# compiler Java keeps 48 MB of compiled code, which Spark fills within two minutes, to throw out and compile again from
# then on. With room for all of it tests/running and test_starter.py in one JVM took 311 s of its CPU where they took
# 368 s (once each, other work beside them).
os.environ.setdefault(
    "JAVA_TOOL_OPTIONS",
    "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC -Xshare:auto",
)

# How long an example takes says more about the machine than about the code.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the heavier ones out of the default run, and of ``-m spark``."""
    asked = config.getoption("markexpr") or ""
    heavy = [marker for marker in ("faults", "browser") if marker not in asked]
    left_out = [item for item in items if any(map(item.get_closest_marker, heavy))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
