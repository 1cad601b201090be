"""The app of the benchmarks of streams: two chains of the same two streams, its session, and a host over it."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from kindling_dagster import KindlingProject
from kindling_dagster.runtime import KindlingRuntime
from kindling_dagster.spark import build_session
from kindling_dagster.streaming.host import HostSettings, StreamHost
from kindling_dagster.streaming.model import Command
from kindling_dagster.streaming.store import StreamStore, default_store_url

CHAINS = ("a", "b")
PRICES = {"pen": 3, "ink": 5, "cap": 7, "pad": 11}
BATCH_SECONDS = 120.0
"""How long a stream may take to read what has landed; it takes seconds."""

_APP = {
    "app.yaml": "name: sales\n",
    "lake-reqs.txt": "sales\n",
    "settings.yaml": """
kindling:
  delta:
    access_mode: storage
  storage:
    table_root: data/lake
    checkpoint_root: data/checkpoints
  telemetry:
    logging:
      level: ERROR
      print: false
""",
    "sales/__init__.py": "",
    "sales/entities/__init__.py": "",
    "sales/entities/tables.py": """
from kindling.data_entities import DataEntities
from pyspark.sql.types import LongType, StringType, StructField, StructType


def entity(entity_id, keys, text):
    kinds = {"long": LongType(), "string": StringType()}
    columns = [StructField(*(part.split()[0], kinds[part.split()[1]])) for part in text.split(",")]
    DataEntities.entity(
        entityid=entity_id,
        name=entity_id.replace(".", "_"),
        merge_columns=keys,
        tags={},
        schema=StructType(columns),
    )


entity("ref.items", ["item"], "item string, price long")
for chain in ("a", "b"):
    for layer in ("raw", "silver"):
        entity(f"{layer}.orders_{chain}", [], "id long, item string, amount long")
    entity(f"gold.priced_{chain}", ["id"], "id long, item string, amount long, price long, value long")
""",
    "sales/pipes/__init__.py": "",
    "sales/pipes/streams.py": """
from kindling.data_pipes import DataPipes
from pyspark.sql import functions as F


def stream(pipe_id, inputs, output, function):
    DataPipes.pipe(
        pipeid=pipe_id,
        name=pipe_id,
        tags={"processing_mode": "streaming"},
        input_entity_ids=inputs.split(),
        output_entity_id=output,
        output_type="table",
    )(function)


def clean(**inputs):
    [orders] = inputs.values()
    return orders.select("id", "item", "amount")


def priced(ref_items, **inputs):
    \"\"\"A price below zero fails the batch.\"\"\"
    [orders] = inputs.values()
    below_zero = F.raise_error(F.lit("a price below zero"))
    price = F.when(F.col("price") < 0, below_zero).otherwise(F.col("price")).cast("long")
    joined = orders.join(ref_items, "item", "left")
    return joined.select("id", "item", "amount", price.alias("price"), (F.col("amount") * price).alias("value"))


for chain in ("a", "b"):
    stream(f"clean_{chain}", f"raw.orders_{chain}", f"silver.orders_{chain}", clean)
    stream(f"priced_{chain}", f"silver.orders_{chain} ref.items", f"gold.priced_{chain}", priced)
""",
}
_SPARK = {
    "spark.master": "local[2]",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.ui.enabled": "false",
    # Streams are made to fail; Spark would say so at length.
    "spark.log.level": "OFF",
    # Queries that have nothing to read look for it a hundred times a second by default, beside what is measured.
    "spark.sql.streaming.pollingDelay": "100",
}


def streams_of(chain: str) -> tuple[str, str]:
    """The chain's streams, consumer first: it merges what the other one appends."""
    return f"priced_{chain}", f"clean_{chain}"


