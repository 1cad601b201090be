"""What can go wrong with the store, told apart by what the caller can do about it."""

from __future__ import annotations

from kindling_dagster.errors import KindlingDagsterError


class StoreError(KindlingDagsterError):
    """Root of the store's errors. Itself: something that neither waiting nor trying again mends."""


class StoreUnavailable(StoreError):  # noqa: N818
    """The store did not answer within its limit (locked, full, not reachable): try again later.

    Nothing of the refused transaction was written, or all of it: repeating the same call is always safe.
    """


class StoreReplaced(StoreError):  # noqa: N818
    """The store this handle was opened on is gone: deleted, or another one is in its place.

    Open it again. What it held (desired states, leases, history) is lost or is another's.
    """


class StoreCorrupted(StoreError):  # noqa: N818
    """The store's file, or a row of it, cannot be read. It is never replaced by an empty one silently."""


class StoreVersionError(StoreError):
    """The store was written by a newer version of this package, which this one might damage."""


class LeaseLost(StoreError):  # noqa: N818
    """A newer host holds the project's lease, or this one gave it back: stop the streams, write nothing."""


class ConflictError(StoreError):
    """A document was changed by another since it was read: read it again, decide again.

    Args:
        message: Which document.
        version: The version it has now.
        suggestion: What to do.
    """

    def __init__(self, message: str, version: int = 0, suggestion: str = "") -> None:
        super().__init__(message, suggestion)
        self.version = version
