"""Secrets: what refers to one, and how their values are kept out of everything that is stored."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kindling_dagster.manifest import SecretRef

_REFERENCE = re.compile(r"@secret[: ]\s*([\w./:-]+)")
_SHORTEST_MASKED = 6
"""Values below this length are masked only where a reference stood: ``true`` or ``1`` would match by chance."""


def find_secret(text: Any) -> str:
    """The key of the first secret that ``text`` refers to (``@secret:KEY`` or ``@secret KEY``); empty when none."""
    found = _REFERENCE.search(text) if isinstance(text, str) else None
    return found.group(1) if found else ""


def environment_names(key: str) -> tuple[str, ...]:
    """The environment variables in which Kindling's standalone platform looks for a secret, in order."""
    upper = re.sub(r"[-.:]", "_", key.upper())
    return tuple(dict.fromkeys((key, upper, f"KINDLING_SECRET_{upper}")))


def secret_from_environment(key: str) -> str:
    """A secret's value as Kindling's standalone platform finds it; raises LookupError, naming the key alone."""
    for name in environment_names(key):
        if name in os.environ:
            return os.environ[name]
    raise LookupError(f"secret {key} is not set")


def walk_strings(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every string in nested mappings and lists, with its dotted path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from walk_strings(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from walk_strings(item, f"{path}[{index}]")


@dataclass
class SecretBook:
    """References an app makes to secrets, and the values that were resolved while it was initialised.

    Args:
        resolved: Value to key, as far as values were asked for in this process. Never leaves it.
    """

    resolved: dict[str, str] = field(default_factory=dict)
    _used_at: dict[str, str] = field(default_factory=dict)

    def note(self, source: Any, path: str = "") -> None:
        """Remember every reference in settings or tags."""
        for place, text in walk_strings(source, path):
            for match in _REFERENCE.finditer(text):
                self._used_at[place] = match.group(1)

    def references(self) -> tuple[SecretRef, ...]:
        """All references, by place."""
        return tuple(SecretRef(key, place) for place, key in sorted(self._used_at.items()))

    def unresolved(self, name: str, value: str, written: str) -> str:
        """A tag's value with the secret's reference in place of its value.

        Args:
            name: The tag.
            value: What stands in the live registry.
            written: What the app wrote in code; empty when the tag comes from elsewhere.
        """
        key = find_secret(written)
        if key and self.resolved.get(value) == key:
            return written
        if value in self.resolved and any(
            place.endswith(f".{name}") and key == self.resolved[value] for place, key in self._used_at.items()
        ):
            return f"@secret:{self.resolved[value]}"
        return self.mask(value)

    def mask(self, text: str) -> str:
        """``text`` with every resolved value replaced by its reference."""
        for value, key in self._long_values():
            text = text.replace(value, f"@secret:{key}")
        return text

    def holds(self, value: Any) -> bool:
        """Whether a setting's value is, or refers to, a secret."""
        texts: Iterable[str] = (text for _, text in walk_strings(value))
        return any(find_secret(text) or text in self.resolved or self.mask(text) != text for text in texts)

    def _long_values(self) -> list[tuple[str, str]]:
        spelled = {text: key for value, key in self.resolved.items() for text in _spellings(value)}
        long_enough = [item for item in spelled.items() if len(item[0]) >= _SHORTEST_MASKED]
        return sorted(long_enough, key=lambda item: -len(item[0]))


def _spellings(value: str) -> Iterator[str]:
    """A value as texts have it: storage clients write places without their scheme, or their first slash."""
    yield value
    bare = (value.partition("://")[2] or value).lstrip("/")
    if "/" in bare:
        yield bare
