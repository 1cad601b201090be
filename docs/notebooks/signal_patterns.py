# %% [markdown]
# # Signal subscription patterns
# Four ways to hear what happens: typed payloads in the process of a run, emitters of your own with asynchronous
# delivery, errors gathered in one place, and another process that reads what Dagster has stored.

# %%
import os
import time
from collections import Counter

import matplotlib.pyplot as plt
from kindling.signaling import BlinkerSignalProvider

from kindling_dagster.signals.catalog import describe_signal, get_all_signals
from kindling_dagster.signals.collector import ErrorCollector
from kindling_dagster.signals.emitter import AsyncSignalEmitter
from kindling_dagster.signals.payloads import PersistPayload, decode
from kindling_dagster.testing import PipeTester

print(len(get_all_signals()), "signals;", describe_signal("persist.after_persist").summary)

# %% [markdown]
# ## 1. Subscribe in the process of the run
# `decode` makes a typed payload of whatever keywords a signal has; it never raises. Subscribe with `weak=False`, or the
# subscriber is gone when nothing else holds it.

# %%
counts, commits = Counter(), []


def count(name):
    def receive(_sender, **values):
        counts[name] += 1
        payload = decode(name, values)
        if isinstance(payload, PersistPayload) and name == "persist.after_persist":
            commits.append((payload.output_entity_id, payload.duration_seconds))

    return receive


with PipeTester("demo") as app:
    from kindling.injection import get_kindling_service
    from kindling.signaling import SignalProvider

    provider = get_kindling_service(SignalProvider)
    for name in get_all_signals():
        provider.create_signal(name).connect(count(name), weak=False)
    app.run({"landing.airlines": [{"carrier": "UA", "name": "United"}]}, pipes=["ref.airlines"])
print(commits)
assert [entity for entity, _ in commits] == ["ref.airlines"]

# %% [markdown]
# ## 2. Emit your own, asynchronously
# What an emitter declares in `ASYNC` is delivered by other threads: a slow subscriber does not hold it up.


# %%
class FileLoader(AsyncSignalEmitter):
    EMITS = ["shop.files_loaded", "shop.load_failed"]
    ASYNC = ["shop.files_loaded"]

    def __init__(self, signals):
        self._init_signal_emitter(signals)


mine, got = BlinkerSignalProvider(), []


def slow(_sender, **values):
    time.sleep(0.01)
    got.append(values["files"])


mine.create_signal("shop.files_loaded").connect(slow, weak=False)
loader = FileLoader(mine)
begun = time.monotonic()
for files in range(20):
    loader.emit("shop.files_loaded", files=files)
emitted = time.monotonic() - begun
loader.shutdown_signals(10)  # waits until all is delivered
delivered = time.monotonic() - begun
print(
    f"emitted in {emitted * 1000:.1f} ms, delivered in {delivered * 1000:.0f} ms, in order: {got == sorted(got)}"
)
assert got == list(range(20))
assert emitted < delivered

# %% [markdown]
# ## 3. Gather errors
# Whatever ends in `_failed`, kept once however often it is told. A signal of your own must have been created before.

# %%
mine.create_signal("shop.load_failed")
with ErrorCollector().connected(mine) as errors:
    for _ in range(3):
        loader.emit("shop.load_failed", error="disk full", error_type="OSError")
print(errors.to_text())
assert errors.by_signal["shop.load_failed"] == 3

# %% [markdown]
# ## 4. Another process
# In Dagster each materialization and observation carries its payloads. Anything with the instance reads them back:
#
#     page = read_signals(DagsterInstance.get(), AssetKey(["ref", "airlines"]), signals=["persist.after_persist"])
#
# [Signals](../signals.md) shows it in a sensor, an op and a check.

# %%
figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
names = [name for name, _ in counts.most_common()]
axis.barh(names[::-1], [counts[name] for name in names[::-1]])
axis.set_title("signals of one run of one pipe")
axis.tick_params(axis="y", labelsize=7)
if folder := os.environ.get("KINDLING_DAGSTER_IMAGES"):
    figure.savefig(f"{folder}/notebook_signal_patterns.png", dpi=80)
