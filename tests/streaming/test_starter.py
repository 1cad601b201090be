"""Starting streams through Kindling for real: names, triggers, pools, replayed batches, fences, checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from kindling_dagster import KindlingProject
from kindling_dagster.jvm import DeadMansSwitch
from kindling_dagster.lineage.commits import commit_lineage
from kindling_dagster.runtime import KindlingRuntime
from kindling_dagster.spark import build_session
from kindling_dagster.streaming import checkpoints
from kindling_dagster.streaming.failures import CheckpointError, FailureClassifier
from kindling_dagster.streaming.fencing import LeaseFence
from kindling_dagster.streaming.model import StreamingQueryConfig
from kindling_dagster.streaming.reprocess_rows import RowReprocessor
from kindling_dagster.streaming.reprocessing import (
    ReprocessError,
    ReprocessRequest,
    ReprocessResult,
    scope_of,
)
from kindling_dagster.streaming.starter import OutputMissingError, StreamStarter

pytestmark = pytest.mark.spark

APP = Path(__file__).parent.parent / "faults" / "app"


class Documents:
    """The part of the store that a starter uses."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], tuple[Any, int]] = {}

    def document(self, kind: str, key: str) -> tuple[Any, int]:
        return self.values.get((kind, key), (None, 0))

    def put_document(self, kind: str, key: str, value: Any, expected: int) -> int:
        assert self.document(kind, key)[1] == expected
        self.values[kind, key] = (value, expected + 1)
        return expected + 1


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    session = build_session({"spark.master": "local[2]"})
    yield session
    session.stop()


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory, spark: Any) -> Iterator[KindlingRuntime]:
    folder = tmp_path_factory.mktemp("flow") / "app"
    shutil.copytree(APP, folder)
    with KindlingRuntime.start(KindlingProject(folder), spark) as runtime:
        yield runtime


@pytest.fixture
def app(runtime: KindlingRuntime) -> Iterator[Path]:
    """The app's folder, with two orders landed and two items priced."""
    folder = runtime.project.run_dir
    shutil.rmtree(folder / "data", ignore_errors=True)
    land(folder, [(1, "pen", 10), (2, "ink", 20)])
    items = pa.table({"item": ["pen", "ink"], "price": pa.array([3, 5], pa.int64())})
    write_deltalake(str(folder / "data/lake/ref/items"), items)
    yield folder
    for query in runtime.spark.streams.active:
        query.stop()


def land(app: Path, rows: list[tuple[int, str, int]], table: str = "raw/orders") -> None:
    ids, items, amounts = zip(*rows, strict=True)
    frame = pa.table({
        "id": pa.array(ids, pa.int64()), "item": list(items), "amount": pa.array(amounts, pa.int64())
    })  # fmt: skip
    write_deltalake(str(app / "data/lake" / table), frame, mode="append")


def rows(app: Path, table: str, *columns: str) -> list[tuple[Any, ...]]:
    frame = DeltaTable(str(app / "data/lake" / table)).to_pyarrow_table(columns=list(columns))
    return sorted(tuple(row[name] for name in columns) for row in frame.to_pylist())


@pytest.fixture
def fence() -> LeaseFence:
    made = LeaseFence()
    made.extend(made.now(), 600)
    return made


@pytest.fixture
def store() -> Documents:
    return Documents()


@pytest.fixture
def starter(runtime: KindlingRuntime, store: Documents, fence: LeaseFence, app: Path) -> StreamStarter:
    return StreamStarter(runtime, runtime.spark, store, fence)  # type: ignore[arg-type]


EVERY_SECOND = StreamingQueryConfig(trigger={"processingTime": "1 second"})


@pytest.mark.parametrize(("stream_id", "entity"), [("clean", "silver.orders"), ("history", "gold.history")])
def test_name_trigger_and_lineage_reach_the_sink(
    starter: StreamStarter, stream_id: str, entity: str, app: Path
) -> None:
    starter._runtime.lineage.begin("host run")
    query = starter.start(stream_id, EVERY_SECOND)
    query.processAllAvailable()
    execution = query._jsq.streamingQuery()
    assert query.name == stream_id
    assert "1000" in execution.trigger().toString()
    query.stop()
    last = DeltaTable(str(app / "data/lake" / entity.replace(".", "/"))).history(1)[0]
    writer = commit_lineage(last["userMetadata"], entity)
    assert writer is not None
    assert (writer.pipe, writer.run_id) == (stream_id, "host run")


