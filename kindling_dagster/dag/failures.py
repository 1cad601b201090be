"""From an exception to a PipeError: what matters of it, where in the app it happened, what to do."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from types import FrameType, TracebackType

from kindling_dagster.dag.results import PipeError
from kindling_dagster.dag.suggestions import advise
from kindling_dagster.errors import KindlingDagsterError

# Frames of these packages, and of the standard library, are never what the app's author looks for.
_MACHINERY = frozenset({"kindling", "kindling_dagster", "pyspark", "py4j", "delta", "injector", "blinker"})
_MESSAGE_LINES = 8
_MESSAGE_CHARS = 1500
_JAVA_CLASS = re.compile(r"^:?\s*((?:[a-z_][\w$]*\.)+)([A-Z][\w$]*)(?::\s*(.*))?$")


@dataclass(frozen=True)
class Failure:
    """A described exception. ``permanent``: trying again with nothing changed is pointless."""

    error: PipeError
    permanent: bool = False


def describe(pipe_id: str, exception: BaseException) -> Failure:
    """Describe what a pipe raised. Call it in the pipe's own thread: the text of a Java error is asked of the JVM."""
    try:
        text = str(exception)
        outermost = _without_our_frames(exception.__traceback__)
        trace = "".join(traceback.format_exception(type(exception), exception, outermost))
    except Exception as unreadable:  # the JVM may be gone, and with it the text
        text = f"{type(exception).__name__}, whose text cannot be read: {unreadable!r}"
        trace = "".join(traceback.format_tb(exception.__traceback__))
    types = [cls.__name__ for cls in type(exception).__mro__]
    kind, message = types[0], text
    java = _java_parts(text) if kind == "Py4JJavaError" else None
    if java is not None:
        kind, message = java
        types.insert(0, kind)
    advice = advise(types, text)
    suggestion = advice.suggestion if advice else ""
    if isinstance(exception, KindlingDagsterError):
        message, suggestion = exception.message, exception.suggestion or suggestion
    error = PipeError(
        pipe_id=pipe_id,
        type=kind,
        message=concise(message) or kind,
        suggestion=suggestion,
        where=_where_in_worker(text) or where(traceback_frames(exception.__traceback__)),
        traceback=trace,
    )
    return Failure(error, permanent=advice is not None and advice.permanent)


def _without_our_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from where the executor called something that is not this package."""
    inner = trace
    while inner is not None and str(inner.tb_frame.f_globals.get("__name__")).startswith("kindling_dagster."):
        inner = inner.tb_next
    return inner or trace


def _java_parts(text: str) -> tuple[str, str] | None:
    """Class and message of the innermost Java exception that a Py4JJavaError's text names."""
    found: tuple[str, str] | None = None
    lines = text.splitlines()
    for index, line in enumerate(lines):
        match = _JAVA_CLASS.match(line.removeprefix("Caused by: "))
        if match is None or not (line.startswith(("Caused by: ", ": ")) or found is None):
            continue
        rest = [match.group(3) or ""]
        for more in lines[index + 1 :]:
            if more.startswith(("\tat ", "Caused by: ", "\t...")):
                break
            rest.append(more)
        found = match.group(2), "\n".join(rest).strip()
    return found


def concise(text: str) -> str:
    """The part of an error's text that people read: no JVM stack, no query plan, at most 8 lines."""
    kept: list[str] = []
    for line in text.strip().splitlines():
        # A plan follows the message of an AnalysisException; a stack follows everything else's.
        if re.match(r"\s*(\+- |:- |'\w+ |\tat |at [\w.$]+\()|JVM stacktrace:|Driver stacktrace:", line):
            break
        if line.strip():
            kept.append(line.rstrip())
    short = "\n".join(kept[:_MESSAGE_LINES])
    return short if len(short) <= _MESSAGE_CHARS else short[: _MESSAGE_CHARS - 1] + "…"


@dataclass(frozen=True)
class Place:
    """One frame of a stack: the module's name, its file and the line."""

    module: str
    file: str
    line: int


def traceback_frames(trace: TracebackType | None) -> list[Place]:
    """The places of a traceback, outermost first."""
    return [_place(frame, line) for frame, line in traceback.walk_tb(trace)]


def stack_frames(frame: FrameType) -> list[Place]:
    """The places of a running stack, outermost first."""
    return [_place(each, line) for each, line in traceback.walk_stack(frame)][::-1]


def _place(frame: FrameType, line: int) -> Place:
    return Place(str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename, line)


def where(places: Iterable[Place]) -> str:
    """The innermost ``file:line`` that belongs to the app; empty when there is none.

    Apps may be installed packages too, so a place below site-packages counts when no other is there.
    """
    own = [place for place in places if not _is_machinery(place)]
    app = [place for place in own if "site-packages" not in place.file] or own
    return f"{app[-1].file}:{app[-1].line}" if app else ""


def _is_machinery(place: Place) -> bool:
    package = place.module.partition(".")[0]
    if package == "__main__":
        return False
    return package in _MACHINERY or package in sys.stdlib_module_names or place.file.startswith("<")


def _where_in_worker(text: str) -> str:
    """The innermost app line of a Python worker's traceback inside an error's text."""
    places = re.findall(r'File "([^"<]+)", line (\d+)', text)
    own = [
        (file, line)
        for file, line in places
        if not re.search(
            r"[/\\](pyspark|py4j|kindling|kindling_dagster)([/\\]|\.zip)|[/\\]lib[/\\]python", file
        )
    ]
    return f"{own[-1][0]}:{own[-1][1]}" if own else ""
