"""A Dagster instance that leaves nothing behind, streams' store included."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from dagster import DagsterInstance

from kindling_dagster.streaming.store import default_store_url
from kindling_dagster.streaming.store.location import STORE_URL_VARIABLE


@contextmanager
def throwaway_instance() -> Iterator[DagsterInstance]:
    """A Dagster instance of its own for one test, with a store of streams of its own.

    The environment variable ``KINDLING_DAGSTER_STORE_URL`` names that store meanwhile: no test reaches
    another one by a resource that states none.

    Example::

        with throwaway_instance() as instance:
            assert materialize([my_asset], instance=instance).success
    """
    stated = os.environ.get(STORE_URL_VARIABLE)
    # SQLite's files may still be open in a thread of Dagster's when the folder goes.
    with tempfile.TemporaryDirectory(prefix="kindling_dagster_", ignore_cleanup_errors=True) as folder:
        os.environ[STORE_URL_VARIABLE] = default_store_url(folder)
        try:
            with DagsterInstance.ephemeral(tempdir=folder) as instance:
                yield instance
        finally:
            if stated is None:
                del os.environ[STORE_URL_VARIABLE]
            else:
                os.environ[STORE_URL_VARIABLE] = stated
