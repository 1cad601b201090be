"""Which rows already written can be written anew, and what is refused; on declarations and plans. No Spark."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from dagster import DagsterInstance
from deltalake import write_deltalake
from manifests import entity, manifest, pipe
from stream_apps import STREAM, shop

from kindling_dagster import KindlingProject, KindlingResource, build_kindling_definitions
from kindling_dagster.cli import main
from kindling_dagster.errors import KindlingDagsterError, SelectionError
from kindling_dagster.jvm_plans import PlanNode
from kindling_dagster.manifest import Location, Manifest
from kindling_dagster.streaming import reprocess_rows as spark_part
from kindling_dagster.streaming import reprocessing
from kindling_dagster.streaming.reprocessing import (
    ReprocessError,
    ReprocessRequest,
    ReprocessResult,
    ReprocessScope,
    keys_of,
    refuse_columns,
    refuse_counts,
    refuse_plan,
    scope_of,
)


def app(output: dict[str, Any] | None = None, **of_pipe: Any) -> Manifest:
    """Orders with the price of their item, merged by id."""
    written = {"merge_columns": ("id",), **(output or {})}
    return manifest(
        pipe("priced", "silver.orders ref.items ref.routes ref.notes", "gold.priced", tags=STREAM, **of_pipe),
        pipe("other", "silver.orders ref.items", "gold.other", tags=STREAM),
        pipe("batch", "gold.priced", "gold.report"),
        entities=(
            entity("gold.priced", **written),
            entity("ref.items", merge_columns=("item",)),
            entity("ref.routes", merge_columns=("origin", "dest"), location=entity("x").location),
            entity("ref.notes"),
        ),
    )


PENS = ReprocessRequest("priced", "ref.items", keys=("pen",))


def scope(request: ReprocessRequest = PENS, **output: Any) -> ReprocessScope:
    return scope_of(app(output), request)


@pytest.mark.parametrize(
    ("request_", "keys", "columns", "named"),
    [
        (PENS, (("pen",),), {"item": "item"}, False),
        (replace(PENS, stream="gold.priced", keys=("a, b", "a, b")), (("a, b",),), {"item": "item"}, False),
        (replace(PENS, columns={"item": "article"}), (("pen",),), {"item": "article"}, True),
        (
            ReprocessRequest("priced", "ref.routes", keys=("JFK, LAX", '"a,b",c')),
            (("JFK", "LAX"), ("a,b", "c")),
            {"origin": "origin", "dest": "dest"},
            False,
        ),
        (
            ReprocessRequest("priced", "ref.notes", keys=("7",), columns={"no": "id"}),
            (("7",),),
            {"no": "id"},
            True,
        ),
    ],
)
def test_scope(
    request_: ReprocessRequest, keys: tuple[tuple[str, ...], ...], columns: dict[str, str], named: bool
) -> None:
    found = scope_of(app(), request_)
    assert (found.pipe.id, found.driving_id, found.output.id) == ("priced", "silver.orders", "gold.priced")
    assert (found.keys, found.columns, found.named, found.current) == (keys, columns, named, "")
    assert keys_of(found, None) == keys


SCD2 = {"scd2": True, "tags": {"scd.type": "2"}}


def test_current_rows_of_an_scd2_output() -> None:
    assert scope(**SCD2).current == "__is_current"


REFUSED: list[tuple[ReprocessRequest, dict[str, Any], str]] = [
    (replace(PENS, stream="batch"), {}, "'batch' is no stream"),
    (
        replace(PENS, dimension="ref.planes"),
        {},
        "ref.planes is no dimension of priced.*ref.items, ref.routes",
    ),
    (replace(PENS, keys=()), {}, "either keys of ref.items or a version"),
    (replace(PENS, since_version=3), {}, "either keys of ref.items or a version"),
    (replace(PENS, dimension="ref.notes"), {}, "ref.notes declares no key.*Name the columns"),
    (replace(PENS, dimension="ref.routes"), {}, "each of origin, dest, and 'pen' has 1"),
    (replace(PENS, keys=("a", "b", "c"), max_keys=2), {}, "3 keys of ref.items have changed, and at most 2"),
    (PENS, {"merge_columns": ()}, "by appending"),
    (PENS, {"tags": {"write.mode": "append"}}, "by appending"),
    (PENS, {"kind": "insert_only", "tags": {"write.mode": "insert"}}, "never changed once they are there"),
    (PENS, {"provider": "parquet"}, "never changed"),
    (PENS, {"scd2": True, "tags": {"scd.close_on_missing": "true"}}, "would be closed"),
    (PENS, {"scd2": True, "tags": {"scd.source_kind": "snapshot"}}, "would be closed"),
    (PENS, {"scd2": True, "tags": {"scd.sequence_by": "seq"}}, "in the order of seq.*count as late"),
]


@pytest.mark.parametrize(("request_", "output", "said"), REFUSED)
def test_refused_by_what_is_declared(request_: ReprocessRequest, output: dict[str, Any], said: str) -> None:
    with pytest.raises((ReprocessError, SelectionError), match=said):
        scope(request_, **output)


def test_two_driving_inputs_are_refused() -> None:
    both = app(driving_entity_ids=("silver.orders", "ref.routes"))
    with pytest.raises(ReprocessError, match=r"driven by silver.orders, ref.routes"):
        scope_of(both, PENS)


@pytest.mark.parametrize(
    ("request_", "driving", "said"),
    [
        (PENS, "id item", ""),
        (PENS, "id article", "silver.orders.* has no column item.*It has id, article.*Name the columns"),
        (PENS, "item", "has no column id, which is in the key of gold.priced"),
        (replace(PENS, columns={"item": "article"}), "id article", ""),
        (replace(PENS, latest_by="at"), "id item at", ""),
        (replace(PENS, latest_by="at"), "id item", "no column at"),
    ],
)
def test_columns_of_the_driving_input(request_: ReprocessRequest, driving: str, said: str) -> None:
    check(lambda: refuse_columns(scope(request_), driving.split()), said)


@pytest.mark.parametrize(
    ("rows", "driving", "said"),
    [(3, 3, ""), (0, 0, ""), (4, 4, "4 rows of gold.priced.*at most 3"), (2, 3, "3 rows.*made 2.*latest_by")],
)
def test_counts(rows: int, driving: int, said: str) -> None:
    check(lambda: refuse_counts(scope(replace(PENS, max_rows=3)), rows, driving), said)


JOIN = PlanNode("Join", "(item#12 = item#40)")
PROJECT = PlanNode("Project")


@pytest.mark.parametrize(
    ("request_", "nodes", "said"),
    [
        (PENS, [PROJECT, JOIN], ""),
        (PENS, [PROJECT, PlanNode("Join", "((b#1 = x#2) AND (Item#12 <=> code#4))")], ""),
        (PENS, [], "cannot be followed through priced"),
        (PENS, [PROJECT], "no join by item"),
        (PENS, [PlanNode("Join", "(my_item#12 = item_no#40)")], "no join by item"),
        (replace(PENS, columns={"item": "item"}), [PROJECT], ""),
        *[
            (PENS, [PROJECT, PlanNode(name), JOIN], f"not work row by row .{name}")
            for name in ("Aggregate", "Window", "Deduplicate", "GlobalLimit", "FlatMapGroupsInPandas")
        ],
    ],
)
def test_plans(request_: ReprocessRequest, nodes: list[PlanNode], said: str) -> None:
    check(lambda: refuse_plan(scope(request_), nodes), said)


def check(call: Any, said: str) -> None:
    if said:
        with pytest.raises(ReprocessError, match=said):
            call()
    else:
        call()


def write_items(folder: Path, **prices: int) -> None:
    items = {"item": list(prices), "price": pa.array(prices.values(), pa.int64())}
    write_deltalake(str(folder / "lake/ref/items"), pa.table(items), mode="overwrite")


def test_keys_that_changed_since_a_version(tmp_path: Path) -> None:
    write_items(tmp_path, pen=1, ink=2, cap=3)
    write_items(tmp_path, ink=2, cap=4, pad=5)
    since = ReprocessRequest("priced", "ref.items", since_version=0)
    assert set(keys_of(scope(since), tmp_path)) == {("pen",), ("cap",), ("pad",)}
    assert keys_of(scope(replace(since, since_version=1)), tmp_path) == ()
    by_price = replace(since, columns={"price": "price"})
    assert set(keys_of(scope(by_price), tmp_path)) == {("1",), ("3",), ("4",), ("5",)}
    for request, said in (
        (replace(since, max_keys=2), "3 keys of ref.items have changed"),
        (replace(since, since_version=9), "since version 9 cannot be read.*name the keys"),
        (replace(since, columns={"nope": "x"}), "no column nope"),
    ):
        with pytest.raises(ReprocessError, match=said):
            keys_of(scope(request), tmp_path)


def test_since_a_version_takes_a_delta_table_with_a_path(tmp_path: Path) -> None:
    since = scope(ReprocessRequest("priced", "ref.items", since_version=0))
    with pytest.raises(ReprocessError, match="Name its keys"):
        keys_of(replace(since, dimension=replace(since.dimension, provider="parquet")), tmp_path)


def test_an_error_at_a_secret_place_is_told_by_its_kind_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_dimension: Any, location: str, *_: Any) -> None:
        raise OSError(f"no answer from {location}")

    monkeypatch.setattr(reprocessing, "changed_keys", fail)
    monkeypatch.setenv("ITEMS_PATH", str(tmp_path / "hidden"))
    since = scope(ReprocessRequest("priced", "ref.items", since_version=0))
    secret = replace(since, dimension=replace(since.dimension, location=Location("secret", "ITEMS_PATH")))
    with pytest.raises(ReprocessError, match="OSError: no answer"):
        keys_of(since, tmp_path)
    with pytest.raises(ReprocessError, match="OSError") as caught:
        keys_of(secret, tmp_path)
    assert "hidden" not in str(caught.value)


DONE = ReprocessResult("priced", "ref.items", "gold.priced", keys=1, rows=1200, written=True, seconds=2.5)


class Asked:
    """Stands in for the part that needs Spark."""

    def __init__(self) -> None:
        self.request: ReprocessRequest | None = None
        self.options: dict[str, Any] = {}
        self.answer: ReprocessResult | KindlingDagsterError = DONE

    def __call__(
        self, _: KindlingProject, request: ReprocessRequest, __: Any, **options: Any
    ) -> ReprocessResult:
        self.request, self.options = request, options
        if isinstance(self.answer, KindlingDagsterError):
            raise self.answer
        return self.answer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    made = Asked()
    monkeypatch.setattr(spark_part, "reprocess_rows", made)
    return made


def test_the_job_passes_on_its_config_and_observes_the_output(asked: Asked, tmp_path: Path) -> None:
    defs = build_kindling_definitions(shop(tmp_path, app()))
    job = defs.get_job_def("shop_reprocess_rows")
    config = {"stream": "priced", "dimension": "ref.items", "keys": ["pen"], "max_rows": 5, "dry_run": False}

    def run(**changes: Any) -> tuple[bool, list[Any], str]:
        with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
            result = job.execute_in_process(
                run_config={"ops": {"shop_reprocess_rows_write": {"config": {**config, **changes}}}},
                instance=instance,
                resources={"kindling": KindlingResource()},
                raise_on_error=False,
            )
            log = "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))
            failures = [
                event.step_failure_data.user_failure_data for event in result.get_step_failure_events()
            ]
            seen = [
                event.event_specific_data.asset_observation.asset_key.path  # type: ignore[union-attr]
                for event in result.all_events
                if event.event_type_value == "ASSET_OBSERVATION"
            ]
            return result.success, seen, log + "".join(str(item and item.description) for item in failures)

    success, seen, log = run()
    assert asked.request == replace(PENS, max_rows=5)
    assert asked.options["dry_run"] is False
    assert (success, seen) == (True, [["gold", "priced"]])
    assert (
        "1 changed keys of ref.items are in 1,200 rows of gold.priced: written anew by priced in 2.5 s."
        in log
    )
    asked.answer = replace(DONE, written=False)
    success, seen, log = run(dry_run=True)
    assert (success, seen, asked.options["dry_run"]) == (True, [], True)
    assert "Nothing was written." in log
    asked.answer = ReprocessError("priced cannot.", "Write it anew.")
    success, _, log = run()
    assert not success
    assert "priced cannot. Write it anew." in log


def test_the_command_is_a_dry_run_unless_it_is_told_to_write(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop(tmp_path, app())
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str]:
        stated = ["streams", "reprocess", "--manifest", "manifest.json", "-s", "priced", "-d", "ref.items"]
        done = CliRunner().invoke(main, [*stated, *arguments])
        return done.exit_code, done.output

    asked.answer = replace(DONE, written=False)
    assert call("-k", "pen", "--column", "item=article") == (
        0,
        f"{asked.answer}\nA dry run: give --write to write them.\n",
    )
    assert asked.request == replace(PENS, columns={"item": "article"})
    assert asked.options["dry_run"] is True
    asked.answer = DONE
    assert call("--since-version", "4", "--write") == (0, f"{DONE}\n")
    assert asked.request == replace(PENS, keys=(), since_version=4)
    assert call("-k", "pen", "--column", "item")[0] == 2


def test_nothing_is_started_where_no_key_has_changed(tmp_path: Path) -> None:
    write_items(tmp_path, pen=1)
    app().write(tmp_path / "manifest.json")
    project = KindlingProject(manifest=tmp_path / "manifest.json", working_dir=tmp_path)

    def never() -> Any:
        raise AssertionError

    result = spark_part.reprocess_rows(
        project, ReprocessRequest("priced", "ref.items", since_version=0), never, dry_run=False
    )
    assert (result.keys, result.rows, result.written) == (0, 0, False)


class FakeSpark:
    """A session that notes what is asked of it; also its own context, and the app in it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.group = ""
        self.cancelled = threading.Event()
        self.sparkContext = self

    def setJobGroup(self, group: str, _: str, interruptOnCancel: bool) -> None:
        assert interruptOnCancel
        self.group = group

    def cancelJobGroup(self, group: str) -> None:
        assert group == self.group
        self.cancelled.set()

    def stop(self) -> None:
        self.asked.append("stop")


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSpark:
    spark = FakeSpark()
    monkeypatch.setattr(spark_part.KindlingRuntime, "start", lambda *_: nullcontext(spark))
    return spark


