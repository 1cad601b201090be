from __future__ import annotations

from typing import Any

import pytest
from bridge_steps import APP, DAILY, LIVE, NAMES, ORDERS, RAW
from dagster import AssetCheckEvaluation, AssetKey, AssetObservation

from kindling_dagster.signals.bridge_outputs import (
    AssetFacts,
    BridgeContext,
    Commit,
    PipeNote,
    StepError,
    StepFact,
    StepLog,
)
from kindling_dagster.signals.bridge_table import SignalBridge
from kindling_dagster.signals.payloads import decode


def outputs(signal: str, context: BridgeContext = NAMES, /, **kwargs: Any) -> list[Any]:
    rule = SignalBridge().rule_for(signal)
    assert rule is not None
    return list(rule(decode(signal, kwargs), context))


def plain(metadata: Any) -> dict[str, Any]:
    return {key: getattr(value, "value", value) for key, value in metadata.items()}


# -- names


@pytest.mark.parametrize(
    ("entity_id", "key"),
    [
        ("silver.orders", ORDERS),
        ("ref.items.current", AssetKey(["ref", "items"])),
        ("nobody.knows", None),
        ("", None),
        (None, None),
    ],
)
def test_assets_of_entities(entity_id: str | None, key: AssetKey | None) -> None:
    assert NAMES.asset_of(entity_id) == key


def test_keys_of_a_translator_count() -> None:
    lake = AssetKey(["lake", "items"])
    names = BridgeContext(APP, {"ref.items": lake})
    assert names.asset_of("ref.items.current") == lake
    assert names.output_of("clean") == ORDERS
    assert names.output_of("nobody") is None


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (("follow",), LIVE),
        (("silver.live",), LIVE),
        (("7a1b-spark-id", "silver_live"), LIVE),
        (("7a1b-spark-id", None, "follow"), LIVE),
        (("7a1b-spark-id",), None),
        ((None,), None),
    ],
)
def test_assets_of_streams(names: tuple[str | None, ...], key: AssetKey | None) -> None:
    assert NAMES.stream_asset(*names) == key


def test_spark_says_only_its_own_id_of_a_query_that_told_it_at_its_start() -> None:
    names = BridgeContext(APP)
    assert isinstance(outputs("streaming.spark_query_idle", names, query_id="7a1b")[0], StepLog)
    outputs("streaming.query_started", names, query_id="follow", query_name="f", spark_query_id="7a1b")
    found = outputs("streaming.spark_query_idle", names, query_id="7a1b")
    assert [output.asset_key for output in found] == [LIVE]


# -- batch


@pytest.mark.parametrize(
    ("signal", "kwargs", "facts"),
    [
        (
            "watermark.watermark_found",
            {"source_entity_id": "bronze.orders", "reader_id": "clean", "cursor": "7"},
            AssetFacts(ORDERS, {"kindling/watermarks": {"clean": {"bronze.orders": {"from": "7"}}}}),
        ),
        (
            "watermark.watermark_missing",
            {"source_entity_id": "bronze.orders", "reader_id": "clean"},
            AssetFacts(
                ORDERS, {"kindling/watermarks": {"clean": {"bronze.orders": {"from": "the beginning"}}}}
            ),
        ),
        (
            "persist.watermark_saved",
            {"source_entity_id": "bronze.orders", "pipe_id": "clean", "cursor": "9", "version": 9},
            AssetFacts(ORDERS, {"kindling/watermarks": {"clean": {"bronze.orders": {"to": "9"}}}}),
        ),
        (
            "watermark.no_new_data",
            {"entity_id": "bronze.orders", "pipe_id": "clean", "cursor": "9"},
            AssetFacts(
                ORDERS,
                {"kindling/watermarks": {"clean": {"bronze.orders": {"from": "9", "new_data": False}}}},
            ),
        ),
        (
            "watermark.before_get",
            {"source_entity_id": "bronze.orders", "reader_id": "clean"},
            AssetFacts(ORDERS, quiet=True),
        ),
        (
            "watermark.after_save",
            {"source_entity_id": "bronze.orders", "reader_id": "not ours", "cursor": "1"},
            AssetFacts(RAW, {"kindling/watermarks": {"not ours": {"bronze.orders": {"to": "1"}}}}),
        ),
        (
            "entity.after_merge",
            {"entity_id": "silver.orders", "duration_seconds": 1.23456},
            AssetFacts(ORDERS, totals={"kindling/merge_count": 1.0, "kindling/merge_seconds": 1.235}),
        ),
        (
            "entity.after_read",
            {"entity_id": "bronze.orders", "duration_seconds": 0.5},
            AssetFacts(RAW, totals={"kindling/read_count": 1.0, "kindling/read_seconds": 0.5}, quiet=True),
        ),
        ("entity.before_merge", {"entity_id": "silver.orders"}, AssetFacts(ORDERS, quiet=True)),
        (
            "read.after_read",
            {"entity_id": "bronze.orders", "pipe_id": "clean", "used_watermark": True},
            AssetFacts(RAW, {"kindling/read_by": {"clean": "new data"}}, quiet=True),
        ),
        (
            "orchestrator.cache_hit",
            {"entity_id": "bronze.orders", "hit_count": 2},
            AssetFacts(RAW, {"kindling/cache": {"hits": 2}}),
        ),
        (
            "orchestrator.cache_recommended",
            {"entity_id": "bronze.orders", "consumer_pipes": ["a", "b"], "auto_cache": False},
            AssetFacts(RAW, {"kindling/cache": {"readers": ["a", "b"], "cached": False}}, quiet=True),
        ),
        (
            "datapipes.lineage_applied",
            {"pipe_id": "daily", "package_name": "shop", "package_version": "1.2"},
            AssetFacts(
                DAILY,
                {"kindling/lineage_package_name": "shop", "kindling/lineage_package_version": "1.2"},
                needs_commit=True,
            ),
        ),
        (
            "persist.after_persist",
            {"output_entity_id": "silver.orders", "pipe_id": "clean", "duration_seconds": 2.0},
            Commit(ORDERS, {"kindling/persist_seconds": {"clean": 2.0}}),
        ),
        ("entity.after_merge", {"entity_id": "nobody.knows"}, None),
    ],
)
def test_facts_of_assets(signal: str, kwargs: dict[str, Any], facts: Any) -> None:
    assert outputs(signal, **kwargs) == ([] if facts is None else [facts])


