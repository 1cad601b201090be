from __future__ import annotations

import json
from typing import Any

import pytest
from dagster import MetadataValue, TableColumn, TableSchema

from kindling_dagster.signals.carrying import MAX_BYTES, MAX_SIGNALS, Carried, safe_metadata
from kindling_dagster.signals.payloads import PAYLOAD_BY_SIGNAL, PipeFailedPayload, decode, from_data

PASSWORD = "hunter2hunter2"


def carried(*payloads: Any) -> dict[str, Any]:
    return {key: getattr(value, "value", value) for key, value in Carried(payloads).metadata().items()}


@pytest.mark.parametrize("signal", PAYLOAD_BY_SIGNAL)
def test_payloads_come_back_as_they_were(signal: str) -> None:
    payload = decode(signal, {"pipe_id": "p", "entity_id": "e", "unknown": [1, {"a": None}]})
    (data,) = json.loads(json.dumps(carried(payload)["kindling/signals"]))
    assert from_data(data) == payload


def test_nothing_carried_is_no_metadata() -> None:
    assert carried() == {}
    assert not Carried()


def test_the_newest_are_kept_and_the_rest_is_counted() -> None:
    many = [decode("datapipes.after_pipe", {"pipe_id": str(i)}) for i in range(MAX_SIGNALS + 7)]
    found = carried(*many)
    assert [data["fields"]["pipe_id"] for data in found["kindling/signals"]] == [
        str(i) for i in range(7, MAX_SIGNALS + 7)
    ]
    assert found["kindling/signals_omitted"] == 7
    both = Carried(many[:3])
    both.extend(Carried(many))
    assert (len(both), both.omitted) == (len(many) + 3, 10)


@pytest.mark.parametrize("length", [900, 5_000])
def test_an_event_stays_small(length: int) -> None:
    many = [
        PipeFailedPayload(
            signal="datapipes.pipe_failed", pipe_id=str(i), error="x" * length, traceback="y" * 5_000
        )
        for i in range(40)
    ]
    found = carried(*many)
    assert len(json.dumps(found["kindling/signals"])) <= MAX_BYTES * 1.01
    assert len(found["kindling/signals"]) + found["kindling/signals_omitted"] == 40
    assert found["kindling/signals"][-1]["fields"]["pipe_id"] == "39"
    assert (" characters)" in found["kindling/signals"][-1]["fields"]["error"]) is (length > 1_000)


def test_a_payload_too_large_for_any_event_is_counted() -> None:
    huge = decode("config.post_reload", {"changes": {f"key{i}": "v" * 500 for i in range(200)}})
    assert carried(huge) == {"kindling/signals_omitted": 1}


def test_long_lists_are_cut() -> None:
    found = carried(decode("datapipes.before_run", {"pipe_ids": [str(i) for i in range(60)]}))
    names = found["kindling/signals"][0]["fields"]["pipe_ids"]
    assert (len(names), names[-1]) == (51, "… 10 more")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("a", 1, 1),
        ("a", True, True),
        ("a", "text", "text"),
        ("a", ["x"], MetadataValue.json(["x"])),
        ("a", {"x": {1}}, MetadataValue.json({"x": [1]})),
        ("a", float("nan"), "nan"),
        ("a", f"password={PASSWORD}", "password=***"),
        ("a", {"accountKey": PASSWORD}, MetadataValue.json({"accountKey": "***"})),
        ("a", MetadataValue.json({"token": PASSWORD}), MetadataValue.json({"token": "***"})),
        ("a", MetadataValue.md(f"https://u:{PASSWORD}@host"), MetadataValue.text("https://u:***@host")),
        ("a", MetadataValue.md("*fine*"), MetadataValue.md("*fine*")),
        ("a", MetadataValue.timestamp(5.0), MetadataValue.timestamp(5.0)),
        ("client_secret", PASSWORD, "***"),
    ],
)
def test_metadata_are_plain_and_without_secrets(key: str, value: Any, expected: Any) -> None:
    assert safe_metadata({key: value}) == {key: expected}


def test_what_is_none_is_left_out_and_schemas_stay() -> None:
    schema = TableSchema(columns=[TableColumn("id")])
    assert safe_metadata({"a": None, "dagster/column_schema": schema}) == {"dagster/column_schema": schema}
