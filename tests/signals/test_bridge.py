from __future__ import annotations

import threading
from typing import Any

import pytest
from bridge_steps import DAILY, LIVE, ORDERS, RAW, Step, done, failed, run_step, seen
from dagster import AssetMaterialization, AssetObservation, DagsterInstance

from kindling_dagster.dag.results import PipeStatus
from kindling_dagster.engines.base import LogLine, PipeStarted, RunEvent, SignalSeen
from kindling_dagster.signals.bridge import StepReporter
from kindling_dagster.signals.bridge_outputs import AssetFacts, BridgeContext, StepLog
from kindling_dagster.signals.bridge_table import SignalBridge
from kindling_dagster.signals.payloads import PAYLOAD_BY_SIGNAL
from kindling_dagster.signals.reading import read_step_records
from kindling_dagster.signals.throttle import Throttle

PASSWORD = "hunter2hunter2"
COMMIT = seen("persist.after_persist", pipe_id="daily", output_entity_id="gold.daily", duration_seconds=1.5)


def kinds(step: Step) -> list[tuple[str, str]]:
    return [(line.kind, line.asset) for line in step.lines]


# -- order and places


def test_events_are_stored_in_the_order_they_came() -> None:
    step = run_step(
        [
            LogLine("info", "Spark is up"),
            PipeStarted("daily", 1, 0.0),
            seen("streaming.query_started", query_id="follow", query_name="f"),
            LogLine("warning", "between"),
            COMMIT,
            done("daily"),
            seen("streaming.query_healthy", query_id="follow"),
            LogLine("info", "last"),
        ]
    )
    assert step.success
    assert kinds(step)[:-1] == [
        ("log", ""),
        ("log", ""),
        ("observation", "silver/live"),
        ("log", ""),
        ("log", ""),
        ("materialization", "gold/daily"),
        ("observation", "silver/live"),
        ("check", "silver/live"),
        ("log", ""),
    ]
    assert step.logs[:4] == ["Spark is up", "[1/3] daily started", "between", "[1/3] daily committed: 10.0 s"]
    assert step.logs[-1].startswith("Step ended.\n")


def test_events_are_stored_while_the_step_goes_on() -> None:
    instance = DagsterInstance.ephemeral()
    stored: list[int] = []

    def events() -> Any:
        yield seen("streaming.query_started", query_id="follow")
        stored.append(len(instance.fetch_observations(LIVE, limit=9).records))
        yield done("daily")
        stored.append(len(instance.fetch_materializations(DAILY, limit=9).records))

    run_step(events(), instance=instance)
    assert stored == [1, 1]


def test_dagster_is_used_by_the_consuming_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[int] = set()
    original = StepReporter._send

    def send(self: StepReporter, event: Any) -> None:
        threads.add(threading.get_ident())
        original(self, event)

    monkeypatch.setattr(StepReporter, "_send", send)
    run_step([seen("streaming.query_started", query_id="follow"), seen("orders.loaded", files=1)])
    assert threads == {threading.get_ident()}


def test_a_materialization_has_its_facts_and_its_timings() -> None:
    step = run_step(
        [
            seen(
                "watermark.watermark_found", source_entity_id="bronze.orders", reader_id="clean", cursor="3"
            ),
            seen("entity.after_merge", entity_id="silver.orders", duration_seconds=1.25),
            seen("persist.watermark_saved", source_entity_id="bronze.orders", pipe_id="clean", cursor="5"),
            done("clean", generation=1, attempts=2),
            seen("watermark.no_new_data", entity_id="bronze.fixes", pipe_id="fix", cursor="1"),
            seen("entity.after_merge", entity_id="silver.orders", duration_seconds=0.5),
            done("fix", PipeStatus.SKIPPED),
        ]
    )
    (made,) = step.of("materialization")
    assert made.metadata["kindling/watermarks"] == {
        "clean": {"bronze.orders": {"from": "3", "to": "5"}},
        "fix": {"bronze.fixes": {"from": "1", "new_data": False}},
    }
    assert (made.metadata["kindling/merge_count"], made.metadata["kindling/merge_seconds"]) == (2, 1.75)
    assert made.metadata["kindling/timings"] == {
        "clean": {
            "pipe": "clean",
            "generation": 1,
            "status": "succeeded",
            "start": "1970-01-01T00:16:40.000+00:00",
            "end": "1970-01-01T00:16:50.000+00:00",
            "seconds": 10.0,
            "attempts": 2,
        }
    }
    assert (made.metadata["kindling/started"], made.metadata["kindling/ended"]) == (1_000.0, 1_010.0)
    assert (made.metadata["kindling/generation"], made.metadata["kindling/attempts"]) == (1, 2)
    assert [data["signal"] for data in made.metadata["kindling/signals"]] == [
        "watermark.watermark_found",
        "entity.after_merge",
        "persist.watermark_saved",
        "watermark.no_new_data",
        "entity.after_merge",
    ]
    assert step.of("observation") == []


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        (done("daily", PipeStatus.SKIPPED), "Nothing new to write"),
        (failed("daily"), "Not written to the end"),
    ],
)
def test_facts_of_an_asset_without_materialization_are_observed(ending: RunEvent, text: str) -> None:
    step = run_step(
        [
            seen("datapipes.lineage_applied", pipe_id="daily", entity_id="gold.daily", package_version="2"),
            seen(
                "watermark.watermark_found", source_entity_id="silver.orders", reader_id="daily", cursor="3"
            ),
            ending,
        ]
    )
    (line,) = step.of("observation")
    assert (line.asset, line.text) == ("gold/daily", text)
    assert set(line.metadata) == {"kindling/watermarks", "kindling/signals"}, "lineage is of commits only"
    assert [data["signal"] for data in line.metadata["kindling/signals"]] == ["watermark.watermark_found"]