@pytest.mark.parametrize(
    ("signal", "kwargs", "level", "line"),
    [
        (
            "orchestrator.generation_started",
            {"generation": 1, "pipe_ids": ["daily", "top"]},
            "info",
            "Generation 1 begins: daily, top",
        ),
        (
            "orchestrator.generation_completed",
            {
                "generation": 1,
                "success_count": 2,
                "failed_count": 1,
                "skipped_count": 0,
                "duration_seconds": 3.21,
            },
            "info",
            "Generation 1 ended: 2 committed, 1 failed in 3.2 s",
        ),
        ("orchestrator.generation_completed", {}, "info", "Generation ? ended: nothing ran in ? s"),
        (
            "orchestrator.execution_cancelled",
            {"cancelled_count": 2, "duration_seconds": 1, "reason": "terminated"},
            "warning",
            "Execution was cancelled (terminated): 2 cancelled in 1.0 s",
        ),
        (
            "orchestrator.execution_started",
            {"pipe_count": 3, "generation_count": 2, "mode": "barrier", "parallel": True},
            "info",
            "3 pipes in 2 generations, barrier, parallel: True",
        ),
        (
            "orchestrator.pipe_retrying",
            {
                "pipe_id": "p",
                "attempt": 1,
                "max_attempts": 3,
                "interval_seconds": 2.0,
                "error_type": "E",
                "error": "m",
            },
            "warning",
            "p failed in attempt 1 of 3 and is tried again in 2.0 s: E: m",
        ),
        (
            "file_ingestion.batch_written",
            {"dest_entity_id": "x", "file_count": 3},
            "info",
            "file_ingestion.batch_written: dest_entity_id=x, file_count=3",
        ),
        ("app.deploy_failed", {"app_name": "a"}, "error", "app.deploy_failed: app_name=a"),
        ("orders.loaded", {"files": 2}, "info", "orders.loaded: files=2"),
        ("orders.loaded", {}, "info", "orders.loaded"),
        (
            "datapipes.before_run",
            {"pipe_ids": ["a", "b"]},
            "info",
            "datapipes.before_run: pipe_ids=['a', 'b']",
        ),
        (
            "streaming.query_stopped",
            {"query_id": "unknown"},
            "info",
            "streaming.query_stopped: query_id=unknown",
        ),
    ],
)
def test_log_lines(signal: str, kwargs: dict[str, Any], level: str, line: str) -> None:
    found = [output for output in outputs(signal, **kwargs) if isinstance(output, StepLog)]
    assert [(output.level, output.message) for output in found] == [(level, line)]


def test_the_plan_is_a_table_and_its_warnings_are_lines() -> None:
    found = outputs(
        "orchestrator.plan_generated",
        strategy="batch",
        pipe_ids=["clean", "daily"],
        pipe_count=2,
        generation_count=2,
        max_parallelism=1,
        metadata={"generations": [["clean"], ["daily"]], "warnings": ["take care"]},
    )
    assert found[0].message.splitlines() == [
        "Plan (batch): 2 pipes in 2 generations, up to 1 at once",
        "generation  pipe   writes",
        "0           clean  silver.orders",
        "1           daily  gold.daily",
    ]
    assert found[0].data["pipe_ids"] == ["clean", "daily"]
    assert (found[1].level, found[1].message) == ("warning", "take care")
    assert found[2] == StepFact("strategy", "batch")