class Stage:
    """The app and its session, made once; tables are made anew for each measurement."""

    def __init__(self, undo: ExitStack) -> None:
        self.folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="kindling-streams-")))
        for name, text in _APP.items():
            file = self.folder / "app" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        self.project = KindlingProject(self.folder / "app")
        self.spark = build_session(_SPARK)
        undo.callback(self.spark.stop)
        self.runtime = undo.enter_context(KindlingRuntime.start(self.project, self.spark))
        self.url = default_store_url(str(self.folder))
        # A query that hangs must not hang the benchmark: it is waited for on another thread.
        self._waiting = ThreadPoolExecutor(1)
        undo.callback(self._waiting.shutdown, wait=False)

    def fresh(self) -> None:
        """No tables but the dimension and a first order in each chain; no checkpoints."""
        shutil.rmtree(self.folder / "app" / "data", ignore_errors=True)
        # Delta remembers the tables that were at these paths.
        self.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
        self.put_items(PRICES)
        for chain in CHAINS:
            self.land(chain, 1)

    def put_items(self, prices: Mapping[str, int]) -> None:
        """Replace the dimension."""
        items = {"item": list(prices), "price": pa.array(prices.values(), pa.int64())}
        write_deltalake(self._path("ref/items"), pa.table(items), mode="overwrite")

    def land(self, chain: str, rows: int) -> None:
        """Land one commit of a chain's orders.

        The same ones each time: a table that grew would soon cost more to merge into than all else.
        """
        ids, names = range(rows), list(PRICES)
        frame = {
            "id": pa.array(ids, pa.int64()),
            "item": [names[n % len(names)] for n in ids],
            "amount": pa.array([n % 97 for n in ids], pa.int64()),
        }
        write_deltalake(self._path(f"raw/orders_{chain}"), pa.table(frame), mode="append")

    def _path(self, table: str) -> str:
        return str(self.folder / "app/data/lake" / table)

    def query(self, name: str) -> Any:
        """The query of that name; raises LookupError when none runs."""
        for query in self.spark.streams.active:
            if query.name == name:
                return query
        raise LookupError(f"no query {name} runs")

    def settle(self, queries: Sequence[Any]) -> None:
        """Wait until queries have read all there is, one after the other; raises what they fail with."""
        for query in queries:
            self._waiting.submit(query.processAllAvailable).result(BATCH_SECONDS)


class Hosted:
    """A whole host over the session that is up, with the streams of the first chain.

    Args:
        stage: The app and its session.
        overrides: Over the settings of streams.
    """

    streams = streams_of(CHAINS[0])

    def __init__(self, stage: Stage, overrides: Mapping[str, Any] | None = None) -> None:
        self.stage = stage
        # A part of the store of its own: it knows the checkpoints of no other.
        self.store = StreamStore.open(stage.url, uuid.uuid4().hex)
        self._overrides = overrides
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def up(self) -> None:
        """Start the host and the streams."""
        stage = self.stage
        stage.fresh()
        host = StreamHost(
            stage.project,
            self.store,
            lambda: stage.spark,
            settings=HostSettings(),
            overrides=self._overrides,
        )
        self._thread = threading.Thread(target=host.run, args=(self._stop,), daemon=True)
        self._thread.start()
        self.store.submit([Command(uuid.uuid4().hex, "start", each) for each in self.streams])
        self.wait_for("all streams run", lambda: all(self._state(each) == "running" for each in self.streams))
        stage.settle([stage.query(each) for each in reversed(self.streams)])

    def down(self) -> None:
        """End the host."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(60)
        self.store.close()

    def wait_for(self, what: str, look: Callable[[], bool], seconds: float = BATCH_SECONDS) -> None:
        """Look again and again until it is so; raises TimeoutError with what has happened to the streams."""
        deadline = time.monotonic() + seconds
        while not look():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s: {what}; {self.store.history(limit=10)}")
            time.sleep(0.01)

    def _state(self, stream_id: str) -> str:
        status = self.store.statuses().get(stream_id)
        return "" if status is None else status.state.value
