"""In the place of spark-submit: a job that speaks Dagster Pipes as ours does, and runs nothing. Started by tests.

What it plays stands in PLAYED, a JSON list: ``["tell", pipe]`` tells that a pipe has succeeded, ``["skip", pipe]`` that
it had nothing new to read, ``["lose", pipe]`` counts a message and does not send it, ``["again"]`` sends the last one once
more, ``["commit", pipe]`` writes a commit as Spark does, ``["end"]``, ``["refuse", text]``, ``["die"]`` and ``["wait"]``,
until SIGTERM.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from dagster_pipes import open_dagster_pipes
from engines.spark_logs import FILLED_METRICS, write_log

from kindling_dagster.dag.results import PipeResult, PipeStatus
from kindling_dagster.engines.base import PipeFinished, PipeStarted
from kindling_dagster.engines.wire import error_to_json, event_to_json
from kindling_dagster.errors import RunError
from kindling_dagster.lineage.commits import CommitLineage, user_metadata
from kindling_dagster.remote.protocol import EXTRA, MESSAGE


def main() -> None:
    """Play it."""
    told_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_end.set())
    numbers = itertools.count()
    last: dict[str, Any] = {}
    with open_dagster_pipes() as pipes:

        def tell(**what: Any) -> None:
            last.clear()
            last.update({MESSAGE: {"n": next(numbers), **what}})
            pipes.report_custom_message(dict(last))

        run_id = pipes.get_extra(EXTRA)["request"]["run_id"]
        tell(hello={"pid": os.getpid(), "host": "here"})
        for step, *rest in json.loads(os.environ["PLAYED"]):
            pipe = rest[0] if rest else ""
            if step in ("tell", "skip"):
                tell(event=event_to_json(PipeStarted(pipe, 1, 1.0)))
                status = PipeStatus.SUCCEEDED if step == "tell" else PipeStatus.SKIPPED
                result = PipeResult(pipe, status, started_at=1.0, ended_at=2.0, attempts=1)
                tell(event=event_to_json(PipeFinished(result)))
            elif step == "lose":
                next(numbers)
            elif step == "again":
                pipes.report_custom_message(dict(last))
            elif step == "commit":
                lineage = CommitLineage(pipe, f"out.{pipe}", "acme", "1.0", run_id)
                commit = ("WRITE", user_metadata([lineage]), FILLED_METRICS)
                write_log(Path(os.environ["LAKE"]) / pipe, [commit])
            elif step == "end":
                tell(end=None)
            elif step == "refuse":
                tell(end=error_to_json(RunError(pipe, "Do something.")))
            elif step == "wait":
                Path(os.environ["LAKE"]).joinpath("waits").touch()
                told_to_end.wait()
                Path(os.environ["LAKE"]).joinpath("told").touch()
            elif step == "die":
                os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(0)


if __name__ == "__main__":
    main()