def test_lineage_enters_the_materialization() -> None:
    step = run_step(
        [
            seen("datapipes.lineage_applied", pipe_id="daily", entity_id="gold.daily", package_version="2"),
            seen(
                "datapipes.version_changed", entity_id="gold.daily", previous_version="1", package_version="2"
            ),
            COMMIT,
            done("daily"),
        ]
    )
    (made,) = step.of("materialization")
    assert made.metadata["kindling/lineage_package_version"] == "2"
    assert made.metadata["kindling/lineage_previous_version"] == "1"
    assert len(made.metadata["kindling/signals"]) == 3


def test_what_comes_after_the_materialization() -> None:
    """Reads of what this step wrote are no event; what caching gave is."""
    read = seen("entity.after_read", entity_id="gold.daily", duration_seconds=0.5)
    step = run_step([done("daily"), read])
    assert step.of("observation") == []
    step = run_step(
        [done("daily"), read, seen("orchestrator.cache_released", entity_id="gold.daily", hit_count=3)]
    )
    (line,) = step.of("observation")
    assert line.metadata["kindling/cache"] == {"hits": 3}
    assert line.metadata["kindling/read_count"] == 1


def test_reads_of_what_others_write_are_observed_once() -> None:
    read = seen("entity.after_read", entity_id="bronze.orders", duration_seconds=0.5)
    step = run_step([read, read, seen("entity.before_read", entity_id="bronze.orders"), done("daily")])
    (line,) = step.of("observation", RAW)
    assert (line.metadata["kindling/read_count"], line.text) == (2, "Used by this run")
    assert len(line.metadata["kindling/signals"]) == 2, "before_read says nothing that is worth carrying"


def test_a_commit_of_what_the_step_does_not_have_is_a_materialization() -> None:
    elsewhere = seen("persist.after_persist", pipe_id="follow", output_entity_id="silver.live")
    step = run_step([elsewhere, COMMIT, done("daily")])
    assert [line.asset for line in step.of("materialization")] == ["silver/live", "gold/daily"]


def test_signals_of_a_pipe_join_its_line() -> None:
    step = run_step(
        [
            seen("datapipes.before_pipe", pipe_id="daily"),
            seen("datapipes.pipe_skipped", pipe_id="daily", skip_reason="no new data"),
            done("daily", PipeStatus.SKIPPED),
            seen("datapipes.after_run", pipe_ids=["daily"]),
        ]
    )
    assert step.logs[:2] == ["[1/3] daily skipped: no new data", "daily: datapipes.after_run"]


def test_nothing_is_left_of_a_pipe_that_is_nobodys() -> None:
    step = run_step([seen("datapipes.pipe_skipped", pipe_id="other", skip_reason="no data")])
    assert step.logs[0] == "other: datapipes.pipe_skipped (no data)"


# -- counting


def test_high_rate_signals_are_added_up() -> None:
    progress = [
        seen("streaming.spark_query_progress", query_id="follow", name="silver_live", num_input_rows=rows)
        for rows in range(50)
    ]
    step = run_step(progress)
    first, rest = step.of("observation", LIVE)
    assert (first.metadata["kindling/rows"], rest.metadata["kindling/rows"]) == (0, sum(range(50)))
    assert rest.metadata["kindling/count"] == 49
    assert rest.metadata["kindling/signals"][0]["fields"]["num_input_rows"] == 49
    assert rest.metadata["kindling/signals_omitted"] == 48
    (record,) = read_step_records(step.instance, step.run_id)
    assert record["signals"] == {"streaming.spark_query_progress": 50}
    assert record["aggregated"] == {"streaming.spark_query_progress": 48}


