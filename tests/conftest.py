"""For all tests: JVMs that warm up quickly."""

from __future__ import annotations

import os

from hypothesis import settings

# Tests run little on each JVM, so its optimising compiler costs more time than it saves: measured on
# three small Delta writes and merges, 32 s of CPU with these options against 56 s without.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto")

# How long an example takes says more about the machine than about the code.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
