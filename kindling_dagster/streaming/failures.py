"""What is read from a stream's error, and from it whether the error can heal: transient, permanent or unknown."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kindling_dagster.dag.failures import concise
from kindling_dagster.errors import KindlingDagsterError, RunError
from kindling_dagster.signals.plain import scrub_text
from kindling_dagster.streaming.failure_rules import RULES, FailureRule
from kindling_dagster.streaming.model import StreamError

logger = logging.getLogger("kindling_dagster.streaming")

_CAUSES: Final = 10
_ROOTS: Final = (object, BaseException, Exception)
_READ_CHARS: Final = 100_000
_GONE: Final = (
    "Py4JNetworkError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "BrokenPipeError",
    "EOFError",
)

# Only what stands where an exception's name stands counts: a class named in somebody's code or data does not.
_EXCEPTION: Final = re.compile(
    r"(?:^|Caused by:|: |\| )\s*(?P<package>(?:[A-Za-z_][\w$]*\.)*)"
    r"(?P<name>[A-Z][\w$]*(?:Exception|Error|Interrupt|Throwable)|(?<=\w\.)[A-Z][\w$]*)(?=:|\s*$)",
    re.MULTILINE,
)
_CONDITION: Final = re.compile(r"\[(?P<condition>_?[A-Z][A-Z0-9_]{3,}(?:\.[A-Z0-9_]+)*)\]")
_SQLSTATE: Final = re.compile(r"\bSQLSTATE: (?P<state>[0-9A-Z]{5})\b")
# After these Spark prints plans, offsets and stacks, which quote the app's own texts.
_QUOTES: Final = re.compile(
    r"^\s*(?:=== Streaming Query ===|Current Committed Offsets:|Current Available Offsets:|Current State:"
    r"|Logical Plan:|=== SQL|JVM stacktrace:)",
    re.MULTILINE,
)
# Spark 4 suppresses an exception of its own in many, only to keep a second stack.
_STACK_LINE: Final = re.compile(
    r"^\s*(?:at [\w.$/<>]+\(|File \"|\.\.\. \d+ more|Suppressed: ).*$", re.MULTILINE
)
_WRAPPERS: Final = frozenset(
    {
        "STREAM_FAILED",
        "FOREACH_BATCH_USER_FUNCTION_ERROR",
        "StreamingQueryException",
        "ForeachBatchUserFuncException",
        "SparkException",
        "ExecutionException",
        "UndeclaredThrowableException",
        "Py4JException",
        "Py4JJavaError",
        "Py4JError",
        "CapturedException",
        "PySparkException",
        "RuntimeException",
        "UnknownException",
        "UncheckedExecutionException",
    }
)
"""Names that say only that something inside failed; the error is called by what is inside them."""


class CheckpointError(RunError):
    """A stream's checkpoint is gone or does not fit it. Starting anew would lose or repeat rows; it cannot heal."""


@dataclass(frozen=True)
class FailureFacts:
    """What is known of an error.

    Args:
        types: Class names of the error, its bases and its causes, without packages; outermost first.
        named: The same without the bases.
        conditions: Spark's error classes (``DELTA_SCHEMA_CHANGED_WITH_VERSION``), outermost first.
        sqlstates: The SQLSTATEs of them.
        text: All texts, without plans, offsets and stacks.
    """

    types: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    sqlstates: tuple[str, ...] = ()
    text: str = ""
    named: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What to call the error: the innermost class, or Spark's error class, that says more than that it failed."""
        for names in (self.named, self.conditions):
            telling = [name for name in names if name not in _WRAPPERS]
            if telling:
                return telling[-1]
        return self.named[-1] if self.named else "Error"


def facts_of(error: BaseException | str, error_class: str = "") -> FailureFacts:
    """Read an error. Never raises: a text that cannot be had (the JVM is gone) is left out.

    In PySpark the cause of a failed query is mostly text only, so class names, error classes and SQLSTATEs
    are looked for in the text as well as in the objects.

    Args:
        error: An exception, or the text Spark's event gives.
        error_class: Spark's error class, where known from elsewhere.
    """
    types: list[str] = []
    named: list[str] = []
    conditions: list[str] = [error_class] if error_class else []
    states: list[str] = []
    texts: list[str] = []
    for each in _chain(error):
        text = _text_of(each)
        if isinstance(each, BaseException):
            types += [base.__name__ for base in type(each).__mro__ if base not in _ROOTS]
            named.append(type(each).__name__)
            conditions += _asked(each, "getCondition", "getErrorClass")
            states += _asked(each, "getSqlState")
        told = _STACK_LINE.sub("", _without_quotes(text))
        named += [match["name"].split("$")[-1] for match in _EXCEPTION.finditer(told)]
        conditions += [match["condition"] for match in _CONDITION.finditer(told)]
        states += [match["state"] for match in _SQLSTATE.finditer(told)]
        texts.append(told)
    return FailureFacts(
        _once([*types, *named]), _once(conditions), _once(states), "\n".join(texts), _once(named)
    )


