"""Batch assets behind a stream run when it has committed rows, and not when it is merely alive."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetSpec,
    AutomationCondition,
    DagsterInstance,
    Definitions,
    evaluate_automation_conditions,
)
from stream_apps import running

from kindling_dagster.stream_events import ReportingPolicy, ReportRecord, reports
from kindling_dagster.streaming.model import Desired, HostInfo
from kindling_dagster.streaming.views import StreamView

LIVE = AssetKey(["silver", "live"])
ON_NEW_ROWS = AutomationCondition.any_deps_match(AutomationCondition.data_version_changed())


def test_a_batch_asset_runs_on_new_rows_alone(tmp_path: Path) -> None:
    defs = Definitions(
        assets=[
            AssetSpec(LIVE),
            AssetSpec("report", deps=[LIVE], automation_condition=ON_NEW_ROWS),
        ]
    )
    policy = ReportingPolicy(heartbeat_every=0, idle_heartbeat_every=0)
    host = HostInfo("h", 1, state="running", expires_at=time.time() + 600)
    record = ReportRecord()
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        result = evaluate_automation_conditions(defs, instance)

        def beat(rows: int) -> int:
            """A heartbeat, then a look: how many assets are to run."""
            nonlocal record, result
            status = replace(running("follow"), rows_committed=rows)
            view = StreamView("follow", Desired("follow", True), status, None, host, time.time())
            events, record = reports(LIVE, view, record, policy)
            [heartbeat] = [event for event in events if isinstance(event, AssetMaterialization)]
            instance.report_runless_asset_event(heartbeat)
            result = evaluate_automation_conditions(defs, instance, cursor=result.cursor)
            return result.total_requested

        assert [beat(rows) for rows in (10, 10, 10, 25, 25, 30)] == [1, 0, 0, 1, 0, 1]