def test_consumer_starts_before_its_producer_has_made_the_table(starter: StreamStarter, app: Path) -> None:
    priced = starter.start("priced", StreamingQueryConfig())
    clean = starter.start("clean", StreamingQueryConfig())
    for query in (clean, priced):
        query.processAllAvailable()
    assert rows(app, "gold/priced", "id", "value") == [(1, 30), (2, 100)]


@pytest.mark.parametrize(("stream_id", "table"), [("history", "gold/history"), ("clean", "silver/orders")])
def test_batch_that_was_committed_is_left_out_when_it_comes_again(
    starter: StreamStarter, app: Path, stream_id: str, table: str
) -> None:
    query = starter.start(stream_id, StreamingQueryConfig())
    query.processAllAvailable()
    query.stop()
    # As if the process had died between the table's commit and the note in the checkpoint.
    for name in ("0", ".0.crc"):
        (app / "data/checkpoints" / stream_id / "commits" / name).unlink()
    before = DeltaTable(str(app / "data/lake" / table)).version()
    again = starter.start(stream_id, StreamingQueryConfig())
    again.processAllAvailable()
    assert again.lastProgress["batchId"] >= 0
    assert DeltaTable(str(app / "data/lake" / table)).version() == before
    land(app, [(3, "cap", 1)])
    again.processAllAvailable()
    assert rows(app, table, "id", "amount") == [(1, 10), (2, 20), (3, 1)]


def meddling(frame: Any, table: Path, switch: Path) -> Any:
    """The frame, at whose third order another program changes the first order's row, as ``switch`` says.

    Spark reads the frame inside the merge's transaction: what that has read of the table is then gone.
    """
    from pyspark.sql.functions import udf

    @udf("long")
    def meddle(order: int) -> int:
        if order == 3 and switch.exists():
            DeltaTable(str(table)).update({"price": "price + 1"}, predicate="id = 1")
            if switch.read_text() == "once":
                switch.unlink()
        return order

    return frame.withColumn("id", meddle("id"))


@pytest.mark.parametrize("times", ["once", "each time"])
def test_a_merge_that_another_writer_comes_before_is_repeated_and_neither_is_lost(
    starter: StreamStarter, runtime: KindlingRuntime, app: Path, monkeypatch: pytest.MonkeyPatch, times: str
) -> None:
    """Once: the stream never notices. Each time: it fails, and that heals by a new start."""
    table, switch = app / "data/lake/gold/priced", app / "data/meddle"
    declared = runtime.pipes.get_pipe_definition("priced")
    made = declared.execute
    monkeypatch.setattr(declared, "execute", lambda **inputs: meddling(made(**inputs), table, switch))
    priced, clean = (starter.start(stream_id, StreamingQueryConfig()) for stream_id in ("priced", "clean"))
    for query in (clean, priced):
        query.processAllAvailable()

    switch.write_text(times)
    land(app, [(3, "pen", 1)])
    clean.processAllAvailable()
    if times == "each time":
        with pytest.raises(Exception, match="DELTA_CONCURRENT") as caught:
            priced.processAllAvailable()
        error = FailureClassifier().stream_error(caught.value, 0.0)
        assert (error.type, error.kind) == ("ConcurrentAppendException", "transient")
        switch.unlink()
        priced = starter.start("priced", StreamingQueryConfig())
    priced.processAllAvailable()
    others = [entry for entry in DeltaTable(str(table)).history() if entry["operation"] == "UPDATE"]
    assert len(others) == 1 if times == "once" else len(others) >= 5
    assert rows(app, "gold/priced", "id", "price") == [(1, 3 + len(others)), (2, 5), (3, 3)]


def test_a_batch_is_refused_once_the_lease_is_over(
    starter: StreamStarter, fence: LeaseFence, app: Path
) -> None:
    query = starter.start("history", StreamingQueryConfig())
    query.processAllAvailable()
    fence.close("another host took it")
    land(app, [(3, "cap", 1)])
    with pytest.raises(Exception, match="must not write"):
        query.processAllAvailable()
    assert rows(app, "gold/history", "id") == [(1,), (2,)]
    with pytest.raises(Exception, match="must not write"):
        starter.start("clean", StreamingQueryConfig())


