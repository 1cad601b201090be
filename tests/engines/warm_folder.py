"""A folder of a test's own for warm processes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kindling_dagster.engines.warm.process import ask
from kindling_dagster.engines.warm.spec import FOLDER_VARIABLE, places


@contextmanager
def own_warm_folder() -> Iterator[Path]:
    """A short folder, below which warm processes are kept, by the environment; they end with it."""
    # Not in pytest's own folder, whose path can be too long for a socket.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        patch.setenv(FOLDER_VARIABLE, str(folder / "own"))
        yield folder
        for place in list(places(folder / "own")):
            ask(place, {"ask": "stop", "now": True})
            while place.socket.exists():
                time.sleep(0.1)
