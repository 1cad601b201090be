"""Whether an error of a stream can heal by itself: a table of rules, and what is read from an error to apply it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kindling_dagster.errors import RunError
from kindling_dagster.signals.plain import scrub_text
from kindling_dagster.streaming.model import ErrorKind, StreamError


class CheckpointError(RunError):
    """A stream's checkpoint is gone or does not fit: starting anew would lose or repeat rows. Cannot heal by itself."""


@dataclass(frozen=True)
class FailureRule:
    """What is known about a kind of error. All that is given must fit; the first rule that fits decides."""

    kind: ErrorKind
    suggestion: str = ""
    types: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    pattern: str = ""


class FailureClassifier:
    """Decides by an ordered table whether an error can heal."""

    def __init__(self, rules: Sequence[FailureRule] = ()) -> None:
        self.rules = tuple(rules)

    def extended(self, *rules: FailureRule) -> FailureClassifier:
        """A classifier with further rules that come before those of this one."""
        return FailureClassifier((*rules, *self.rules))

    def stream_error(
        self,
        error: BaseException | str,
        at: float,
        *,
        condition: str = "",
        mask: Callable[[str], str] = scrub_text,
    ) -> StreamError:
        """An exception, or the text of one as Spark's event gives it, as plain data without secrets."""
        raise NotImplementedError
