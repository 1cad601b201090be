"""The demo's jobs that change dimensions behind the streams' back, and what the sensor makes of that. No Spark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
from pathlib import Path
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
import definitions
from kindling_dagster_demo import feed
from kindling_dagster.streaming.dimensions.look import look
from kindling_dagster.streaming.watched import DimensionPolicy, WatchedDimensions

definitions.DEMO = Path(sys.argv[1])
table = definitions.DEMO / "data" / "lake" / "ref" / "airlines"
rows = {"carrier": ["UA", "AA"], "airline": ["United", "American"]}
write_deltalake(str(table), pa.table(rows))
policy = DimensionPolicy(detection={"landing.planes": "hash"})
watched = WatchedDimensions(definitions.project.manifest, policy, definitions.DEMO)
airlines = watched.dimensions["ref.airlines"]
before = look(airlines)
job = definitions.defs.resolve_job_def("rename_an_airline")
config = {"ops": {"rename": {"config": {"name": "It's new"}}}}
assert job.execute_in_process(run_config=config).success
found = look(airlines, before.fingerprint)
[decision] = watched.dependencies.decide(found)
names = dict(zip(*DeltaTable(str(table)).to_pyarrow_table().to_pydict().values()))
print("ANSWER", names["UA"], names["AA"], found.change, found.operations, decision.stream_id, decision.restart)
feed.land_reference(definitions.DEMO)
planes = watched.dimensions["landing.planes"]
before = look(planes)
feed.land_reference(definitions.DEMO)
assert not look(planes, before.fingerprint).changed
assert definitions.defs.resolve_job_def("change_a_planes_manufacturer").execute_in_process().success
found = look(planes, before.fingerprint)
[decision] = watched.dependencies.decide(found)
print("ANSWER", found.change, decision.stream_id, decision.restart)
"""


@pytest.mark.timeout(180)
def test_dimensions_are_changed_and_the_sensor_sees_it(tmp_path: Path) -> None:
    """In a process of its own: definitions are imported once, from the repository's root."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    answer = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert answer == [
        "ANSWER It's new American data ('UPDATE',) silver.flights_live False",
        "ANSWER data silver.flights_live True",
    ], done.stderr[-2000:]