def test_checkpoint_that_is_gone_is_refused_until_it_is_accepted(
    starter: StreamStarter, store: Documents, app: Path
) -> None:
    query = starter.start("clean", StreamingQueryConfig())
    query.processAllAvailable()
    query.stop()
    shutil.move(app / "data/checkpoints/clean", app / "data/aside")
    with pytest.raises(CheckpointError, match="is gone"):
        starter.start("clean", StreamingQueryConfig())
    shutil.move(app / "data/aside", app / "data/checkpoints/clean")
    again = starter.start("clean", StreamingQueryConfig())
    again.processAllAvailable()
    again.stop()
    assert rows(app, "silver/orders", "id") == [(1,), (2,)]

    shutil.rmtree(app / "data/checkpoints/clean")
    checkpoints.accept_reset(store, "clean", "somebody")  # type: ignore[arg-type]
    over = starter.start("clean", StreamingQueryConfig())
    over.processAllAvailable()
    assert rows(app, "silver/orders", "id") == [(1,), (1,), (2,), (2,)]
    assert checkpoints.load(store, "clean").query_id == over.id  # type: ignore[arg-type]


def test_output_that_is_gone_is_not_replaced_by_an_empty_table(starter: StreamStarter, app: Path) -> None:
    query = starter.start("clean", StreamingQueryConfig())
    query.processAllAvailable()
    query.stop()
    table = app / "data/lake/silver/orders"
    shutil.move(table, app / "data/aside")
    with pytest.raises(OutputMissingError, match=r"silver\.orders"):
        starter.start("clean", StreamingQueryConfig())
    assert not table.exists()
    shutil.move(app / "data/aside", table)
    land(app, [(3, "cap", 1)])
    again = starter.start("clean", StreamingQueryConfig())
    again.processAllAvailable()
    assert rows(app, "silver/orders", "id") == [(1,), (2,), (3,)]


def test_switch_that_is_pushed_and_disarmed_leaves_the_jvm_alone(spark: Any) -> None:
    switch = DeadMansSwitch(spark, 75)
    switch.push(30)
    switch.push(60)
    switch.disarm()
    assert spark.range(3).count() == 3


def reprocess(runtime: KindlingRuntime, *, write: bool, item: str = "pen", **options: Any) -> ReprocessResult:
    request = ReprocessRequest("priced", "ref.items", keys=(item,), **options)
    scope = scope_of(runtime.project.manifest, request)
    return RowReprocessor(runtime, runtime.spark, "a run").run(scope, scope.keys, write=write)


def test_rows_with_old_values_are_written_anew_beside_the_running_stream(
    starter: StreamStarter, runtime: KindlingRuntime, app: Path
) -> None:
    queries = [starter.start(stream_id, StreamingQueryConfig()) for stream_id in ("priced", "clean")]

    def settle() -> list[tuple[Any, ...]]:
        for query in reversed(queries):
            query.processAllAvailable()
        return rows(app, "gold/priced", "id", "value")

    assert settle() == [(1, 30), (2, 100)]
    items = pa.table({"item": ["pen", "ink"], "price": pa.array([4, 5], pa.int64())})
    write_deltalake(str(app / "data/lake/ref/items"), items, mode="overwrite")
    land(app, [(3, "pen", 1)])
    assert settle() == [(1, 30), (2, 100), (3, 4)], "only what comes after the change has the new price"

    version = DeltaTable(str(app / "data/lake/gold/priced")).version()
    found = reprocess(runtime, write=False)
    assert (found.keys, found.rows, found.written) == (1, 2, False)
    assert DeltaTable(str(app / "data/lake/gold/priced")).version() == version
    assert reprocess(runtime, write=True).written
    assert settle() == [(1, 40), (2, 100), (3, 4)]
    writer = commit_lineage(
        DeltaTable(str(app / "data/lake/gold/priced")).history(1)[0]["userMetadata"], "gold.priced"
    )
    assert writer is not None
    assert (writer.pipe, writer.run_id) == ("priced", "a run")

    # Order 1 is of ink now: its older row must not come back.
    land(app, [(1, "ink", 11)])
    assert settle() == [(1, 55), (2, 100), (3, 4)]
    with pytest.raises(ReprocessError, match=r"3 rows of silver.orders made 2 rows"):
        reprocess(runtime, write=True)
    assert reprocess(runtime, write=True, latest_by="amount").rows == 1
    assert settle() == [(1, 55), (2, 100), (3, 4)]
    assert all(query.isActive for query in queries)
