from __future__ import annotations

import pytest

from kindling_dagster.errors import LineageError
from kindling_dagster.flags import read_flag


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (True, True), ("true", True), (" Yes ", True), ("ON", True), (1, True), ("1", True),
        (False, False), ("false", False), ("no", False), ("Off", False), (0, False), ("0", False),
        (None, None), ("", None), ("  ", None),
    ],
)  # fmt: skip
def test_what_says_yes_or_no(value: object, read: bool | None) -> None:
    assert read_flag(value, "It", LineageError) is read


@pytest.mark.parametrize("value", ["maybe", 2, "none", []])
def test_all_else_is_refused(value: object) -> None:
    with pytest.raises(LineageError, match=r"^The tag x is .*true or false"):
        read_flag(value, "The tag x", LineageError)
