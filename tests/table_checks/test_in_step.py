"""Checks in the step that writes a table, where Spark is not needed: which pipe is judged, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from delta_tables import write
from manifests import entity, manifest, pipe

from kindling_dagster.dag.results import PipeOutcome
from kindling_dagster.engines.pipe_run import plan_request
from kindling_dagster.manifest import Location, Manifest
from kindling_dagster.table_checks.in_step import StepChecks

SCHEMA = pa.schema([("id", pa.int64())])
COLUMNS = ({"name": "id", "type": "long"}, {"name": "item", "type": "string"})


class NoSpark:
    """A runtime whose session is out of order."""

    def __init__(self, folder: Path) -> None:
        self.project = type("Project", (), {"working_dir": folder})

    def read_entity(self, entity_id: str) -> Any:
        raise ConnectionError(f"no session to read {entity_id}")


def app(**declared: Any) -> Manifest:
    """Two pipes write silver.orders, the second reads it too; a third reads it."""
    return manifest(
        pipe("first", "raw.orders", "silver.orders"),
        pipe("then", "silver.orders raw.more", "silver.orders"),
        pipe("total", "silver.orders", "gold.totals"),
        entities=(
            entity("silver.orders", location=Location("path", "orders"), merge_columns=("id",), **declared),
        ),
    )


def judged(
    folder: Path, pipe_id: str, wanted: dict[str, bool], outcome: PipeOutcome, **declared: Any
) -> PipeOutcome:
    made = app(**declared)
    plan = plan_request(made, [each.id for each in made.pipes])
    runtime = cast(Any, NoSpark(folder))
    checks = StepChecks({"silver.orders": wanted} if wanted else {}, plan, made, runtime, cast(Any, None))
    return checks.judge(pipe_id, outcome)


def told(outcome: PipeOutcome) -> dict[str, tuple[bool, bool]]:
    return {each["name"]: (each["passed"], each["severe"]) for each in outcome.metadata.get("checks", ())}


@pytest.mark.parametrize(
    ("pipe_id", "wanted", "found"),
    [
        ("then", {"merge_keys_unique": True}, {"merge_keys_unique": (False, True)}),
        ("then", {"merge_keys_unique": False}, {"merge_keys_unique": (False, True)}),
        ("then", {"merge_keys_not_null": True}, {"merge_keys_not_null": (True, True)}),
        # the writer before the last, and what writes another table
        ("first", {"merge_keys_unique": True}, {}),
        ("total", {"merge_keys_unique": True}, {}),
        ("then", {}, {}),
    ],
)
@pytest.mark.parametrize("skipped", [False, True])
def test_the_last_writer_is_judged(
    tmp_path: Path, pipe_id: str, wanted: dict[str, bool], found: dict[str, tuple[bool, bool]], skipped: bool
) -> None:
    write(tmp_path / "orders", [{"id": 1}, {"id": 1}], SCHEMA)
    before = PipeOutcome(
        skipped=skipped, metadata={} if skipped else {"uri": str(tmp_path / "orders"), "rows": 2}
    )
    outcome = judged(tmp_path, pipe_id, wanted, before)
    assert told(outcome) == found
    assert {**outcome.metadata, "checks": None} == {**before.metadata, "checks": None}
    holds = any(wanted.get(name) and not passed for name, (passed, _) in found.items())
    assert (outcome.error is not None, outcome.skipped) == (holds, skipped)


def test_the_error_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "orders", [{"id": 1}, {"id": 1}], SCHEMA)
    error = judged(tmp_path, "then", {"merge_keys_unique": True}, PipeOutcome()).error
    assert error is not None
    assert error.type == "CheckFailed"
    assert "merge_keys_unique: 1 keys have more than one row, 1 rows too many." in error.message
    assert "run it again" in error.suggestion


@pytest.mark.parametrize("uri", ["s3://lake/orders", "gone", ""])
def test_a_table_that_cannot_be_read_holds_nothing_back(tmp_path: Path, uri: str) -> None:
    outcome = judged(tmp_path, "then", {"merge_keys_unique": True}, PipeOutcome(metadata={"uri": uri}))
    assert (told(outcome), outcome.error) == ({"merge_keys_unique": (False, False)}, None)
    assert "no session to read silver.orders" in outcome.metadata["checks"][0]["text"]


def test_drift_is_told_also_where_the_planner_fails(tmp_path: Path) -> None:
    write(tmp_path / "orders", [{"id": 1}], SCHEMA)
    outcome = judged(tmp_path, "then", {"schema_drift": True}, PipeOutcome(), schema=COLUMNS)
    assert told(outcome) == {"schema_drift": (False, True)}
    assert outcome.error is not None
    (line,) = outcome.metadata["checks"][0]["metadata"]["kindling/migration_plan"]
    assert line.startswith("there is none:")
