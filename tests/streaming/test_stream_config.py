"""Streams' options: precedence, what they may be, and errors that name pipe and place."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from manifests import manifest, pipe

from kindling_dagster.errors import DeclarationError, SelectionError
from kindling_dagster.manifest import Manifest
from kindling_dagster.streaming.config import OPTIONS, failure_rules, stream_configs
from kindling_dagster.streaming.failures import FailureClassifier
from kindling_dagster.streaming.intervals import seconds_of, trigger_seconds
from kindling_dagster.streaming.model import RecoveryPolicy, StreamingQueryConfig


def app(tags: dict[str, str] | None = None, **settings: Any) -> Manifest:
    """An app with one stream, ``silver.Flights``, and one batch pipe; settings by dotted key with ``__``."""
    stream = pipe(
        "silver.Flights",
        "bronze.flights",
        "silver.flights",
        tags={"processing_mode": "streaming"} | (tags or {}),
    )
    batch = pipe("gold.days", "silver.flights", "gold.days")
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return replace(manifest(stream, batch), settings=named)


def config(
    tags: dict[str, str] | None = None, overrides: dict[str, Any] | None = None, **settings: Any
) -> Any:
    return stream_configs(app(tags, **settings), overrides=overrides)["silver.Flights"]


def test_defaults_are_the_models() -> None:
    assert stream_configs(app()) == {"silver.Flights": StreamingQueryConfig(query_name="silver.Flights")}


def test_the_checkpoint_root_is_kindlings() -> None:
    assert config(kindling__storage__checkpoint_root="/lake/ck").checkpoint_root == "/lake/ck"
    own = config(
        kindling__storage__checkpoint_root="/lake/ck", kindling__streaming__checkpoint_root="/fast/ck"
    )
    assert own.checkpoint_root == "/fast/ck"


OWN = "kindling__streaming__pipes__silver.flights__"


@pytest.mark.parametrize("told", range(1, 6))
def test_precedence(told: int) -> None:
    """The more specific place wins: tag, the pipe's setting, all streams' option, setting, default."""
    tags = {"dagster/stream_poll_interval": "4", "dagster/stream_max_retries": "4"} if told >= 5 else None
    overrides = {"poll_interval": 2, "recovery.max_retries": 2} if told >= 3 else None
    settings: dict[str, Any] = {}
    if told >= 2:
        settings |= {"kindling__streaming__poll_interval": 1, "kindling__streaming__recovery__max_retries": 1}
    if told >= 4:
        settings |= {f"{OWN}poll_interval": 3, f"{OWN}recovery__max_retries": "3"}
    made = config(tags, overrides, **settings)
    expected = {1: (30.0, 5), 2: (1.0, 1), 3: (2.0, 2), 4: (3.0, 3), 5: (4.0, 4)}[told]
    assert (made.poll_interval, made.recovery.max_retries) == expected


def test_every_option_can_be_given_in_every_place() -> None:
    values = {
        "trigger": "10 seconds", "query_name": "q", "checkpoint_root": "/ck", "poll_interval": "5",
        "stall_threshold": "60", "recovery.strategy": "Alert", "recovery.max_retries": "2",
        "recovery.initial_backoff": "0.5", "recovery.max_backoff": "9", "recovery.multiplier": "3",
        "recovery.jitter": "0", "recovery.cooldown": "7", "recovery.stable_after": "8",
    }  # fmt: skip
    expected = StreamingQueryConfig(
        query_name="q",
        checkpoint_root="/ck",
        trigger={"processingTime": "10 seconds"},
        poll_interval=5.0,
        stall_threshold=60.0,
        recovery=RecoveryPolicy("alert", 2, 0.5, 9.0, 3.0, 0.0, 7.0, 8.0),
    )
    assert set(values) == {option.setting for option in OPTIONS}
    tags = {option.tag: values[option.setting] for option in OPTIONS}
    assert len(tags) == len(OPTIONS)
    assert config(tags) == expected
    assert config(overrides=values) == expected
    assert config(**{f"kindling.streaming.{name}": value for name, value in values.items()}) == expected
    own = {f"kindling.streaming.pipes.silver.flights.{name}": value for name, value in values.items()}
    assert config(**own) == expected


def test_only_streams_unless_named() -> None:
    assert list(stream_configs(app())) == ["silver.Flights"]
    assert list(stream_configs(app(), ["gold.days", "silver.Flights"])) == ["gold.days", "silver.Flights"]
    with pytest.raises(SelectionError, match=r"no pipe 'gold.weeks'.*has gold.days, silver.Flights"):
        stream_configs(app(), ["gold.weeks"])


TRIGGERS = [
    ("10 seconds", "10 seconds", 10.0),
    (" 1 minute 30 seconds ", "1 minute 30 seconds", 90.0),
    ("500 milliseconds", "500 milliseconds", 0.5),
    ("interval 2 hours", "interval 2 hours", 7_200.0),
    (5, "5 seconds", 5.0),
    (0.25, "250 milliseconds", 0.25),
    ("0 seconds", "0 seconds", 0.0),
]


@pytest.mark.parametrize(("given", "text", "seconds"), TRIGGERS)
def test_triggers(given: Any, text: str, seconds: float) -> None:
    trigger = config(overrides={"trigger": given}).trigger
    assert trigger == {"processingTime": text}
    assert trigger_seconds(trigger) == seconds


def test_without_a_trigger_batches_follow_at_once() -> None:
    assert config().trigger is None
    assert trigger_seconds(None) == 0.0
    assert trigger_seconds({"availableNow": True}) == 0.0


@pytest.mark.parametrize("text", ["", "soon", "10", "10 parsecs", "1 month", "seconds", "-5 seconds"])
def test_bad_intervals(text: str) -> None:
    with pytest.raises(ValueError):
        seconds_of(text)


BAD = [
    ("dagster/stream_trigger", "soon", "is not an interval"),
    ("dagster/stream_trigger", "availableNow", "never ends"),
    ("dagster/stream_trigger", "continuous 1 second", "cannot merge"),
    ("dagster/stream_poll_interval", "0", "more than 0"),
    ("dagster/stream_stall_threshold", "often", "must be a number"),
    ("dagster/stream_stall_threshold", "nan", "must be a number"),
    ("dagster/stream_recovery", "retry", "one of restart, alert, ignore"),
    ("dagster/stream_max_retries", "2.5", "whole number"),
    ("dagster/stream_max_backoff", "-1", "not be less than 0"),
    ("dagster/stream_multiplier", "0.5", "at least 1"),
    ("dagster/stream_jitter", "2", "between 0 and 1"),
    ("dagster/stream_triger", "5 seconds", "is not known: use"),
]


@pytest.mark.parametrize(("tag", "value", "message"), BAD)
def test_errors_name_pipe_and_tag(tag: str, value: str, message: str) -> None:
    with pytest.raises(DeclarationError) as raised:
        config({tag: value})
    assert f"tag {tag} of pipe silver.Flights" in str(raised.value)
    assert message in str(raised.value)


def test_all_errors_are_told_at_once() -> None:
    with pytest.raises(DeclarationError) as raised:
        config(
            {"dagster/stream_jitter": "2"},
            kindling__streaming__poll_interval="x",
            **{f"{OWN}stall_treshold": 5},
        )
    lines = str(raised.value).splitlines()
    assert [line for line in lines if "setting kindling.streaming.poll_interval is 'x'" in line]
    assert [line for line in lines if "kindling.streaming.pipes.silver.flights.stall_treshold" in line]
    assert len(lines) == 4


def test_unknown_overrides() -> None:
    with pytest.raises(SelectionError, match="no stream option 'retries'"):
        config(overrides={"retries": 3})


@pytest.mark.parametrize("given", ["ledger", ["ledger", "other"]])
def test_an_apps_own_errors(given: Any) -> None:
    rules = failure_rules(
        {"kindling.streaming.errors.permanent": given, "kindling.streaming.errors.transient": "tea"}
    )
    classifier = FailureClassifier().extended(*rules)
    assert classifier.stream_error("java.net.ConnectException: the Ledger", 0.0).kind == "permanent"
    assert classifier.stream_error(ValueError("tea time"), 0.0).kind == "transient"
    assert failure_rules({}) == ()


def test_an_apps_expression_must_be_one() -> None:
    with pytest.raises(DeclarationError, match=r"kindling.streaming.errors.transient is '\('"):
        failure_rules({"kindling.streaming.errors.transient": "("})


def test_the_page_lists_every_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `(dagster/stream_\w+)` \|", page, re.MULTILINE))
    assert rows == {option.setting: option.tag for option in OPTIONS}
