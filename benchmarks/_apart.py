"""A folder of a benchmark's own for what runs keep beside the app: recorded manifests and warm processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kindling_dagster.engines.warm.process import ask
from kindling_dagster.engines.warm.spec import FOLDER_VARIABLE, places


@contextmanager
def apart(folder: Path) -> Iterator[None]:
    """Keep manifests and warm processes below ``folder``; the processes end with it."""
    changed = {"KINDLING_DAGSTER_CACHE": str(folder / "cache"), FOLDER_VARIABLE: str(folder / "warm")}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for place in list(places(folder / "warm")):
            ask(place, {"ask": "stop", "now": True})
            while place.socket.exists():
                time.sleep(0.1)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
