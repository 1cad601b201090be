"""What only Spark can read is looked at by the stream host, in its session; the dimension sensor says what.

The sensor writes what it cannot see into a document of the store; the host writes fingerprints, and an
error where it cannot see it either. Both are repeated until they fit, so neither waits for the other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from kindling_dagster.signals.plain import scrub_text
from kindling_dagster.streaming.dimensions.fingerprint import session_key
from kindling_dagster.streaming.dimensions.in_session import fingerprint_in_session
from kindling_dagster.streaming.dimensions.look import compare
from kindling_dagster.streaming.dimensions.model import Dimension, DimensionLook, DimensionProblem
from kindling_dagster.streaming.store.errors import ConflictError, StoreError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger("kindling_dagster.streaming")

KIND: Final = "dimensions"
ASKED: Final = "for_session"
"""Key of the document in which the sensor says what the host is to look at."""
FAILED: Final = "session_errors"
"""Key of the document in which the host says what it could not look at, and why."""
INTERVAL_SECONDS: Final = 30.0
_SHARE: Final = 20
"""A look that takes long is repeated after this many times as long: it reads the table as a whole."""
_LONGEST_SECONDS: Final = 600.0
_BY_SESSION: Final = ("needs_spark", "unsupported")


class LookStore(Protocol):
    """What looks in a session need of the stream store."""

    def document(self, kind: str, key: str) -> tuple[Any, int]:
        """A small state and its version."""

    def put_document(self, kind: str, key: str, value: Any, expected: int) -> int:
        """Write it if nobody has meanwhile; ConflictError otherwise."""

    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each entity."""

    def put_fingerprint(self, entity_id: str, text: str) -> None:
        """Remember an entity's fingerprint."""


def needs_session(found: DimensionLook) -> bool:
    """Whether a look failed because only Spark can read the table."""
    return found.problem is not None and found.problem.kind in _BY_SESSION


def ask_session(store: LookStore, dimensions: Iterable[Dimension]) -> None:
    """Say which dimensions the host is to look at in its session; writes only when that has changed."""
    wanted = {
        item.entity_id: {"method": item.method, "columns": list(item.columns), "keys": list(item.keys)}
        for item in dimensions
    }
    known, version = store.document(KIND, ASKED)
    if (known or {}) == wanted:
        return
    try:
        store.put_document(KIND, ASKED, wanted, version)
    except ConflictError:
        logger.info("Another sensor has asked the stream host for its looks at the same moment.")


def seen_in_session(
    store: LookStore, dimension: Dimension, found: DimensionLook, fingerprints: Mapping[str, str]
) -> DimensionLook:
    """A look that needs Spark, answered by what the host has seen: a change, nothing, or why it cannot either."""
    errors, _ = store.document(KIND, FAILED)
    error = (errors or {}).get(dimension.entity_id)
    current = fingerprints.get(session_key(dimension.entity_id))
    if current is not None and error is None:
        return compare(dimension, found.previous_fingerprint, current)
    assert found.problem is not None
    why = f"the stream host cannot read it: {error}" if error else "no stream host has looked at it yet"
    told = (
        f"{found.problem.message} In the session {why}."
        if error
        else f"{found.problem.message} So far {why}."
    )
    wrong = DimensionProblem(found.problem.kind, told, found.problem.suggestion)
    return DimensionLook(
        found.entity_id,
        found.method,
        fingerprint=found.fingerprint,
        previous_fingerprint=found.previous_fingerprint,
        reason=told,
        problem=wrong,
    )


def look_in_session(
    store: LookStore,
    read: Callable[[str], DataFrame],
    mask: Callable[[str], str] = scrub_text,
    may_write: Callable[[], bool] = lambda: True,
) -> tuple[str, ...]:
    """Look once at what the sensor has asked for, and write down what was seen.

    Args:
        store: The project's store.
        read: Gives an entity's rows as Kindling reads them.
        mask: Takes secrets out of an error's text, such as a location that is one.
        may_write: Whether this host still may: one that was frozen in its look would bring back what was.

    Returns:
        The entities whose fingerprint has changed.

    Raises:
        StoreError: The store cannot be read or written.
    """
    asked, _ = store.document(KIND, ASKED)
    before = store.fingerprints()
    changed: list[str] = []
    errors: dict[str, str] = {}
    for entity_id, how in (asked or {}).items():
        dimension = Dimension(
            entity_id, method=how["method"], columns=tuple(how["columns"]), keys=tuple(how["keys"])
        )
        try:
            text = fingerprint_in_session(dimension, read(entity_id))
        except Exception as error:  # a table's trouble must not keep the others from being looked at
            lines = str(error).strip().splitlines()
            errors[entity_id] = mask(f"{type(error).__name__}: {lines[0] if lines else ''}")[:400]
            continue
        if not may_write():
            return tuple(changed)
        if text != before.get(session_key(entity_id)):
            store.put_fingerprint(session_key(entity_id), text)
            changed.append(entity_id)
    known, version = store.document(KIND, FAILED)
    if (known or {}) != errors and may_write():
        store.put_document(KIND, FAILED, errors, version)
    return tuple(changed)


class SessionLooks:
    """Looks again and again on a thread of its own, so that a long one holds up no stream.

    Args:
        store: The project's store.
        read: Gives an entity's rows.
        prepare: Called first on the thread: makes the session its active one.
        interval: Seconds between two looks.
        mask: As for ``look_in_session``.
        may_write: As for ``look_in_session``.
    """

    def __init__(
        self,
        store: LookStore,
        read: Callable[[str], DataFrame],
        prepare: Callable[[], None] = lambda: None,
        interval: float = INTERVAL_SECONDS,
        *,
        mask: Callable[[str], str] = scrub_text,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._prepare, self._interval = prepare, interval
        self._look = partial(look_in_session, store, read, mask, may_write)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dimension looks", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """End after the look under way; one that hangs is left behind. Returns whether it ended in time."""
        self._ended.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._prepare()
        except Exception:
            logger.exception("Dimensions that only Spark can read are not looked at")
            return
        pause = 0.0
        while not self._ended.wait(pause):
            began = time.monotonic()
            try:
                self._look()
            except StoreError as error:
                logger.info("Looks in the session are told later: %s", error)
            except Exception:
                # Whatever it is: the streams go on, and so do these looks.
                logger.exception("Looking at dimensions in the session failed")
            spent = time.monotonic() - began
            pause = max(self._interval, min(_SHARE * spent, _LONGEST_SECONDS))
