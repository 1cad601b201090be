"""Signals received outside the run that emitted them: by a sensor, by an op of another job, by a plain process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from bridge_steps import DAILY, LIVE, ORDERS, RAW, done, failed, run_step, seen
from dagster import (
    AssetMaterialization,
    AssetObservation,
    DagsterInstance,
    MetadataValue,
    RunRequest,
    SensorEvaluationContext,
    SensorResult,
    build_sensor_context,
    job,
    op,
    sensor,
)

from kindling_dagster.dag.results import PipeStatus
from kindling_dagster.signals.errors import SignalError
from kindling_dagster.signals.payloads import (
    PersistPayload,
    PipeFailedPayload,
    StreamQueryPayload,
    WatermarkPayload,
    decode,
)
from kindling_dagster.signals.reading import SignalPage, read_signals, read_step_records

COMMIT = seen("persist.after_persist", pipe_id="daily", output_entity_id="gold.daily", duration_seconds=1.5)


@pytest.fixture(scope="module")
def instance() -> Iterator[DagsterInstance]:
    """Two runs: one with signals of every kind of event, one that failed."""
    with DagsterInstance.ephemeral() as made:
        events = [
            seen(
                "watermark.watermark_found", source_entity_id="silver.orders", reader_id="daily", cursor="3"
            ),
            COMMIT,
            done("daily"),
            seen("streaming.query_started", query_id="follow", query_name="silver_live"),
            seen("streaming.query_stalled", query_id="follow", reason="no batch for 90 s"),
        ]
        run_step(events, instance=made)
        lost = seen("datapipes.pipe_failed", pipe_id="clean", error="lost executor", error_type="IOError")
        run_step([lost, failed("clean"), done("fix", PipeStatus.UPSTREAM_FAILED)], instance=made)
        yield made


def names(page: SignalPage) -> list[str]:
    return [record.payload.signal for record in page.records]


@job
def do_nothing() -> None:
    pass


def test_a_sensor_gets_typed_payloads_once(instance: DagsterInstance) -> None:
    @sensor(job=do_nothing)
    def on_commit(context: SensorEvaluationContext) -> SensorResult:
        page = read_signals(context.instance, DAILY, context.cursor, signals=["persist.after_persist"])
        requests = [
            RunRequest(run_key=str(record.storage_id), tags={"by": str(record.payload.pipe_id)})
            for record in page.records
            if isinstance(record.payload, PersistPayload)
        ]
        return SensorResult(run_requests=requests, cursor=page.cursor)

    first = on_commit(build_sensor_context(instance=instance))
    assert isinstance(first, SensorResult)
    assert [request.tags["by"] for request in first.run_requests or ()] == ["daily"]
    second = on_commit(build_sensor_context(instance=instance, cursor=first.cursor))
    assert isinstance(second, SensorResult)
    assert (second.run_requests, second.cursor) == ([], first.cursor)


def test_an_op_of_another_job_gets_them(instance: DagsterInstance) -> None:
    got: list[Any] = []

    @op
    def receive(context) -> None:  # type: ignore[no-untyped-def]  # Dagster takes no postponed annotation
        got.extend(record.payload for record in read_signals(context.instance, LIVE).records)

    @job
    def elsewhere() -> None:
        receive()

    assert elsewhere.execute_in_process(instance=instance).success
    started, stalled = got
    assert isinstance(started, StreamQueryPayload)
    assert (started.query_id, started.query_name) == ("follow", "silver_live")
    assert (stalled.signal, stalled.reason) == ("streaming.query_stalled", "no batch for 90 s")


def test_all_signals_of_a_materialization_come_in_their_order(instance: DagsterInstance) -> None:
    page = read_signals(instance, DAILY)
    found, committed = page.records
    assert isinstance(found.payload, WatermarkPayload)
    assert isinstance(committed.payload, PersistPayload)
    assert (found.payload.cursor, committed.payload.duration_seconds) == ("3", 1.5)
    assert found.storage_id == committed.storage_id == int(page.cursor)
    assert found.run_id == committed.run_id
    assert instance.has_run(found.run_id)
    assert committed.payload.timestamp is not None
    assert committed.payload.timestamp <= committed.timestamp
    assert not page.more


def test_a_failure_is_received_by_the_asset_that_was_to_be_written(instance: DagsterInstance) -> None:
    (record,) = read_signals(instance, ORDERS, signals=["*_failed"]).records
    assert isinstance(record.payload, PipeFailedPayload)
    assert (record.payload.error, record.payload.error_type) == ("lost executor", "IOError")
    (told,) = instance.fetch_observations(ORDERS, limit=5).records
    assert told.asset_observation is not None
    assert told.asset_observation.metadata["kindling/error"].value == "IOError: lost executor"


def test_steps_are_read_back(instance: DagsterInstance) -> None:
    (record,) = read_signals(instance, ORDERS).records
    (step,) = read_step_records(instance, record.run_id)
    assert {pipe["pipe"]: pipe["status"] for pipe in step["pipes"]} == {
        "clean": "failed",
        "fix": "upstream_failed",
    }
    assert step["errors"] == {"datapipes.pipe_failed": 1}


# -- pages ------------------------------------------------------------------------------------------


def store(
    instance: DagsterInstance, n: int, kind: type[Any] = AssetObservation, name: str = "shop.counted"
) -> None:
    data = decode(name, {"n": n}).to_data()
    instance.report_runless_asset_event(kind(RAW, metadata={"kindling/signals": MetadataValue.json([data])}))


@pytest.fixture(scope="module")
def many() -> Iterator[DagsterInstance]:
    """130 observations among which are materializations, and events of others."""
    with DagsterInstance.ephemeral() as made:
        for n in range(160):
            store(made, n, AssetMaterialization if n % 5 == 4 else AssetObservation)
            if n == 100:
                made.report_runless_asset_event(AssetObservation(RAW, metadata={"theirs": 1}))
        store(made, 160, name="shop.rarely")
        yield made


def numbers(page: SignalPage) -> list[Any]:
    return [record.payload.extra["n"] for record in page.records]


@pytest.mark.parametrize("limit", [7, 100, 500])
def test_pages_give_everything_once_and_in_order(many: DagsterInstance, limit: int) -> None:
    got: list[Any] = []
    cursor, more = None, True
    while more:
        page = read_signals(many, RAW, cursor, limit=limit)
        assert len(page.records) <= limit
        got += numbers(page)
        cursor, more = page.cursor, page.more
    assert got == list(range(161))


def test_what_is_rare_is_found_in_short_steps(many: DagsterInstance) -> None:
    """Each looks at few events; the cursor moves on though nothing was found."""
    steps, cursor, found = 0, None, list[Any]()
    more = True
    while more:
        page = read_signals(many, RAW, cursor, signals=["shop.rarely"], max_events=50)
        cursor, more, steps = page.cursor, page.more, steps + 1
        found += numbers(page)
    assert (found, steps) == ([160], 4)


def test_nothing_there_is_an_empty_page() -> None:
    with DagsterInstance.ephemeral() as empty:
        page = read_signals(empty, RAW)
        assert (page.records, page.more) == ((), False)
        store(empty, 1)
        assert numbers(read_signals(empty, RAW, page.cursor)) == [1]


def test_a_cursor_of_something_else_is_refused(many: DagsterInstance) -> None:
    with pytest.raises(SignalError, match="'yesterday' is no cursor"):
        read_signals(many, RAW, "yesterday")


@pytest.mark.parametrize("value", [[{"no": "signal"}, "text"], {"a": 1}, []])
def test_what_only_looks_like_signals_holds_nothing_up(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    with DagsterInstance.ephemeral() as made:
        made.report_runless_asset_event(
            AssetObservation(RAW, metadata={"kindling/signals": MetadataValue.json(value)})
        )
        store(made, 1)
        with caplog.at_level(logging.WARNING, logger="kindling_dagster.signals"):
            assert numbers(read_signals(made, RAW)) == [1]
    assert caplog.text.count("names no signal") == (2 if value and isinstance(value, list) else 0)
