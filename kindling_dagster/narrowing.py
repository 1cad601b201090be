"""Narrowing what pipes read in one run, through Kindling's own signal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

AFTER_READ: Final = "read.after_read"
"""Kindling's signal of a frame that a pipe is about to get; what a receiver gives takes its place."""


@contextmanager
def narrowed_reads(signals: Any, after_read: Callable[..., Any]) -> Iterator[None]:
    """Within it, pipes get what ``after_read`` makes of the frames they read.

    Args:
        signals: Kindling's SignalProvider.
        after_read: Receives the signal; None leaves a frame as it is.
    """
    signal = signals.create_signal(AFTER_READ)
    signal.connect(after_read, weak=False)
    try:
        yield
    finally:
        signal.disconnect(after_read)
