"""Writing to a table that others write too."""

from __future__ import annotations

import pytest

from kindling_dagster.streaming.conflicts import is_write_conflict, write_through_conflicts


class ConcurrentAppendException(Exception):
    """As Delta's, by name."""


class ConcurrentTransactionException(Exception):
    """As Delta's: the same batch was written by another query, which no repetition heals."""


@pytest.mark.parametrize(
    ("error", "conflict"),
    [
        (ConcurrentAppendException("files were added"), True),
        (
            RuntimeError(
                "io.delta.exceptions.ConcurrentDeleteReadException: [DELTA_CONCURRENT_DELETE_READ] …"
            ),
            True,
        ),
        (ConcurrentTransactionException("another"), False),
        (ValueError("poison"), False),
    ],
)
def test_what_a_conflict_is(error: Exception, conflict: bool) -> None:
    assert is_write_conflict(error) is conflict


@pytest.mark.parametrize(
    ("errors", "tries", "pauses", "ends_in"),
    [
        ([], 1, [], None),
        ([ConcurrentAppendException()] * 3, 4, [0.1, 0.2, 0.4], None),
        ([ConcurrentAppendException()] * 9, 4, [0.1, 0.2, 0.4], ConcurrentAppendException),
        ([ConcurrentAppendException(), ValueError()], 2, [0.1], ValueError),
    ],
)
def test_who_comes_second_tries_again(
    errors: list[Exception], tries: int, pauses: list[float], ends_in: type[Exception] | None
) -> None:
    left, made, waited = list(errors), [], []

    def write() -> None:
        made.append(1)
        if left:
            raise left.pop(0)

    def run() -> None:
        write_through_conflicts(write, "gold.priced", attempts=4, pause=waited.append)

    if ends_in is None:
        run()
    else:
        with pytest.raises(ends_in):
            run()
    assert (len(made), waited) == (tries, pauses)
