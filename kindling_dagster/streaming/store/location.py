"""Where the store is: its default place, and its URL as it may be shown."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote

STORE_FILE = "kindling_streams.db"
STORE_URL_VARIABLE = "KINDLING_DAGSTER_STORE_URL"

_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?]+)")
_USER_PASSWORD = re.compile(r"(://[^:@/]*):.*@", re.DOTALL)
"""Up to the last ``@``: a password that was not quoted may hold any character. Rather too much than too little."""
_OPTION_PASSWORD = re.compile(r"((?:^|[?&\s])[a-z_]*pass[a-z_]*=)[^&\s]*", re.IGNORECASE)


def default_store_url(storage_directory: str) -> str:
    """The URL of the SQLite store in a folder, as a rule Dagster's ``instance.storage_directory()``."""
    path = Path(storage_directory).absolute() / STORE_FILE
    return f"sqlite:///{quote(str(path))}"


def sqlite_path(url: str) -> Path | None:
    """The file that a SQLite URL names; None for other URLs and for a database in memory.

    SQLAlchemy's versions differ in whether ``%3F`` and its like stand for a character there; here they do.
    """
    found = _SQLITE.match(url)
    if found is None or found["path"] == ":memory:":
        return None
    return Path(unquote(found["path"])).absolute()


def redact(url: str) -> str:
    """``url`` as it may be logged and shown: every password in it is ``***``; other text is left as it is."""
    return _OPTION_PASSWORD.sub(r"\1***", _USER_PASSWORD.sub(r"\1:***@", url))