@pytest.mark.parametrize(
    ("signal", "kwargs", "note"),
    [
        ("datapipes.before_pipe", {"pipe_id": "clean"}, PipeNote("clean")),
        (
            "datapipes.pipe_skipped",
            {"pipe_id": "clean", "skip_reason": "no data"},
            PipeNote("clean", "no data"),
        ),
        ("orchestrator.pipe_skipped", {"pipe_id": "x", "reason": "y failed"}, PipeNote("x", "y failed")),
        ("datapipes.after_run", {"pipe_ids": ["clean"], "run_id": "r"}, PipeNote("clean")),
    ],
)
def test_what_joins_a_pipes_own_line(signal: str, kwargs: dict[str, Any], note: PipeNote) -> None:
    assert outputs(signal, **kwargs) == [note]


def test_the_end_of_an_execution_tells_of_caching() -> None:
    metrics = {"bronze.orders": {"hits": 1, "misses": 1}}
    for signal, first in (("completed", StepLog), ("failed", StepError)):
        found = outputs(f"orchestrator.execution_{signal}", cache_metrics=metrics)
        assert isinstance(found[0], first)
        assert found[1:] == [StepFact("cache", metrics)]
        assert len(outputs(f"orchestrator.execution_{signal}")) == 1


# -- streams and checks


@pytest.mark.parametrize(
    ("signal", "kwargs", "check", "passed", "severity", "description"),
    [
        ("streaming.query_healthy", {}, "stream_health", True, "WARN", "query healthy"),
        ("streaming.query_unhealthy", {"reason": "slow"}, "stream_health", False, "WARN", "query unhealthy: slow"),
        ("streaming.query_stalled", {}, "stream_health", False, "ERROR", "query stalled"),
        ("streaming.query_exception", {"exception": "boom"}, "stream_health", False, "ERROR", "query exception: boom"),
        ("streaming.recovery_exhausted", {"failure_reason": "x"}, "stream_health", False, "ERROR", "recovery exhausted: x"),
        ("streaming.dimension_changed", {"change": "schema"}, "schema_drift", False, "WARN", "The schema changed."),
        ("streaming.dimension_changed", {"change": "data"}, "schema_drift", True, "WARN", "Only data changed."),
        ("datapipes.lineage_audit", {"stale_row_count": 1200}, "lineage_freshness", False, "WARN", "1,200 stale"),
        ("datapipes.lineage_audit", {"stale_file_count": 0}, "lineage_freshness", True, "WARN", "Everything was written by versions that are allowed."),
    ],
)  # fmt: skip
def test_checks(
    signal: str, kwargs: dict[str, Any], check: str, passed: bool, severity: str, description: str
) -> None:
    about: dict[str, Any] = (
        {"query_id": "follow"} if check.startswith("stream") else {"entity_id": "bronze.orders"}
    )
    observed, checked = outputs(signal, **about, **kwargs)
    key = LIVE if check.startswith("stream") else RAW
    assert isinstance(observed, AssetObservation)
    assert isinstance(checked, AssetCheckEvaluation)
    assert (observed.asset_key, checked.asset_key) == (key, key)
    assert (checked.check_name, checked.passed, checked.severity.value) == (check, passed, severity)
    assert checked.description == description


def test_a_stream_that_recovered_says_nothing_of_the_others_of_its_asset() -> None:
    (found,) = outputs("streaming.recovery_succeeded", query_id="follow", retry_count=2)
    assert isinstance(found, AssetObservation)
    assert (found.asset_key, found.description) == (LIVE, "recovery succeeded")


def test_an_observation_has_what_the_signal_says() -> None:
    (found,) = outputs(
        "streaming.query_restarted", query_id="follow", restart_count=2, reason="dimension changed"
    )
    assert (found.asset_key, found.description) == (LIVE, "query restarted: dimension changed")
    assert plain(found.metadata) == {
        "kindling/signal": "streaming.query_restarted",
        "kindling/query_id": "follow",
        "kindling/restart_count": 2,
        "kindling/reason": "dimension changed",
    }


def test_a_cascade_is_about_each_of_its_streams() -> None:
    found = outputs(
        "streaming.cascade_restart_started",
        cascade_id="c",
        query_ids=["follow", "daily", "unknown", "follow"],
    )
    assert [output.asset_key for output in found] == [LIVE, DAILY]


def test_progress_counts_rows() -> None:
    (found,) = outputs(
        "streaming.spark_query_progress", query_id="7a1b", name="silver_live", num_input_rows=12
    )
    assert found.asset_key == LIVE
    assert plain(found.metadata)["kindling/rows"] == 12
