"""How signals are named, and the check of it: at declaration (EMITS) and at emit.

The convention: ``namespace.event`` in snake case, where the event is one of

- ``before_x`` and ``after_x``, around something that takes time;
- ``x_failed``, when it did not come to its end;
- ``x_changed``, when something is not what it was;
- a past-tense state, ``x_started``, ``x_registered``, ``x_found``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import Final

from kindling_dagster.signals.errors import SignalNameError

logger = logging.getLogger("kindling_dagster.signals")


class NamingMode(str, Enum):
    """What a name that breaks the convention, or is not declared, leads to."""

    OFF = "off"
    WARN = "warn"
    """A warning in the log, once for each emitter and name."""
    STRICT = "strict"
    """SignalNameError, before anything is sent."""


@dataclass(frozen=True)
class NameProblem:
    """What is wrong with one signal's name. ``proposal`` is a name that would do, or empty."""

    signal: str
    message: str
    proposal: str = ""

    @property
    def suggestion(self) -> str:
        """What to do, as a sentence."""
        if self.proposal and self.proposal != self.signal:
            return f"Call it {self.proposal!r}."
        return "Use namespace.before_x, after_x, x_failed, x_changed or a past-tense state."


_IN_KINDLING = "Kindling's own name, which its subscribers know: "
EXCEPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "orchestrator.pipe_retrying": _IN_KINDLING + "the next try is still to come.",
        "read.resolve_read": _IN_KINDLING
        + "it asks subscribers to do the read, so nothing has happened yet.",
        "watermark.no_new_data": _IN_KINDLING + "it reports an absence, not an event.",
        "orchestrator.cache_hit": _IN_KINDLING + "the usual pair of nouns for a cache.",
        "orchestrator.cache_miss": _IN_KINDLING + "the usual pair of nouns for a cache.",
        "streaming.query_healthy": _IN_KINDLING + "a state that lasts, named by its adjective.",
        "streaming.query_unhealthy": _IN_KINDLING + "a state that lasts, named by its adjective.",
        "streaming.query_exception": _IN_KINDLING + "named after what Spark's query gives.",
        "streaming.spark_query_progress": _IN_KINDLING + "named after Spark's event.",
        "streaming.spark_query_idle": "Named after Spark's event, as its siblings in Kindling are.",
        "watermark.watermark_missing": _IN_KINDLING + "it reports an absence, not an event.",
        "config.pre_reload": _IN_KINDLING + "pre_/post_ in place of before_/after_.",
        "config.post_reload": _IN_KINDLING + "pre_/post_ in place of before_/after_.",
        "datapipes.lineage_audit": "The name the signal was specified with: the audit's result, a noun.",
    }
)
"""Names that break the convention and stay, with the reason."""

_NAMESPACE: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_EVENT: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_IRREGULAR: Final[Mapping[str, str]] = MappingProxyType(
    {
        "begin": "begun", "break": "broken", "bring": "brought", "build": "built", "catch": "caught",
        "choose": "chosen", "find": "found", "get": "got", "go": "gone", "hold": "held", "keep": "kept",
        "lead": "led", "lose": "lost", "make": "made", "meet": "met", "run": "ran", "see": "seen",
        "send": "sent", "stick": "stuck", "take": "taken", "tell": "told", "throw": "thrown",
        "write": "written", "withdraw": "withdrawn", "rewrite": "rewritten", "rebuild": "rebuilt",
        "freeze": "frozen", "leave": "left", "shut": "shut",
    }
)  # fmt: skip
_PAST: Final = frozenset(_IRREGULAR.values())
_NOT_PAST: Final = frozenset(
    {"need", "feed", "seed", "speed", "embed", "proceed", "exceed", "bed", "shed", "red"}
)
_PARTICLES: Final = frozenset({"out", "up", "down", "off", "over", "back", "away"})
"""What may stand after a past-tense verb: ``timed_out``, ``shut_down``."""

# Words people use where the convention has another one.
_PREFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {"pre": "before", "will": "before", "on": "after", "post": "after", "did": "after"}
)
_LAST_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "error": "failed", "errors": "failed", "failure": "failed", "fail": "failed", "fails": "failed",
        "exception": "failed", "change": "changed", "changes": "changed", "begin": "started",
        "end": "completed", "done": "completed", "success": "completed", "finish": "completed",
        "stop": "stopped", "skip": "skipped", "plan": "planned", "cancel": "cancelled", "drop": "dropped",
        "commit": "committed", "submit": "submitted", "ready": "prepared",
    }
)  # fmt: skip
_VERBS: Final = (
    "acquire aggregate append apply archive attempt cache check clean close complete compute connect create "
    "delete deploy detect discover disconnect drain enrich ensure evict execute exhaust expire export flush "
    "generate ingest launch load merge migrate move open optimize parse pause persist process publish queue "
    "receive recommend recover refresh register release reload remove rename renew replace resolve "
    "restart resume retry revive save schedule stall start terminate transform trigger update validate"
)
_REGULAR: Final = frozenset(_VERBS.split())
"""Verbs to make a past tense of; a word that is no known verb gets no proposal, rather than a silly one."""


