# %% [markdown]
# # Streaming monitoring
# A stream on real Spark under the parts that the stream host is made of: the query manager, Spark's listener, the
# watchdog and recovery. In Dagster you see the same as observations, a check and dead letters.

# %%
import os
import tempfile
import threading

import matplotlib.pyplot as plt
from kindling.signaling import BlinkerSignalProvider

from kindling_dagster.spark import build_session
from kindling_dagster.streaming.listener import KindlingStreamingListener
from kindling_dagster.streaming.model import RecoveryPolicy, StreamError, StreamHealth
from kindling_dagster.streaming.queries import StreamingQueryManager
from kindling_dagster.streaming.recovery import StreamingRecoveryManager, backoff_seconds
from kindling_dagster.streaming.watchdog import StreamingWatchdog

spark = build_session({"spark.master": "local[2]", "spark.ui.enabled": "false"})
signals = BlinkerSignalProvider()

# %% [markdown]
# Subscribers: one keeps each batch's numbers, one prints what happens to the query.

# %%
batches, enough = [], threading.Event()


def progress(_sender, **values):
    batches.append((values["batch_id"], values["num_input_rows"]))
    if len(batches) >= 4:
        enough.set()


signals.create_signal("streaming.spark_query_progress").connect(progress, weak=False)
for name in ("query_started", "query_stopped", "query_healthy", "recovery_attempted", "recovery_exhausted"):
    signals.create_signal(f"streaming.{name}").connect(
        lambda _sender, name=name, **values: print(f"{name}: {values.get('query_id')}"), weak=False
    )

# %% [markdown]
# A stream that makes 100 rows a second and forgets them. The manager starts it and knows its state.

# %%
checkpoint = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


def build():
    rows = spark.readStream.format("rate").option("rowsPerSecond", 100).load()
    writer = rows.writeStream.format("noop").trigger(processingTime="300 milliseconds")
    return writer.option("checkpointLocation", checkpoint.name).start()


manager = StreamingQueryManager(signals)
watchdog = StreamingWatchdog(manager, poll_interval=5, stall_threshold=60, signals=signals)
with KindlingStreamingListener(signals, manager.observe, session=spark):
    manager.start_query("clicks", build)
    assert enough.wait(60), "no four batches within a minute"
    verdict = watchdog.check_now()["clicks"]
    info = manager.get_query_status("clicks")
    manager.stop_query("clicks")
watchdog.stop()
print(f"{verdict.health.value}: {info.metrics.rows_total} rows in {info.metrics.batch_id} batches")
assert verdict.health in (StreamHealth.HEALTHY, StreamHealth.IDLE)

# %% [markdown]
# What becomes of a stream that fails: started again after 1, 2, 4, 8 … seconds, then a dead letter. An error that no new
# start heals makes it one at once.

# %%
policy = RecoveryPolicy(max_retries=5, jitter=0)
pauses = [backoff_seconds(policy, failures) for failures in range(1, policy.max_retries + 1)]
recovery = StreamingRecoveryManager(signals=signals)
action = recovery.failed(
    "clicks", StreamError("AnalysisException", "no column x", 0.0, "permanent", "Mend it.")
)
print("pauses:", pauses, "- a permanent error:", action.step.value)
assert pauses == [1, 2, 4, 8, 16]
assert recovery.dead_letters() == ("clicks",)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.5), layout="constrained")
left.bar([batch for batch, _ in batches], [rows for _, rows in batches])
left.set(title="rows of each batch", xlabel="batch")
right.step(range(1, len(pauses) + 1), pauses, where="mid", marker="o")
right.set(title="seconds before each new start", xlabel="failures in a row", yscale="log")
if folder := os.environ.get("KINDLING_DAGSTER_IMAGES"):
    figure.savefig(f"{folder}/notebook_streaming_monitoring.png", dpi=80)
checkpoint.cleanup()