def jvm_is_gone(error: BaseException) -> bool:
    """Whether an error says that Spark's JVM no longer answers at all."""
    return any(
        base.__name__ in _GONE
        for each in _chain(error)
        if isinstance(each, BaseException)
        for base in type(each).__mro__
    )


class FailureClassifier:
    """Decides by an ordered table whether an error can heal; the first rule that fits counts.

    Args:
        rules: The table; the built-in one when left out.

    Example:
        >>> mine = FailureRule("transient", "The gateway restarts at night.", pattern="gateway timeout")
        >>> FailureClassifier().extended(mine).stream_error("java.io.IOException: gateway timeout", 0.0).kind
        'transient'
    """

    def __init__(self, rules: Sequence[FailureRule] = RULES) -> None:
        self.rules = tuple(rules)

    def extended(self, *rules: FailureRule) -> FailureClassifier:
        """A classifier with further rules, which come before those of this one."""
        return FailureClassifier((*rules, *self.rules))

    def rule_for(self, facts: FailureFacts) -> FailureRule | None:
        """The first rule that fits; None when nothing is known."""
        for rule in self.rules:
            try:
                if rule.fits(facts.types, facts.conditions, facts.sqlstates, facts.text):
                    return rule
            except Exception:  # somebody's own rule must not cost the report of the error
                logger.exception("A rule for failures could not be applied: %r", rule)
        return None

    def stream_error(
        self,
        error: BaseException | str,
        at: float,
        *,
        error_class: str = "",
        mask: Callable[[str], str] = scrub_text,
    ) -> StreamError:
        """An error as plain data: named, judged, its text short and without secrets. Never raises.

        Args:
            error: An exception, or the text Spark's event gives.
            at: When it happened, Unix seconds.
            error_class: Spark's error class, where known from elsewhere.
            mask: Takes secrets out of texts.
        """
        facts = facts_of(error, error_class)
        rule = self.rule_for(facts)
        suggestion = rule.suggestion if rule else ""
        if isinstance(error, KindlingDagsterError):
            message, suggestion = error.message, error.suggestion or suggestion
        else:
            message = _telling_part(facts) or facts.name
        # Masked before it is cut: a cut through a secret would leave its beginning.
        return StreamError(
            type=facts.name,
            message=concise(mask(message)) or facts.name,
            at=at,
            kind=rule.kind if rule else "unknown",
            suggestion=mask(suggestion),
        )


def _telling_part(facts: FailureFacts) -> str:
    """The text after the name of the error that gives the name; the whole text where that is nowhere."""
    named = [match for match in _EXCEPTION.finditer(facts.text) if match["name"] == facts.name]
    text = facts.text[named[-1].end() :] if named else facts.text
    lines = [line for line in text.removeprefix(":").strip().splitlines() if line.strip()]
    return "\n".join(lines)


def _chain(error: BaseException | str) -> Iterator[BaseException | str]:
    """The error and its causes, outermost first."""
    each: object = error
    for _ in range(_CAUSES):
        if not isinstance(each, BaseException | str):
            return
        yield each
        if isinstance(each, str):
            return
        # Python keeps the cause in `__cause__`, PySpark 3 in `cause`. PySpark 4 has no public name for it,
        # and without it the class of a failed query's error would not be known.
        each = getattr(each, "cause", None) or getattr(each, "_cause", None) or each.__cause__


def _text_of(error: BaseException | str) -> str:
    if isinstance(error, str):
        return error[:_READ_CHARS]
    try:
        return str(error)[:_READ_CHARS]
    except Exception:  # asked of a JVM that may be gone
        return ""


def _asked(error: BaseException, *methods: str) -> list[str]:
    """What the first of these methods that the error has gives, as a list of at most one."""
    method = next((found for name in methods if (found := getattr(error, name, None)) is not None), None)
    if method is None:
        return []
    try:
        answer = method()
    except Exception:  # asked of a JVM that may be gone
        return []
    return [answer] if isinstance(answer, str) and answer else []


def _without_quotes(text: str) -> str:
    """The text without plans and offsets; what comes after them in further ``Caused by`` parts stays."""
    kept = []
    for part in re.split(r"(?m)^(?=Caused by: )", text):
        quote = _QUOTES.search(part)
        kept.append(part[: quote.start()] if quote else part)
    return "".join(kept)


def _once(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
