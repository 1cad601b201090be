"""Whether a process of this machine has died: known sooner than its lease ends."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def process_gone(hostname: str, pid: int) -> bool:
    """Whether the process is known to have died. False for one on another machine, or that cannot be told."""
    if pid <= 0 or hostname != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether it has ended and only its parent has not asked how. Only Linux tells."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "Z"
