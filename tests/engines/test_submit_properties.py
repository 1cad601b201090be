"""Settings on their way to spark-submit: lines that ``java.util.Properties`` reads back as they were."""

from __future__ import annotations

import re

import pytest

from kindling_dagster.submit_client import _property


def read(line: str) -> tuple[str, str]:
    """One line as the documentation of ``Properties.load`` has it, for names without escapes."""
    found = re.fullmatch(r"([^\s=:]+)[ \t\f]*[=:]?[ \t\f]*(.*)\n", line)
    assert found is not None
    known = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}
    text = re.sub(r"\\(.)", lambda sign: known.get(sign[1], sign[1]), found[2])
    return found[1], text


@pytest.mark.parametrize(
    "value",
    [
        "4g",
        "",
        "=x",
        ":x",
        "= :x",
        " x",
        "   x",
        "\tx",
        "a\\b",
        "\\",
        "a\nb",
        "\r\n",
        "a=b:c d#e!f",
        "#x",
        "Zürich",
    ],
)
def test_a_value_arrives_as_it_was(value: str) -> None:
    assert read(_property("spark.my.setting", value)) == ("spark.my.setting", value)