def run_with(session: FakeSpark, folder: Path) -> ReprocessResult:
    return spark_part.reprocess_rows(shop(folder, app()), PENS, lambda: session, dry_run=False)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("up", [True, False])
def test_a_session_is_stopped_by_who_has_made_it(
    session: FakeSpark, up: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    threads = []

    def run(_: Any, scope: ReprocessScope, keys: Any, *, write: bool) -> ReprocessResult:
        threads.append(threading.current_thread())
        return replace(DONE, keys=len(keys), written=write)

    monkeypatch.setattr(spark_part.RowReprocessor, "run", run)
    monkeypatch.setattr(spark_part, "session_is_up", lambda: up)
    assert run_with(session, tmp_path) == DONE
    assert threads != [threading.main_thread()]
    assert session.asked == ([] if up else ["stop"])


def test_an_interrupt_cancels_what_spark_does(
    session: FakeSpark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun = threading.Event()

    def run(*_: Any, **__: Any) -> ReprocessResult:
        begun.set()
        assert session.cancelled.wait(30)
        raise RuntimeError("Job cancelled")

    waits = []

    def interrupted(futures: Any, seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            assert begun.wait(30)
            raise KeyboardInterrupt
        wait(futures, seconds)

    monkeypatch.setattr(spark_part.RowReprocessor, "run", run)
    monkeypatch.setattr(spark_part, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_with(session, tmp_path)
    assert session.cancelled.is_set()
    assert len(waits) == 2
