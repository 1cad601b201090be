"""``python -m kindling_dagster.engines.warm FOLDER KEY``: a warm process; reads its spec from standard input."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
from pathlib import Path

from kindling_dagster.engines.warm.server import WarmServer
from kindling_dagster.engines.warm.spec import WarmPlace, WarmSpec


def main(folder: str, key: str) -> None:
    """Serve until it is time to end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # It tells of each thread that has spoken to the JVM.
    logging.getLogger("py4j").setLevel(logging.WARNING)
    place = WarmPlace(Path(folder), key)
    spec = WarmSpec.from_json(sys.stdin.read())
    token = secrets.token_hex(32).encode()
    place.token.unlink(missing_ok=True)
    # Never readable by others, not even for a moment.
    with os.fdopen(os.open(place.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(token)
    server = WarmServer(spec, place, token)

    def end(*_: object) -> None:
        # Not on the main thread, which may hold the very lock that this takes.
        threading.Thread(target=server.end, args=("it was signalled",), kwargs={"now": True}).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
