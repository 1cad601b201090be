# %% [markdown]
# # DAG execution
# From an app's declarations to a plan, and from the plan to a run: one after the other, side by side, and with a
# pipe that fails. Run it in the repository's directory; the app is the demo.

# %%
import os
import threading
import time

import matplotlib.pyplot as plt
from kindling.signaling import BlinkerSignalProvider

from kindling_dagster import KindlingProject
from kindling_dagster.dag.orchestrator import ExecutionOrchestrator
from kindling_dagster.dag.plan import ExecutionPlanGenerator
from kindling_dagster.engines.base import RunOptions
from kindling_dagster.signals.payloads import decode

manifest = KindlingProject("demo").manifest  # a child process records the app; no Spark
batch = [pipe.id for pipe in manifest.pipes if not pipe.streaming and pipe.id != "gold.live_board"]

# %% [markdown]
# The plan: pipes by generation, each after what it reads. `plan.to_mermaid()` draws it.

# %%
plan = ExecutionPlanGenerator(manifest).generate_plan(batch)
print(plan.to_text())
assert plan.generation_of["bronze.flights"] == 0

# %% [markdown]
# The same machinery that runs Spark runs any function of a pipe's id. With one that only takes its time, the difference
# between the ways to run shows in a second. A subscriber notes when each pipe started and ended.


# %%
def run(options, broken=()):
    signals = BlinkerSignalProvider()
    bars, lock = {}, threading.Lock()

    def note(signal):
        def receive(_sender, **values):
            pipe = decode(signal, values).pipe_id
            with lock:
                bars.setdefault(pipe, []).append(time.monotonic() - begun)

        return receive

    for name in ("pipe_started", "pipe_completed", "pipe_failed"):
        signal = f"orchestrator.{name}"
        signals.create_signal(signal).connect(note(signal), weak=False)

    def pipe(pipe_id):
        time.sleep(0.04 if pipe_id.startswith("gold") else 0.08)
        if pipe_id in broken:
            raise ValueError("it fails as the notebook asks")

    begun = time.monotonic()
    result = ExecutionOrchestrator(manifest, pipe, signals=signals, options=options).execute_plan(plan)
    return result, bars


one_by_one, first = run(RunOptions())
side_by_side, second = run(RunOptions(parallel=True, max_workers=4))
failing, third = run(RunOptions(parallel=True), broken={"silver.flights"})
assert one_by_one.ok
assert side_by_side.ok
assert side_by_side.duration_seconds < one_by_one.duration_seconds
assert [result.pipe_id for result in failing.failed] == ["silver.flights"]
print("not run, since silver.flights failed:", [result.pipe_id for result in failing.not_run])

# %%
figure, axes = plt.subplots(1, 3, figsize=(13, 4), sharex=True, sharey=True, layout="constrained")
titles = ("one by one", "four at a time", "silver.flights fails")
for axis, title, bars, result in zip(
    axes, titles, (first, second, third), (one_by_one, side_by_side, failing), strict=True
):
    for row, pipe_id in enumerate(reversed(plan.pipe_ids)):
        if len(times := sorted(bars.get(pipe_id, ()))) == 2:
            colour = "tab:red" if pipe_id in {each.pipe_id for each in result.failed} else "tab:blue"
            axis.barh(row, times[1] - times[0], left=times[0], color=colour)
    axis.set(title=title, xlabel="seconds")
axes[0].set_yticks(range(len(plan.pipe_ids)), [*reversed(plan.pipe_ids)])
if folder := os.environ.get("KINDLING_DAGSTER_IMAGES"):
    figure.savefig(f"{folder}/notebook_dag_execution.png", dpi=80)

# %% [markdown]
# And for real: Kindling reads, merges and writes, on Spark, into tables that are thrown away afterwards.

# %%
from kindling_dagster.testing import PipeTester  # noqa: E402

with PipeTester("demo") as app:
    landed = [
        {"carrier": "UA", "name": "United Air Lines Inc."},
        {"carrier": "B6", "name": "JetBlue Airways"},
    ]
    after = app.run({"landing.airlines": landed}, pipes=["ref.airlines"])
    print(after.statuses, after.rows("ref.airlines", "carrier", "airline"))
assert len(after["ref.airlines"]) == 2
