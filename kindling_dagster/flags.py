"""How settings, tags and options say yes or no."""

from __future__ import annotations

from typing import Final

from kindling_dagster.errors import KindlingDagsterError

_YES: Final = ("true", "yes", "on", "1")
_NO: Final = ("false", "no", "off", "0")


def read_flag(value: object, name: str, error: type[KindlingDagsterError]) -> bool | None:
    """Yes or no; None where nothing is said (None or an empty text).

    Args:
        value: A truth value, or a text as settings files and tags have it, in any case.
        name: What holds it, to begin the message with.
        error: What to raise.

    Raises:
        KindlingDagsterError: Of the class asked for, when it says something else.
    """
    if isinstance(value, bool):
        return value
    text = "" if value is None else str(value).strip().lower()
    if text in _YES:
        return True
    if text in _NO:
        return False
    if not text:
        return None
    raise error(f"{name} is {value!r}.", "Use true or false.")
