"""Writing to a Delta table that others write too: who comes second tries again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from kindling_dagster.streaming.failure_rules import WRITE_CONFLICTS
from kindling_dagster.streaming.failures import FailureClassifier, facts_of

logger = logging.getLogger("kindling_dagster.streaming")

ATTEMPTS: Final = 8
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


def is_write_conflict(error: BaseException) -> bool:
    """Whether a write failed because another one was first with the same files, and may succeed when repeated."""
    return FailureClassifier().rule_for(facts_of(error)) in WRITE_CONFLICTS


def write_through_conflicts(
    write: Callable[[], None],
    what: str,
    *,
    attempts: int = ATTEMPTS,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Write, and again when another writer was first: 0.1, 0.2, 0.4 … seconds later, at most 5.

    Args:
        write: One statement that can be repeated: it writes all or nothing, and the same each time.
        what: Which table, for the log.
        attempts: How often at most.
        pause: Waits so many seconds.

    Raises:
        Exception: What ``write`` raised last, or what is no conflict.
    """
    for attempt in range(1, attempts + 1):
        try:
            write()
        except Exception as error:
            if attempt == attempts or not is_write_conflict(error):
                raise
            seconds = min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)
            logger.info(
                "Another writer was first at %s (%s); once more in %.1f s",
                what,
                type(error).__name__,
                seconds,
            )
            pause(seconds)
        else:
            return
