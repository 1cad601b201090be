"""Takes the landed files of the app at the first argument; at the moment that the second names, it is killed.

``moving``: when the first of the files has been moved; ``committed``: when the table has the rows and nothing
says so yet; ``never``. Started by the tests.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from dagster import DagsterInstance

from kindling_dagster import KindlingProject, build_kindling_definitions
from kindling_dagster.ingestion import batches


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(moment: str) -> None:
    """Have the process be killed at that moment, which from outside could only be guessed."""
    if moment == "committed":
        batches.Batches.finish = die  # type: ignore[method-assign]
    if moment == "moving":
        move = batches._move

        def one(*arguments: Any) -> None:
            move(*arguments)
            die()

        batches._move = one


def main() -> None:
    kill_at(sys.argv[2])
    defs = build_kindling_definitions(KindlingProject(Path(sys.argv[1])), checks=False)
    with DagsterInstance.ephemeral() as instance:
        defs.resolve_job_def("shop_ingest").execute_in_process(instance=instance)


if __name__ == "__main__":
    main()
