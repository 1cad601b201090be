from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pandas as pd
import pytest
from deltalake import DeltaTable, write_deltalake
from kindling.data_entities import DataEntityManager, DataEntityRegistry, EntityMetadata, EntityPathLocator
from kindling.data_pipes import DataPipesExecution, DataPipesManager, DataPipesRegistry, PipeMetadata
from kindling.signaling import BlinkerSignalProvider, SignalProvider
from kindling.spark_config import ConfigService
from mill_runs import GRAIN, started_mill

from kindling_dagster.dag import datapipes
from kindling_dagster.dag.cancellation import NoCanceller
from kindling_dagster.dag.datapipes import registered_manifest, run_datapipes, run_datapipes_dag
from kindling_dagster.dag.plan import ExecutionPlan
from kindling_dagster.dag.results import ExecutionResult, PipeStatus
from kindling_dagster.dag.strategy import ExecutionStrategy
from kindling_dagster.delta_log import table_version
from kindling_dagster.errors import PlanError, RunError, SelectionError

DIAMOND = ["end", "after_fast", "slow", "fast", "start"]
HEARD = (
    "datapipes.before_run",
    "datapipes.before_pipe",
    "datapipes.after_pipe",
    "datapipes.pipe_failed",
    "datapipes.after_run",
    "datapipes.run_failed",
    "persist.before_persist",
    "persist.after_persist",
)


class OneByOne(ExecutionStrategy):
    """By name, one after another."""

    name = "one_by_one"

    def plan(self, graph):
        order = sorted(graph.pipe_ids)
        return ExecutionPlan.arrange(
            self.name, graph, {later: (earlier,) for earlier, later in pairwise(order)}
        )


def test_by_default_kindling_is_called_as_it_is(monkeypatch):
    asked = []
    execution = SimpleNamespace(run_datapipes=lambda *args, **kwargs: asked.append((args, kwargs)))
    monkeypatch.setattr(datapipes, "get_kindling_service", {DataPipesExecution: execution}.__getitem__)
    assert run_datapipes(iter(["b", "a"])) is None
    run_datapipes(("a",), no_watermark=True, entity_tags={"e": {"since": "1"}})
    assert asked == [
        ((["b", "a"],), {"no_watermark": False, "entity_tags": None}),
        ((["a"],), {"no_watermark": True, "entity_tags": {"e": {"since": "1"}}}),
    ]


def test_use_dag_hands_everything_on(monkeypatch):
    asked = []
    monkeypatch.setattr(
        datapipes, "run_datapipes_dag", lambda *args, **kwargs: asked.append((args, kwargs)) or "result"
    )
    strategy = OneByOne()
    assert run_datapipes(["a"], True, strategy, True, {"e": {}}, parallel=True, max_workers=2) == "result"
    assert asked == [
        (
            (["a"], strategy),
            {"no_watermark": True, "entity_tags": {"e": {}}, "parallel": True, "max_workers": 2},
        )
    ]


# Without Spark: Kindling's registries, and pipes that only note that they were run.


@dataclass
class App:
    """The diamond and two pipes beside it, over a table of ``grain``; ``broken`` pipes fail."""

    table: Path
    ran: list = field(default_factory=list)
    broken: set = field(default_factory=set)
    settings: dict = field(default_factory=dict)
    signals: BlinkerSignalProvider = field(default_factory=BlinkerSignalProvider)

    PIPES = {  # noqa: RUF012
        "start": "grain", "slow": "out.start", "fast": "out.start", "after_fast": "out.fast",
        "end": "out.slow out.after_fast", "a": "grain",
    }  # fmt: skip

    def run_datapipes(self, pipe_ids, no_watermark):
        (pipe_id,) = pipe_ids
        self.ran.append((pipe_id, no_watermark))
        if pipe_id in self.broken:
            raise ValueError("broken on purpose")

    def service(self, interface):
        pipes, entities = DataPipesManager(MagicMock()), DataEntityManager()
        for pipe_id, inputs in self.PIPES.items():
            output = f"out.{pipe_id}"
            pipes.registry[pipe_id] = PipeMetadata(
                pipe_id, pipe_id, print, {}, inputs.split(), output, "table"
            )
            entities.registry[output] = EntityMetadata(output, output, ["id"], {}, None)
        tags = {"provider.path": str(self.table)}
        entities.registry["grain"] = EntityMetadata("grain", "grain", ["id"], tags, None)
        return {
            DataPipesExecution: self,
            DataPipesRegistry: pipes,
            DataEntityRegistry: entities,
            SignalProvider: self.signals,
            ConfigService: SimpleNamespace(get=lambda name, default=None: self.settings.get(name, default)),
            EntityPathLocator: SimpleNamespace(get_table_path=lambda entity: entity.tags["provider.path"]),
        }[interface]


