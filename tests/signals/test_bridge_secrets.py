from __future__ import annotations

from collections import Counter
from typing import Any

from bridge_steps import done, failed, run_step, seen

from kindling_dagster.dag.results import PipeStatus
from kindling_dagster.engines.base import LogLine, RunEvent, SignalSeen
from kindling_dagster.signals.payloads import PAYLOAD_BY_SIGNAL, wire_fields

PASSWORD = "hunter2hunter2"


def planted(name: str) -> dict[str, Any]:
    fields = {*wire_fields(PAYLOAD_BY_SIGNAL[name], name).required}
    fields -= {
        "entity_id",
        "pipe_id",
        "query_id",
        "output_entity_id",
        "source_entity_id",
        "reader_id",
        "timestamp",
    }
    values: dict[str, Any] = dict.fromkeys(fields, f"password={PASSWORD}; x")
    about = {
        "entity_id": "gold.daily", "output_entity_id": "gold.daily", "source_entity_id": "gold.daily",
        "query_id": "follow", "pipe_id": "daily", "reader_id": "daily",
    }  # fmt: skip
    return {**about, **values, "nested": {"accountKey": PASSWORD, "list": [f"token={PASSWORD}"]}}


def test_no_secret_enters_an_event() -> None:
    """Payloads are unmasked here, as an engine that forgot to mask them would give them."""
    events: list[RunEvent] = [
        SignalSeen(name, {"signal": name, "fields": planted(name), "extra": {"api_key": PASSWORD}})
        for name in PAYLOAD_BY_SIGNAL
    ]
    events += [
        LogLine("info", f"url https://user:{PASSWORD}@host"),
        failed("daily", f"cannot open https://user:{PASSWORD}@host"),
        done("fix", PipeStatus.CANCELLED, reason=f"token={PASSWORD}"),
        done("clean", metadata={"uri": f"https://host?sig={PASSWORD}", "rows": 3}),
    ]
    step = run_step(events)
    assert not step.success
    assert len(step.lines) > 50
    assert PASSWORD not in step.everything


def test_no_row_enters_an_event() -> None:
    from pyspark.sql import Row

    row = Row(name="Ada Lovelace")
    step = run_step(
        [
            seen("read.after_read", df=row, entity_id="bronze.orders", pipe_id="daily"),
            seen(
                "persist.after_persist", df=[row], pipe_id="daily", output_entity_id="gold.daily", rows=[row]
            ),
            seen("orders.loaded", sample=[row], first=row),
            done("daily"),
        ]
    )
    assert Counter(line.kind for line in step.lines)["materialization"] == 1
    assert "Lovelace" not in step.everything
