# %% [markdown]
# # Dimension changes
# A stream joins flights with two dimensions. Which changes are seen, and which of them restart the stream? Nothing here
# starts Spark: changes are read from the Delta log, as the sensor in Dagster does.

# %%
import os
import tempfile
from dataclasses import replace

import matplotlib.pyplot as plt
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from kindling.signaling import BlinkerSignalProvider

from kindling_dagster import KindlingProject
from kindling_dagster.manifest import Location
from kindling_dagster.streaming.dependencies import StreamDependencies
from kindling_dagster.streaming.dimensions.detector import DimensionChangeDetector

lake = tempfile.TemporaryDirectory()
manifest = KindlingProject("demo").manifest
here = tuple(
    replace(each, location=Location("path", f"{lake.name}/{each.id}")) if each.id.startswith("ref.") else each
    for each in manifest.entities
)
manifest = replace(manifest, entities=here)  # the demo's declarations, over tables of this notebook


def airlines(mode="overwrite", **names):
    rows = pa.table({"carrier": list(names), "airline": list(names.values())})
    write_deltalake(
        f"{lake.name}/ref.airlines", rows, mode=mode, schema_mode="overwrite" if mode == "overwrite" else None
    )


airlines(UA="United", B6="JetBlue")

# %% [markdown]
# What depends on what follows from the declarations: the first input drives, the others are dimensions.

# %%
dependencies = StreamDependencies(manifest)
for dependency in dependencies.of_stream("silver.flights_live"):
    print(dependency.entity_id, dependency.read_kind, dependency.policy)
assert {each.entity_id for each in dependencies.of_stream("silver.flights_live")} == {
    "ref.airlines",
    "ref.airports",
    "landing.planes",
}

# %% [markdown]
# The same table, watched in four ways. Subscribers hear of each change.

# %%
heard = []
signals = BlinkerSignalProvider()
signals.create_signal("streaming.dimension_changed").connect(
    lambda _sender, **values: heard.append((values["change_detection"], values["change"])), weak=False
)
methods = ("version", "row_count", "hash", "schema")
detectors = {}
for method in methods:
    detectors[method] = DimensionChangeDetector(manifest, {}, signals)
    detectors[method].register_dimension("ref.airlines", method)
    detectors[method].check("ref.airlines")  # the first look is what later ones are compared with

# %% [markdown]
# Four things that happen to a table.


# %%
def compact():
    DeltaTable(f"{lake.name}/ref.airlines").optimize.compact()


def add_a_column():
    rows = pa.table({"carrier": ["UA", "DL"], "airline": ["United", "Delta"], "since": [1926, 1924]})
    write_deltalake(f"{lake.name}/ref.airlines", rows, mode="overwrite", schema_mode="overwrite")


happenings = {
    "a row more": lambda: airlines("append", DL="Delta"),
    "OPTIMIZE": compact,
    "a name changed": lambda: airlines(UA="United Airlines", B6="JetBlue", DL="Delta"),
    "a column more": add_a_column,
}
seen, restarts = {}, {}
for title, happen in happenings.items():
    happen()
    looks = {method: detector.check("ref.airlines") for method, detector in detectors.items()}
    seen[title] = [looks[method].change for method in methods]
    decisions = dependencies.decide(looks["version"])
    restarts[title] = any(decision.restart for decision in decisions)
    for decision in decisions:
        print(
            f"{title}: {decision.stream_id} {'restarts' if decision.restart else 'goes on'}: {decision.reason}"
        )
assert seen["OPTIMIZE"] == [None] * 4
assert (restarts["a name changed"], restarts["a column more"]) == (False, True)

# %% [markdown]
# A change of rows restarts nothing, for a Delta table is read anew with every micro-batch; a new column does.

# %%
figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
kinds = {None: 0.0, "data": 0.5, "schema": 1.0, "replaced": 1.0}
axis.imshow(
    [[kinds[change] for change in row] for row in seen.values()],
    cmap="Blues",
    vmin=0,
    vmax=1.6,
    aspect="auto",
)
for row, (title, changes) in enumerate(seen.items()):
    for column, change in enumerate(changes):
        axis.text(column, row, change or "–", ha="center", va="center")
    axis.text(len(methods) - 0.3, row, "restart" if restarts[title] else "goes on", va="center")
axis.set_xticks(range(len(methods)), methods)
axis.set_yticks(range(len(seen)), list(seen))
axis.set_title("what each way of looking sees, and what the stream does")
if folder := os.environ.get("KINDLING_DAGSTER_IMAGES"):
    figure.savefig(f"{folder}/notebook_dimension_changes.png", dpi=80)
lake.cleanup()