@pytest.fixture
def shop(monkeypatch, tmp_path):
    write_deltalake(str(tmp_path / "grain"), pd.DataFrame({"id": [1, 2, 3]}))
    app = App(tmp_path / "grain")
    monkeypatch.setattr(datapipes, "get_kindling_service", app.service)
    monkeypatch.setattr(datapipes, "get_or_create_spark_session", lambda: None)
    monkeypatch.setattr(datapipes, "SparkCanceller", lambda spark, run_id, gate: NoCanceller())
    return app


def test_whatever_the_order_given_pipes_run_in_the_order_of_their_data(shop):
    result = run_datapipes_dag(["end", "a", "after_fast", "slow", "fast", "start"])
    assert isinstance(result, ExecutionResult)
    assert result.ok
    order = [pipe_id for pipe_id, _ in shop.ran]
    assert sorted(order) == sorted(App.PIPES)
    for pipe_id, inputs in App.PIPES.items():
        for source in inputs.replace("grain", "").split():
            assert order.index(source.removeprefix("out.")) < order.index(pipe_id)


def test_a_strategy_orders_them_otherwise(shop):
    result = run_datapipes(["start", "a"], use_dag=True, dag_strategy=OneByOne())
    assert [pipe_id for pipe_id, _ in shop.ran] == ["a", "start"]
    assert len(result.generations) == 2


@pytest.mark.parametrize("no_watermark", [False, True])
def test_no_watermark_reaches_kindling(shop, no_watermark):
    run_datapipes_dag(["a"], no_watermark=no_watermark)
    assert shop.ran == [("a", no_watermark)]


def test_failures_are_raised_together_naming_each_pipe(shop):
    shop.broken = {"fast", "a"}
    with pytest.raises(RunError) as caught:
        run_datapipes_dag(App.PIPES)
    text = str(caught.value)
    assert text.startswith("4 of 6 pipes did not succeed:")
    assert "fast failed: ValueError: broken on purpose" in text
    assert "a failed: ValueError: broken on purpose" in text
    assert "after_fast upstream_failed: not started: fast did not succeed" in text
    assert "end upstream_failed" in text
    assert {pipe_id for pipe_id, _ in shop.ran} == {"a", "fast", "slow", "start"}


def test_or_only_told_by_the_result(shop):
    shop.broken = {"start"}
    options = {"error_strategy": "fail_fast", "retries": 1, "backoff": 0.0}
    result = run_datapipes_dag(["start", "fast"], raise_on_failure=False, **options)
    assert result.counts == {"failed": 1, "upstream_failed": 1}
    assert result.results["start"].attempts == 2


def test_settings_of_the_app_apply_where_the_call_says_nothing(shop):
    shop.broken = {"a"}
    shop.settings = {"kindling.execution": {"retry": {"attempts": 2, "interval_seconds": 0}}}
    assert run_datapipes_dag(["a"], raise_on_failure=False).results["a"].attempts == 3
    assert run_datapipes_dag(["a"], raise_on_failure=False, retries=1).results["a"].attempts == 2


@pytest.mark.parametrize(
    ("pipes", "options", "error", "names"),
    [
        (["start", "nobody"], {}, PlanError, "nobody"),
        (["start", "start"], {}, PlanError, "given 2 times"),
        ([], {}, PlanError, "No pipe is selected"),
        (["a"], {"error_strategy": "sometimes"}, PlanError, "sometimes"),
        (["a"], {"cache_level": "ATTIC"}, SelectionError, "ATTIC"),
        (["a"], {"max_wokers": 2}, TypeError, "max_wokers"),
    ],
)
def test_what_cannot_run_is_refused_before_any_pipe_is_called(shop, pipes, options, error, names):
    with pytest.raises(error, match=names):
        run_datapipes_dag(pipes, **options)
    assert shop.ran == []


@pytest.mark.parametrize(("over", "shared"), [(0, True), (-1, False)])
def test_the_size_of_a_shared_table_comes_from_its_log(shop, over, shared):
    size = sum(DeltaTable(str(shop.table)).get_add_actions(flatten=True).column("size_bytes").to_pylist())
    told = []
    signal = shop.signals.create_signal("orchestrator.cache_recommended")
    signal.connect(lambda sender, **payload: told.append(payload), weak=False)
    run_datapipes_dag(["start", "a"], auto_cache=True, cache_max_bytes=size + over)
    assert [(each["entity_id"], each["estimated_bytes"], each["auto_cache"]) for each in told] == [
        ("grain", size, shared)
    ]


# Through Kindling, in a session.


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    with started_mill(tmp_path_factory.mktemp("datapipes")) as mill:
        yield mill


