"""The errors of the signals package."""

from __future__ import annotations

from kindling_dagster.errors import KindlingDagsterError


class SignalError(KindlingDagsterError):
    """Something is wrong with a signal."""


class SignalNameError(SignalError):
    """A signal's name breaks the convention, or no EMITS list declares it (strict mode)."""


class PayloadError(SignalError):
    """A text is not the JSON form of a payload."""
