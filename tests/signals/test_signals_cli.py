from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kindling_dagster.cli import main
from kindling_dagster.signals.catalog import get_all_signals

SPECS = get_all_signals()


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["signals", *arguments])


def test_list_has_each_signal_on_a_line_with_payload_and_event() -> None:
    listed = call("list")
    assert listed.exit_code == 0
    lines = {line.split()[0]: line for line in listed.output.splitlines() if line.split()}
    for name, spec in SPECS.items():
        assert spec.dagster_event in lines[name]
        assert spec.payload.__name__ in lines[name]
        assert spec.summary.split()[0] in lines[name]


def test_list_of_a_namespace_as_data() -> None:
    found: list[dict[str, Any]] = json.loads(
        call("list", "--namespace", "persist", "--format", "json").output
    )
    assert [each["signal"] for each in found] == [name for name in SPECS if name.startswith("persist.")]
    (after,) = [each for each in found if each["signal"] == "persist.after_persist"]
    assert (after["payload"], after["dagster"]) == ("PersistPayload", ["materialization"])
    assert {"name": "pipe_id", "type": "str", "required": True} in after["fields"]
    assert all(each["emitters"] for each in found)


def test_an_unknown_namespace_names_the_known_ones() -> None:
    listed = call("list", "--namespace", "persists")
    assert listed.exit_code == 2
    assert "no namespace persists" in listed.output
    assert "persist, read" in listed.output


@pytest.mark.parametrize(
    "name", ["persist.after_persist", "streaming.query_stalled", "orchestrator.cache_hit"]
)
def test_show_has_every_field(name: str) -> None:
    shown = call("show", name)
    assert shown.exit_code == 0
    spec = SPECS[name]
    assert spec.summary in shown.output
    assert f"payload {spec.payload.__name__}, in Dagster: {spec.dagster_event}" in shown.output
    for each in spec.fields:
        assert each.name in shown.output


def test_show_of_an_unknown_signal() -> None:
    shown = call("show", "no.such")
    assert shown.exit_code == 1
    assert "There is no signal 'no.such'." in shown.output
    assert "kindling-dagster signals list" in shown.output
