"""Configuration of streams: from pipe tags and ``kindling.streaming.*`` settings to one StreamingQueryConfig each.

For each pipe and each option, the first that says something wins:

1. the pipe's tag (``dagster/stream_trigger``, ``dagster/stream_max_retries`` …),
2. ``kindling.streaming.pipes.<pipe id>.*`` in the settings,
3. what the resource or the caller says for all streams,
4. ``kindling.streaming.*`` in the settings,
5. the default.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kindling_dagster.errors import DeclarationError, SelectionError
from kindling_dagster.manifest import Manifest, PipeSpec
from kindling_dagster.streaming.failure_rules import FailureRule
from kindling_dagster.streaming.intervals import seconds_of
from kindling_dagster.streaming.model import ErrorKind, RecoveryPolicy, StreamingQueryConfig

SETTINGS: Final = "kindling.streaming."
TAGS: Final = "dagster/stream_"
_CHECKPOINT_ROOT: Final = "kindling.storage.checkpoint_root"
_KINDS: Final[tuple[ErrorKind, ...]] = ("permanent", "transient")
_STRATEGIES: Final = ("restart", "alert", "ignore")


@dataclass(frozen=True)
class _Option:
    """One option: its field, its name in the settings (the tag's is the last part), and how it is read."""

    field: str
    setting: str
    read: Callable[[Any], Any]
    recovery: bool = False

    @property
    def tag(self) -> str:
        return TAGS + ("recovery" if self.field == "strategy" else self.setting.rpartition(".")[2])


def stream_configs(
    manifest: Manifest, pipe_ids: Iterable[str] | None = None, overrides: Mapping[str, Any] | None = None
) -> dict[str, StreamingQueryConfig]:
    """How each stream is started and watched.

    Args:
        manifest: What the app declares; its settings and its pipes' tags take part.
        pipe_ids: The pipes that run as streams; those tagged ``processing_mode: streaming`` when None.
        overrides: Options for all streams, by their name below ``kindling.streaming.``
            (``{"trigger": "5 seconds", "recovery.max_retries": 3}``).

    Returns:
        Configurations by pipe id, in the order of the manifest or of ``pipe_ids``. ``checkpoint_root`` is
        empty where the app's settings do not say it.

    Raises:
        DeclarationError: Options have impossible values; each line names the pipe and the tag or setting.
        SelectionError: There is no such pipe, or no such option.
    """
    overrides = overrides or {}
    if pipe_ids is None:
        pipes = [pipe for pipe in manifest.pipes if pipe.streaming]
    else:
        pipes = [_pipe(manifest, pipe_id) for pipe_id in pipe_ids]
    known = {option.setting for option in OPTIONS}
    unknown = sorted(overrides.keys() - known)
    if unknown:
        raise SelectionError(f"There is no stream option {unknown[0]!r}.", f"Use {', '.join(sorted(known))}.")
    wrong: dict[str, None] = {}
    configs = {pipe.id: _config(pipe, manifest.settings, overrides, wrong) for pipe in pipes}
    wrong |= dict.fromkeys(_strangers(pipes, manifest.settings))
    if wrong:
        raise DeclarationError("\n".join(["Streams have impossible options:", *wrong]) + "\n")
    return configs


def failure_rules(settings: Mapping[str, Any]) -> tuple[FailureRule, ...]:
    """The rules an app adds: ``kindling.streaming.errors.transient`` and ``.permanent``, regular expressions.

    Args:
        settings: The app's settings, flattened to dotted keys. Each of the two is one expression or a list.

    Raises:
        DeclarationError: One is no regular expression.
    """
    rules = []
    for kind in _KINDS:
        name = f"{SETTINGS}errors.{kind}"
        given = settings.get(name) or ()
        for pattern in (given,) if isinstance(given, str) else given:
            try:
                re.compile(str(pattern))
            except re.error as error:
                raise DeclarationError(
                    f"{name} is {pattern!r}: {error}.", "It must be a regular expression."
                ) from error
            rules.append(FailureRule(kind, pattern=str(pattern)))
    return tuple(rules)


def _pipe(manifest: Manifest, pipe_id: str) -> PipeSpec:
    pipe = manifest.pipes_by_id.get(pipe_id)
    if pipe is None:
        raise SelectionError(
            f"There is no pipe {pipe_id!r} to run as a stream.",
            f"The app {manifest.app.name} has {', '.join(sorted(manifest.pipes_by_id)) or 'none'}.",
        )
    return pipe


def _config(
    pipe: PipeSpec, settings: Mapping[str, Any], overrides: Mapping[str, Any], wrong: dict[str, None]
) -> StreamingQueryConfig:
    # Kindling's settings have lower-case names.
    own = f"{SETTINGS}pipes.{pipe.id.lower()}."
    base: dict[str, Any] = {}
    recovery: dict[str, Any] = {}
    for option in OPTIONS:
        places = (
            (f"tag {option.tag} of pipe {pipe.id}", pipe.tags.get(option.tag)),
            (f"setting {own}{option.setting} of pipe {pipe.id}", settings.get(own + option.setting)),
            (f"option {option.setting} of all streams", overrides.get(option.setting)),
            (f"setting {SETTINGS}{option.setting}", settings.get(SETTINGS + option.setting)),
        )
        where, value = next(
            ((where, value) for where, value in places if value not in (None, "")), ("", None)
        )
        if not where:
            continue
        try:
            (recovery if option.recovery else base)[option.field] = option.read(value)
        except ValueError as error:
            wrong[f"  {where} is {value!r}: {error}."] = None
    base.setdefault("checkpoint_root", str(settings.get(_CHECKPOINT_ROOT) or ""))
    base.setdefault("query_name", pipe.id)
    return StreamingQueryConfig(**base, recovery=RecoveryPolicy(**recovery))


def _strangers(pipes: Iterable[PipeSpec], settings: Mapping[str, Any]) -> Iterable[str]:
    """A line for each tag and setting that looks like a stream's option and is none: mostly a typo."""
    tags = {option.tag for option in OPTIONS}
    names = {option.setting for option in OPTIONS}
    lines = []
    for pipe in pipes:
        own = f"{SETTINGS}pipes.{pipe.id.lower()}."
        lines += [
            f"  tag {tag} of pipe {pipe.id} is not known: use {', '.join(sorted(tags))}."
            for tag in pipe.tags
            if tag.startswith(TAGS) and tag not in tags
        ]
        lines += [
            f"  setting {key} of pipe {pipe.id} is not known: use {', '.join(sorted(names))}."
            for key in settings
            if key.startswith(own) and key.removeprefix(own) not in names
        ]
    return lines


def _trigger(value: Any) -> Mapping[str, Any]:
    """A trigger from an interval (``10 seconds``) or a number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = f"{value} seconds" if isinstance(value, int) else f"{round(value * 1000)} milliseconds"
    else:
        text = str(value).strip()
    if text.replace(" ", "").replace("_", "").lower() in ("availablenow", "once"):
        raise ValueError("a stream under supervision never ends; for one that does, run the pipe as a batch")
    if text.lower().startswith("continuous"):
        raise ValueError("continuous processing cannot merge or append to Delta tables; use an interval")
    seconds_of(text)
    return {"processingTime": text}


def _positive(value: Any) -> float:
    number = _at_least_zero(value)
    if number == 0:
        raise ValueError("it must be more than 0")
    return number


def _at_least_zero(value: Any) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError("it must not be less than 0")
    return number


def _count(value: Any) -> int:
    number = _at_least_zero(value)
    if number != int(number):
        raise ValueError("it must be a whole number")
    return int(number)


def _multiplier(value: Any) -> float:
    number = _number(value)
    if number < 1:
        raise ValueError("it must be at least 1")
    return number


def _share(value: Any) -> float:
    number = _number(value)
    if not 0 <= number <= 1:
        raise ValueError("it must be between 0 and 1")
    return number


def _number(value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError("it must be a number") from None
    if not math.isfinite(number):
        raise ValueError("it must be a number")
    return number


def _strategy(value: Any) -> str:
    text = str(value).strip().lower()
    if text not in _STRATEGIES:
        raise ValueError(f"it must be one of {', '.join(_STRATEGIES)}")
    return text


def _text(value: Any) -> str:
    return str(value).strip()


OPTIONS: Final = (
    _Option("trigger", "trigger", _trigger),
    _Option("query_name", "query_name", _text),
    _Option("checkpoint_root", "checkpoint_root", _text),
    _Option("poll_interval", "poll_interval", _positive),
    _Option("stall_threshold", "stall_threshold", _positive),
    _Option("strategy", "recovery.strategy", _strategy, recovery=True),
    _Option("max_retries", "recovery.max_retries", _count, recovery=True),
    _Option("initial_backoff", "recovery.initial_backoff", _at_least_zero, recovery=True),
    _Option("max_backoff", "recovery.max_backoff", _at_least_zero, recovery=True),
    _Option("multiplier", "recovery.multiplier", _multiplier, recovery=True),
    _Option("jitter", "recovery.jitter", _share, recovery=True),
    _Option("cooldown", "recovery.cooldown", _at_least_zero, recovery=True),
    _Option("stable_after", "recovery.stable_after", _at_least_zero, recovery=True),
)
"""All options, in the order of the docs."""
