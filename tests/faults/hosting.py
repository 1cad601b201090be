"""One stream host as a process of its own: what the fault tests start and kill.

``python -m faults.hosting APP STORE_URL [SETTINGS_JSON [OVERRIDES_JSON [SPARK_JSON]]]``. Exit codes: 0 ended in good
order, 3 refused, 4 lost, 5 could not start; the last line of its output says why.
"""

from __future__ import annotations

import json
import signal
import sys
import threading

from kindling_dagster import KindlingProject
from kindling_dagster.engines.base import LogLine
from kindling_dagster.errors import SparkSetupError
from kindling_dagster.spark import build_session
from kindling_dagster.streaming.host import HostLostError, HostRefusedError, HostSettings, run_host

CONF = {
    "spark.master": "local[2]",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.driver.memory": "1g",
    "spark.ui.enabled": "false",
}


def main(app: str, store_url: str, settings: str = "{}", overrides: str = "{}", conf: str = "{}") -> int:
    """Run the host until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def tell(event: object) -> None:
        if isinstance(event, LogLine):
            print(event.level, event.message, flush=True)

    try:
        ended = run_host(
            KindlingProject(app),
            store_url,
            lambda: build_session({**CONF, **json.loads(conf)}),
            stop=stop,
            settings=HostSettings(**json.loads(settings)),
            overrides=json.loads(overrides),
            emit=tell,
        )
    except HostRefusedError as error:
        print("refused:", error, flush=True)
        return 3
    except HostLostError as error:
        print("lost:", error, flush=True)
        return 4
    except SparkSetupError as error:
        print("failed:", error, flush=True)
        return 5
    print("ended:", ended.reason, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
