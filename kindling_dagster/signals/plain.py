"""Any Python value as plain JSON data: bounded, no live objects, secrets masked. Never raises."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import islice
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

MASK: Final = "***"
"""What stands in place of a secret."""

MAX_DEPTH: Final = 6
MAX_ITEMS: Final = 1_000
MAX_TEXT: Final = 20_000
"""Limits of one value: nesting, items per list or mapping, characters per text. What is cut is said."""

_MAX_INT_BITS: Final = 1_024  # Python refuses to print an int of more than 4,300 digits

# Between "account" and "Key", and every separator: accountKey, account.key and account-key are one name.
_WORD_EDGE: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_SECRET_KEY: Final = re.compile(
    r"pass(word|wd|phrase)|(^|_)pwd(_|$)|secret|token|credential|authorization|(^|_)sas(_|$)"
    r"|connection_?str(ing)?|(account|access|api|private|shared|storage|encryption|signing)_?key|(^|_)key$"
)
# Keys of the data model are not secrets, though their names end in "key".
_DATA_KEY: Final = re.compile(
    r"(primary|foreign|partition|surrogate|business|natural|merge|sort|cluster|join|dedup|dedupe)_?key$"
)

_SECRET_TEXT: Final = re.compile(
    # Bounded, or a long text without a URL would cost the square of its length.
    r"(?P<user>\b[a-z][a-z0-9+.-]{0,30}://[^\s:/@]{0,200}:)[^\s/@]{1,2000}(?=@)"
    r"|(?P<pair>\b(?:password|passwd|pwd|secret|client_?secret|access_?token|token|api_?key|account_?key"
    r"|shared_?access_?key|shared_?access_?signature|sig|aws_secret_access_key)[\"']?\s*[=:]\s*[\"']?)"
    r"(?!\*\*\*)[^\s;,&\"')}\]]+"
    r"|(?P<bearer>\bbearer\s+)[a-z0-9._~+/=-]{8,}",
    re.IGNORECASE,
)


@lru_cache(maxsize=4_096)
def is_secret_key(key: str) -> bool:
    """Whether a key's name says that its value is a secret (``password``, ``accountKey``, ``sas_token`` …)."""
    snake = _WORD_EDGE.sub("_", key[:200]).lower()
    return bool(_SECRET_KEY.search(snake)) and not _DATA_KEY.search(snake)


def scrub_text(text: str) -> str:
    """The text with passwords in URLs, ``password=…`` pairs and bearer tokens masked.

    A text that is a reference to a secret (``@secret:NAME``) is masked as a whole.
    """
    if ":" not in text and "=" not in text and "earer" not in text.lower():
        return text  # nothing below can match; most texts are ids
    if text.lstrip().lower().startswith("@secret:"):
        return MASK
    return _SECRET_TEXT.sub(_masked, text)


def scrub_data(data: Any) -> Any:
    """Plain data with each text in it scrubbed, so that what is made of it stays JSON."""
    if isinstance(data, str):
        return scrub_text(data)
    if isinstance(data, Mapping):
        return {scrub_data(key): scrub_data(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [scrub_data(value) for value in data]
    return data


def _masked(match: re.Match[str]) -> str:
    return (match["user"] or match["pair"] or match["bearer"] or "") + MASK


def describe(value: object) -> str:
    """A live object in a few words: its type, and the id of a Kindling entity or pipe.

    Only the instance's own dictionary is read: a DataFrame answers attribute access with a Spark call.
    """
    name = type(value).__name__
    try:
        own = object.__getattribute__(value, "__dict__")
        found = next((own[key] for key in ("entityid", "pipeid") if isinstance(own.get(key), str)), None)
    except Exception:  # an object without a dictionary, or with one that objects
        found = None
    return f"{name}({scrub_text(found)})" if found else name


def plain(value: Any, key: str = "") -> Any:
    """``value`` as data that ``json.dumps`` takes.

    Args:
        value: Anything. Times become ISO text, durations seconds, enums their values, exceptions
            ``Type: message``; numbers that JSON lacks become text; anything else ``describe``s itself.
        key: The name the value is stored under; one that ``is_secret_key`` gives ``MASK``.
    """
    try:
        return _plain(value, key, 0)
    except Exception:  # a value whose own methods raise; its type's name is safe
        return type(value).__name__


def _plain(value: Any, key: str, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    # No secret is a float, while seconds stand under the ids of pipes such as `bronze.token_usage`.
    if key and is_secret_key(key) and not isinstance(value, float):
        return MASK
    scalar = _scalar(value)
    if scalar is not None:
        return scalar
    if type(value).__module__.startswith("pyspark."):
        return describe(value)  # a Row is a tuple; rows never enter a payload
    if isinstance(value, Mapping):
        return _mapping(value, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return _items(value, depth)
    return describe(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return _text(str(value))
    if isinstance(value, int):
        bits = value.bit_length()
        return int(value) if bits <= _MAX_INT_BITS else f"int of {bits} bits"
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | UUID | PurePath):
        return _text(str(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, BaseException):
        return _text(f"{type(value).__name__}: {value}")
    return None


def _text(text: str) -> str:
    # Scrubbed before it is cut: a cut through a secret would leave its beginning unrecognised.
    clean = scrub_text(text)
    if len(clean) > MAX_TEXT:
        return f"{clean[:MAX_TEXT]}… ({len(clean)} characters)"
    return clean


def _mapping(value: Mapping[Any, Any], depth: int) -> Any:
    if depth >= MAX_DEPTH:
        return f"{type(value).__name__} of {len(value)}"
    made: dict[str, Any] = {}
    for key, item in islice(value.items(), MAX_ITEMS):
        name = scrub_text(key) if isinstance(key, str) else str(plain(key))
        made[name] = _guarded(item, name, depth + 1)
    if len(value) > MAX_ITEMS:
        made["…"] = f"{len(value) - MAX_ITEMS} more"
    return made


def _items(value: Iterable[Any], depth: int) -> Any:
    size = len(value)  # type: ignore[arg-type]
    if depth >= MAX_DEPTH:
        return f"{type(value).__name__} of {size}"
    made = [_guarded(item, "", depth + 1) for item in islice(value, MAX_ITEMS)]
    if size > MAX_ITEMS:
        made.append(f"… {size - MAX_ITEMS} more")
    return made


def _guarded(value: Any, key: str, depth: int) -> Any:
    try:
        return _plain(value, key, depth)
    except Exception:  # one bad item must not cost the others
        return type(value).__name__
