from __future__ import annotations

import json
import math
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from kindling_dagster.signals.plain import (
    MASK,
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_TEXT,
    describe,
    is_secret_key,
    plain,
    scrub_text,
)


class Colour(Enum):
    RED = "red"


class Hostile:
    """Every way of looking at it raises."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


class BadError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Entity:
    def __init__(self, entityid: Any) -> None:
        self.entityid = entityid


class Frame:
    """Answers any attribute, as a DataFrame does by asking Spark."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # pytest looks for a parameter's name
            raise AttributeError(name)
        raise AssertionError(f"asked for {name}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (2.5, 2.5),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (1 << 5000, "int of 5001 bits"),
        ("text", "text"),
        (Colour.RED, "red"),
        (datetime(2026, 1, 2, tzinfo=timezone.utc), "2026-01-02T00:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(minutes=2), 120.0),
        (Decimal("1.10"), "1.10"),
        (Path("a/b"), "a/b"),
        (b"row", "bytes of 3"),
        (ValueError("bad"), "ValueError: bad"),
        (BadError(), "BadError"),
        ((1, [2, {"a": 3}]), [1, [2, {"a": 3}]]),
        ({1: 2}, {"1": 2}),
        (frozenset({1}), [1]),
        (object(), "object"),
        (Frame(), "Frame"),
        (Entity("silver.orders"), "Entity(silver.orders)"),
        (Entity(7), "Entity"),
    ],
)
def test_plain(value: Any, expected: Any) -> None:
    assert plain(value) == expected


def test_a_value_that_raises_costs_nothing_else() -> None:
    assert plain(Hostile()) == "Hostile"
    assert plain([1, {"a": Hostile()}]) == [1, {"a": "Hostile"}]


def test_rows_are_never_listed() -> None:
    from pyspark.sql import Row

    assert plain([Row(name="Ada", salary=1)]) == ["Row"]


def test_limits_are_said() -> None:
    deep: Any = "bottom"
    for _ in range(MAX_DEPTH + 3):
        deep = [deep]
    loop: list[Any] = []
    loop.append(loop)

    assert "list of 1" in json.dumps(plain(deep))
    assert "list of 1" in json.dumps(plain(loop))
    assert plain(list(range(MAX_ITEMS + 5)))[-1] == "… 5 more"
    assert plain({str(n): n for n in range(MAX_ITEMS + 5)})["…"] == "5 more"
    assert plain("x" * (MAX_TEXT + 5)) == "x" * MAX_TEXT + f"… ({MAX_TEXT + 5} characters)"


@pytest.mark.parametrize(
    "key",
    [
        "password", "db_password", "PASSWORD", "passwd", "pwd", "token", "sas_token", "secret", "clientSecret",
        "connectionString", "connection_string", "eventhub.connectionString", "accountKey", "account-key",
        "fs.azure.account.key.store.dfs.core.windows.net", "api_key", "apiKey", "key", "storage.key",
        "Authorization", "credentials", "sas", "aws_secret_access_key",
    ],
)  # fmt: skip
def test_secret_keys(key: str) -> None:
    assert is_secret_key(key)
    assert plain({key: "hunter2"}) == {key: MASK}
    assert plain("hunter2", key) == MASK
    assert plain({key: None}) == {key: None}


def test_seconds_are_shown_under_any_key() -> None:
    assert plain({"bronze.token_usage": 1.5, "pin_token": 1234}) == {
        "bronze.token_usage": 1.5,
        "pin_token": MASK,
    }


@pytest.mark.parametrize(
    "key",
    [
        "primary_key", "partitionKey", "surrogate.key", "merge_columns", "keys", "replace_keys", "cursor",
        "monkey", "keyboard", "passenger_count", "compass", "pipe_id", "saskatoon",
    ],
)  # fmt: skip
def test_keys_of_the_data_model_are_shown(key: str) -> None:
    assert plain({key: "x"}) == {key: "x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jdbc:postgresql://me:hunter2@db/x", "jdbc:postgresql://me:***@db/x"),
        ("AccountName=a;AccountKey=hunter2==;End", "AccountName=a;AccountKey=***;End"),
        ("url?sv=1&sig=hunter2%3D&se=2", "url?sv=1&sig=***&se=2"),
        ("password: 'hunter2'", "password: '***'"),
        ("Authorization: Bearer hunter2hunter2", "Authorization: Bearer ***"),
        ("@secret:DB_PASSWORD", "***"),
        ("SharedAccessKey=hunter2", "SharedAccessKey=***"),
        ("token count = 3", "token count = 3"),
        ("s3://bucket/path@v1", "s3://bucket/path@v1"),
        ("no secret here", "no secret here"),
    ],
)
def test_scrub_text(text: str, expected: str) -> None:
    assert scrub_text(text) == expected
    assert scrub_text(expected) == expected


def test_a_secret_at_the_cut_is_masked() -> None:
    text = "x" * (MAX_TEXT - 12) + " password=hunter2hunter2"
    assert "hun" not in plain(text)


def test_describe_reads_the_own_dictionary_only() -> None:
    assert describe(Frame()) == "Frame"
