"""Child processes that need no imports of their own.

They are forked off a server that has imported what they use and runs a single thread. Forked off the test process
itself, whose other threads (of gRPC, of pools of connections) do not exist in a child, they could find a lock
taken for ever.
"""

from __future__ import annotations

import multiprocessing

FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(
    [
        "kindling.bootstrap",
        "kindling.platform_standalone",
        "kindling_dagster.recorder",
        "kindling_dagster.streaming.store.store",
    ]
)
"""Python has one server per process, so what all users need is imported."""