def test_a_flood_of_any_signal_is_added_up() -> None:
    step = run_step([seen("orders.loaded", files=i) for i in range(100)], SignalBridge(burst=3))
    assert step.logs[:3] == [f"orders.loaded: files={i}" for i in range(3)]
    assert step.logs[3] == "orders.loaded: files=99 (and 96 more like it)"


def test_what_is_held_goes_out_when_its_time_has_come() -> None:
    now = [0.0]
    fast = [seen("streaming.spark_query_progress", name="silver_live", num_input_rows=1)] * 3

    def events() -> Any:
        yield from fast
        now[0] = 31.0
        yield LogLine("info", "later")
        yield LogLine("info", "last")

    step = run_step(events(), throttle=Throttle(interval=30, clock=lambda: now[0]))
    found = [line.kind if line.kind != "log" else line.text for line in step.lines[:4]]
    assert found == ["observation", "later", "observation", "last"]


def test_every_signal_is_counted_wherever_it_goes() -> None:
    names = [*PAYLOAD_BY_SIGNAL, "orders.loaded"]
    events = [SignalSeen(name, {"signal": name, "fields": {}}) for name in names for _ in range(3)]
    step = run_step(events, SignalBridge({"config.*": None, "streaming.query_healthy": bad_rule}))
    (record,) = read_step_records(step.instance, step.run_id)
    assert record["signals"] == dict.fromkeys(sorted(names), 3)
    dropped = {name: 3 for name in names if name.startswith("config.")}
    assert record["dropped"] == {**dropped, "streaming.query_healthy": 3}


# -- the user's rules


def bad_rule(payload: Any, context: BridgeContext) -> Any:
    raise ValueError(f"cannot, password={PASSWORD}")


def test_a_users_rule_comes_first() -> None:
    def loaded(payload: Any, context: BridgeContext) -> Any:
        key = context.asset_of(payload.extra["entity_id"])
        assert key is not None
        yield AssetObservation(key, metadata={"files": payload.extra["files"]})
        yield AssetFacts(key, {"files": payload.extra["files"]})
        yield StepLog("loaded", "warning")
        yield AssetMaterialization(RAW)

    step = run_step(
        [seen("orders.loaded", entity_id="gold.daily", files=2), COMMIT, done("daily")],
        SignalBridge({"orders.loaded": loaded, "persist.*": None}),
    )
    (observed,) = step.of("observation")
    assert observed.metadata["files"] == 2
    assert observed.metadata["kindling/signals"][0]["extra"] == {"entity_id": "gold.daily", "files": 2}
    raw, daily = step.of("materialization")
    assert (raw.asset, daily.metadata["files"]) == ("bronze/orders", 2)
    assert "kindling/persist_seconds" not in daily.metadata
    assert step.logs[0] == "loaded"


def test_a_rule_may_give_nothing_at_all() -> None:
    step = run_step([seen("orders.loaded")], SignalBridge({"orders.loaded": lambda payload, context: None}))  # type: ignore[dict-item,arg-type,return-value]
    assert step.success
    assert "dropped" not in step.logs[-1]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (bad_rule, "ValueError: cannot, password=***"),
        (lambda payload, context: ["text"], "TypeError: its rule gave a str"),
        (lambda payload, context: 5, "TypeError: 'int' object is not iterable"),
    ],
)
def test_a_rule_that_raises_costs_its_signal_and_nothing_else(rule: Any, said: str) -> None:
    step = run_step([seen("orders.loaded"), COMMIT, done("daily")], SignalBridge({"orders.loaded": rule}))
    assert step.success
    assert step.logs[0].startswith(f"The signal orders.loaded is not passed on: {said}")
    assert step.of("materialization")[0].metadata["kindling/persist_seconds"] == {"daily": 1.5}


def test_a_payload_that_cannot_be_read_is_reported() -> None:
    step = run_step([SignalSeen("orders.loaded", {"fields": "none"}), done("daily")])
    assert step.success
    assert "orders.loaded is not passed on: PayloadError" in step.logs[0]


def test_orders_is_an_asset_of_two_pipes() -> None:
    """One that failed keeps the other's commit from being the asset's materialization."""
    committed = seen(
        "persist.after_persist", pipe_id="clean", output_entity_id="silver.orders", duration_seconds=1.0
    )
    step = run_step([committed, done("clean"), failed("fix")])
    assert step.of("materialization", ORDERS) == []
    (line,) = step.of("observation", ORDERS)
    assert line.metadata["kindling/persist_seconds"] == {"clean": 1.0}
