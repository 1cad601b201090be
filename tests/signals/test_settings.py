from __future__ import annotations

from typing import Any

import pytest

from kindling_dagster.signals.errors import SignalError
from kindling_dagster.signals.naming import NamingMode
from kindling_dagster.signals.settings import Backpressure, SignalSettings


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("async", True, "asynchronous", True),
        ("async", "false", "asynchronous", False),
        ("async", ["streaming.*", "!persist.*"], "asynchronous", ("streaming.*", "!persist.*")),
        ("async", "streaming.*, persist.*", "asynchronous", ("streaming.*", "persist.*")),
        ("naming", "strict", "naming", NamingMode.STRICT),
        ("naming", False, "naming", NamingMode.OFF),
        ("allowed_names", ["mine.*"], "allowed_names", ("mine.*",)),
        ("backpressure", "DROP_OLDEST", "backpressure", Backpressure.DROP_OLDEST),
        ("capacity", "50", "capacity", 50),
        ("max_workers", 2, "max_workers", 2),
        ("stall_after", 1.5, "stall_after", 1.5),
        ("stall_after", None, "stall_after", SignalSettings().stall_after),
    ],
)
def test_from_config(key: str, value: Any, field: str, expected: Any) -> None:
    settings = SignalSettings.from_config({f"kindling.signals.{key}": value, "other.capacity": 3})
    assert getattr(settings, field) == expected


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("async", 3, "list of patterns"),
        ("naming", "loud", "'off' or 'warn' or 'strict'"),
        ("backpressure", "drop", "'block' or 'drop_oldest'"),
        ("capacity", 0, "number from 1"),
        ("capacity", "many", "number from 1"),
        ("max_workers", True, "number from 1"),
        ("stall_after", -1, "number from 0"),
        ("stall_after", float("inf"), "number from 0"),
        ("asynch", True, "Known are: allowed_names, async"),
    ],
)
def test_bad_settings_name_the_key_and_what_is_allowed(key: str, value: Any, message: str) -> None:
    with pytest.raises(SignalError, match=message) as raised:
        SignalSettings.from_config({f"kindling.signals.{key}": value})
    assert f"kindling.signals.{key}" in str(raised.value)