@pytest.fixture
def mill(started):
    started.switches.reset()
    shutil.rmtree(started.folder / "data" / "out", ignore_errors=True)
    return started


def fail(frame):
    raise ValueError("broken on purpose")


def told(heard):
    """Signals by name and pipe."""
    return [(name, payload.get("pipe_id") or payload.get("failed_pipe")) for name, payload in heard]


@pytest.mark.spark
class TestWithoutDag:
    @pytest.mark.parametrize("broken", [False, True])
    def test_it_is_kindlings_own_behaviour(self, mill, broken):
        """The same pipes called in the order given, the same signals, the same exception, the same return."""
        if broken:
            mill.switches.bodies["start"] = fail
        seen = []
        for run in (mill.runtime.execution.run_datapipes, run_datapipes):
            mill.switches.called.clear()
            with mill.hearing(*HEARD) as heard:
                try:
                    ended = run(["start", "fast"])
                except Exception as error:
                    ended = (type(error), str(error))
            seen.append((ended, list(mill.switches.called), told(heard)))
        assert seen[0] == seen[1]
        ended, called, signals = seen[1]
        assert called == (["start"] if broken else ["start", "fast"])
        assert (ended is None) == (not broken)
        assert signals[0][0] == "datapipes.before_run"


@pytest.mark.spark
class TestWithDag:
    def test_pipes_run_in_the_order_of_their_data(self, mill):
        with mill.hearing("orchestrator.plan_generated", "orchestrator.execution_completed") as heard:
            result = run_datapipes_dag(DIAMOND)
        assert isinstance(result, ExecutionResult)
        assert result.ok
        assert mill.switches.called[0] == "start"
        assert mill.switches.called[-1] == "end"
        assert mill.switches.called.index("fast") < mill.switches.called.index("after_fast")
        assert [set(part.results) for part in result.generations] == [
            {"start"},
            {"slow", "fast"},
            {"after_fast"},
            {"end"},
        ]
        assert mill.rows("end") == GRAIN
        assert [name for name, _ in heard] == [
            "orchestrator.plan_generated",
            "orchestrator.execution_completed",
        ]

    def test_tag_overrides_hold_for_the_run_alone(self, mill):
        elsewhere = str(mill.folder / "data" / "out" / "elsewhere")
        run_datapipes_dag(["a"], entity_tags={"out.a": {"provider.path": elsewhere}})
        assert mill.rows("elsewhere") == GRAIN
        assert not (mill.folder / "data" / "out" / "a").exists()
        assert mill.runtime.entities.get_entity_definition("out.a").tags["provider.path"] == "data/out/a"

    def test_shared_entities_are_cached_on_request(self, mill):
        with mill.hearing("orchestrator.cache_recommended", "orchestrator.execution_completed") as heard:
            run_datapipes_dag(["a", "b"], auto_cache=True, cache_max_bytes=1_000_000)
        (_, advice), (_, ended) = heard
        assert advice["estimated_bytes"] > 0
        assert ended["cache_metrics"] == {"lake.grain": {"hits": 1, "misses": 1}}

    def test_at_its_limit_a_merge_through_kindling_is_ended_and_commits_nothing(self, mill):
        """The table exists, and Spark would be at it for years."""
        run_datapipes_dag(["keep"])
        table = mill.table("lake.kept")
        before = table_version(table)

        def endless(frame):
            many = mill.spark.range(10**10)
            return many.crossJoin(many.withColumnRenamed("id", "other")).selectExpr("id", "'rye' AS kind")

        mill.switches.bodies["keep"] = endless
        result = run_datapipes_dag(["keep"], raise_on_failure=False, pipe_timeout=4.0)
        assert result.results["keep"].status is PipeStatus.TIMED_OUT
        assert 4.0 <= result.results["keep"].duration_seconds < 30.0
        assert mill.spark.sparkContext.statusTracker().getActiveJobsIds() == []
        time.sleep(10)  # the promise is about time: nothing moves for ten seconds
        assert table_version(table) == before
        assert mill.spark.sparkContext.statusTracker().getActiveJobsIds() == []

    def test_what_is_registered_is_what_is_recorded(self, mill):
        """Planned by Kindling's registries, the app is the one that Dagster shows."""
        registered, recorded = registered_manifest(), mill.manifest
        assert set(registered.pipes_by_id) == set(recorded.pipes_by_id)
        assert set(registered.entities_by_id) == set(recorded.entities_by_id)
        for pipe_id, pipe in recorded.pipes_by_id.items():
            found = registered.pipes_by_id[pipe_id]
            assert (found.input_entity_ids, found.output_entity_id, found.driving_entity_ids) == (
                pipe.input_entity_ids,
                pipe.output_entity_id,
                pipe.driving_entity_ids,
            )
