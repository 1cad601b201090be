"""Keeps the values of secrets out of whatever leaves an engine: errors, signals, metadata, log lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from kindling_dagster.dag.results import PipeResult
from kindling_dagster.engines.base import LogLine, PipeFinished, RunEvent, SignalSeen
from kindling_dagster.manifest import SecretRef
from kindling_dagster.secrets import SecretBook, environment_names


def masked(emit: Callable[[RunEvent], None], references: Iterable[SecretRef]) -> Callable[[RunEvent], None]:
    """``emit``, but with each secret's value replaced by its reference (``@secret:KEY``).

    A path that is a secret shows up in Spark's error texts and in a table's location; the values are
    looked up where Kindling's standalone platform finds them, and compared, never kept.
    """
    book = secret_book(references)
    if not book.resolved:
        return emit
    return lambda event: emit(_mask_event(event, book.mask))


def secret_book(references: Iterable[SecretRef]) -> SecretBook:
    """The secrets that can be resolved here, to mask their values in texts."""
    return SecretBook(
        {
            os.environ[name]: reference.key
            for reference in references
            for name in environment_names(reference.key)
            if name in os.environ
        }
    )


def _mask_event(event: RunEvent, mask: Callable[[str], str]) -> RunEvent:
    match event:
        case LogLine(level, message):
            return LogLine(level, mask(message))
        case SignalSeen(name, payload):
            return SignalSeen(name, _mask_plain(payload, mask))
        case PipeFinished(result):
            return PipeFinished(_mask_result(result, mask))
    return event


def _mask_result(result: PipeResult, mask: Callable[[str], str]) -> PipeResult:
    error = result.error
    if error is not None:
        error = replace(
            error,
            message=mask(error.message),
            suggestion=mask(error.suggestion),
            traceback=mask(error.traceback),
        )
    return replace(
        result, error=error, reason=mask(result.reason), metadata=_mask_plain(result.metadata, mask)
    )


def _mask_plain(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {key: _mask_plain(item, mask) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mask_plain(item, mask) for item in value]
    return value
