"""Whether a host's process has died: known sooner than its lease ends, where it can be known for certain."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path

from kindling_dagster.streaming.model import HostInfo

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


@lru_cache(maxsize=1)
def machine_id() -> str:
    """Equal for two processes exactly when a process id means the same process to both.

    Two containers may have the same name and the same kernel, but see different processes; so on Linux
    the boot and the namespace of process ids are part of it.
    """
    try:
        return f"{socket.gethostname()}/{_BOOT.read_text().strip()}/{_NAMESPACE.readlink()}"
    except OSError:
        return socket.gethostname()


def process_gone(host: HostInfo) -> bool:
    """Whether the host's process is known to have died. False for one elsewhere, or where it cannot be told."""
    if host.pid <= 0 or host.machine != machine_id():
        return False
    try:
        os.kill(host.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _is_zombie(host.pid)


def _is_zombie(pid: int) -> bool:
    """Whether it has ended and only its parent has not asked how. Only Linux tells."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "Z"