@cache
def find_problem(signal: str, namespace: str = "") -> NameProblem | None:
    """What is wrong with a signal's name, or None when it keeps the convention.

    Args:
        signal: The name.
        namespace: What to propose as namespace for a name that has none.

    >>> find_problem("orders.after_load") is None
    True
    >>> find_problem("orders.loadError").proposal
    'orders.load_failed'
    """
    if signal in EXCEPTIONS:
        return None
    head, dot, event = signal.rpartition(".")
    proposal = propose(signal, namespace)
    if not dot or not head:
        return NameProblem(signal, f"Signal {signal!r} has no namespace.", proposal)
    if not all(_NAMESPACE.fullmatch(part) for part in head.split(".")) or not _EVENT.fullmatch(event):
        return NameProblem(signal, f"Signal {signal!r} is not in snake case.", proposal)
    if not _follows(event):
        return NameProblem(
            signal,
            f"Signal {signal!r} does not say when it is sent.",
            proposal,
        )
    return None


def _follows(event: str) -> bool:
    words = event.split("_")
    if words[0] in ("before", "after"):
        return len(words) > 1
    if len(words) > 1 and words[-1] in _PARTICLES:
        return _is_past(words[-2])
    return _is_past(words[-1])


def _is_past(word: str) -> bool:
    return word in _PAST or (word.endswith("ed") and len(word) > 3 and word not in _NOT_PAST)


def propose(signal: str, namespace: str = "") -> str:
    """A name in the convention that says what ``signal`` seems to mean; empty when none can be made."""
    head, _, event = signal.rpartition(".")
    spaces = [part for part in (_snake(part) for part in head.split(".")) if part] or [_snake(namespace)]
    words = [word for word in _snake(event).split("_") if word]
    if not words or not spaces[0]:
        return ""
    if len(words) > 1 and words[0] in _PREFIXES:
        words[0] = _PREFIXES[words[0]]
    elif words[0] not in ("before", "after") or len(words) == 1:
        words[-1] = _past(words[-1])
    event = "_".join(words)
    return ".".join([*spaces, event]) if _EVENT.fullmatch(event) and _follows(event) else ""


def _snake(text: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", text).strip("_").lower()


def _past(word: str) -> str:
    """A verb's past tense; the word itself when it is no verb we know."""
    if _is_past(word):
        return word
    for mapping in (_LAST_WORDS, _IRREGULAR):
        if word in mapping:
            return mapping[word]
    if word in _REGULAR:
        if word.endswith("y") and word[-2] not in "aeiou":
            return f"{word[:-1]}ied"
        return f"{word}d" if word.endswith("e") else f"{word}ed"
    if word.endswith("ing"):
        stems = (word[:-3], f"{word[:-3]}e", word[:-4])  # loading, merging, stopping
        return next((past for past in map(_past, stems) if past and _is_past(past)), word)
    return word


def undeclared(signal: str, emitter: type, declared: Collection[str]) -> NameProblem | None:
    """The problem of a signal that its emitter's EMITS lists do not name, or None."""
    if signal in declared:
        return None
    names = sorted(declared)
    near = _nearest(signal, names)
    return NameProblem(
        signal,
        f"{emitter.__module__}.{emitter.__qualname__} emits {signal!r}, which none of its EMITS lists declares"
        + (f" (they do declare {near!r})." if near else "."),
        near,
    )


def _nearest(signal: str, names: list[str]) -> str:
    return next(iter(get_close_matches(signal, names, n=1, cutoff=0.8)), "")


def report(problem: NameProblem, mode: NamingMode, where: str) -> None:
    """Do with a problem what the mode says.

    Args:
        problem: What is wrong.
        mode: Off, warn or strict.
        where: The emitter, for the message.

    Raises:
        SignalNameError: In strict mode.
    """
    if mode is NamingMode.STRICT:
        raise SignalNameError(f"{problem.message} ({where})", problem.suggestion)
    if mode is NamingMode.WARN:
        logger.warning("%s (%s) %s", problem.message, where, problem.suggestion)
