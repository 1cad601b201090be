"""A folder of a test's own for warm processes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster.standalone import wait_for

from kindling_dagster.engines.warm.process import ask
from kindling_dagster.engines.warm.spec import FOLDER_VARIABLE, places


@contextmanager
def own_warm_folder(seconds: float = 120) -> Iterator[Path]:
    """A short folder, in whose ``own`` warm processes are kept, by the environment.

    They end with it, within so many seconds each.
    """
    # Not in pytest's own folder, whose path can be too long for a socket.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        patch.setenv(FOLDER_VARIABLE, str(folder / "own"))
        try:
            yield folder
        finally:
            for place in list(places(folder / "own")):
                ask(place, {"ask": "stop", "now": True})
                wait_for("its end", lambda place=place: not place.socket.exists(), seconds)
