from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from dag_apps import app, entity, pipe
from deltalake import DeltaTable
from kindling.signaling import BlinkerSignalProvider, SignalEmitter
from mill_runs import GRAIN, started_mill

from kindling_dagster.dag.cache import CacheRecommendation, EntityCache, recommend
from kindling_dagster.engines.base import PipeOptions, RunOptions, RunRequest, SignalSeen
from kindling_dagster.engines.pipe_run import PipeRunner
from kindling_dagster.narrowing import AFTER_READ
from kindling_dagster.signals.payloads import decode

GRAIN_READERS = ("a", "b", "c", "after")


def plan_of(*pipe_ids, streams=()):
    return SimpleNamespace(pipe_ids=pipe_ids, streams=streams)


# What is worth sharing: pure.


@pytest.mark.parametrize(
    ("pipes", "entities", "expected"),
    [
        ([pipe("a", "src", "x"), pipe("b", "src", "y")], [], [("src", "a b")]),
        ([pipe("a", "src", "x")], [], []),
        ([pipe("a", "src src2", "x"), pipe("b", "src2", "y"), pipe("c", "src2 x", "z")], [], [("src2", "a b c")]),
        # Written in the run, and the same for all who read it, since they wait for its writer.
        ([pipe("w", "src", "x"), pipe("a", "x", "y"), pipe("b", "x", "z")], [], [("x", "a b")]),
        # A pipe that reads what it writes: before and after are not the same.
        ([pipe("a", "src x", "x"), pipe("b", "x", "y"), pipe("c", "x", "z")], [], []),
        # Already a frame of the session.
        (
            [pipe("a", "m", "x"), pipe("b", "m", "y")],
            [entity("m", "memory")],
            [],
        ),
        # A current-row companion changes with its base.
        (
            [pipe("a", "x.current x", "x"), pipe("b", "x.current", "y"), pipe("c", "x.current", "z")],
            [entity("x.current", companion_of="x")],
            [],
        ),
        (
            [pipe("a", "x.current", "y"), pipe("b", "x.current", "z")],
            [entity("x.current", companion_of="x")],
            [("x.current", "a b")],
        ),
        # Its pipe reads what it writes by the companion alone, or by SQL over it: whoever follows must read anew.
        (
            [pipe("a", "src x.current", "x"), pipe("b", "x.current", "y")],
            [entity("x.current", companion_of="x")],
            [],
        ),
        (
            [pipe("a", "src v", "x"), pipe("b", "v src", "y")],
            [entity("v", sql="SELECT * FROM x", sql_inputs=("x",))],
            [("src", "a b")],
        ),
    ],
)  # fmt: skip
def test_what_is_recommended(pipes, entities, expected):
    found = recommend(app(pipes, entities), plan_of(*(each.id for each in pipes)), {"src2": 7}.get)
    assert [(each.entity_id, " ".join(each.readers)) for each in found] == expected
    assert [each.estimated_bytes for each in found] == [{"src2": 7}.get(each.entity_id) for each in found]


def test_only_pipes_of_the_plan_count_as_readers():
    manifest = app([pipe("a", "src", "x"), pipe("b", "src", "y"), pipe("c", "src", "z")])
    assert recommend(manifest, plan_of("a", "c")) == [CacheRecommendation("src", ("a", "c"))]
    assert recommend(manifest, plan_of("a")) == []


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        ((), ["src", "dim.current", "dim", "x"]),
        # What a stream reads, static or not, it must read anew with each batch, and so must its base entity.
        (("a",), ["x"]),
        # What a stream writes changes while the others read it.
        (("w",), ["dim.current", "dim"]),
        (("a", "w"), []),
    ],
)
def test_what_streams_read_or_write_is_not_shared(streams, expected):
    pipes = [
        pipe("w", "src", "x"),
        pipe("a", "src dim.current", "y"),
        pipe("b", "src dim.current dim x", "z"),
        pipe("c", "dim x", "v"),
    ]
    manifest = app(pipes, [entity("dim.current", companion_of="dim")])
    found = recommend(manifest, plan_of("w", "a", "b", "c", streams=streams))
    assert [each.entity_id for each in found] == expected


class Frame:
    """A frame by what it was read from."""

    def __init__(self, source):
        self.source, self.persisted = source, []

    def persist(self, level):
        self.persisted.append(str(level))
        return self

    def unpersist(self):
        self.persisted.append("released")

    def sameSemantics(self, other):
        return self.source == other.source


class Reads(SignalEmitter):
    """Reads as Kindling does, with its signal."""

    def __init__(self, provider):
        self._init_signal_emitter(provider)

    def read(self, entity_id, pipe_id, used_watermark=False, frame=None):
        given, _ = self.emit_chained(
            AFTER_READ,
            "df",
            lambda value: isinstance(value, Frame),
            df=frame or Frame(entity_id),
            entity_id=entity_id,
            pipe_id=pipe_id,
            used_watermark=used_watermark,
        )
        return given


@pytest.fixture
def shared():
    """A cache over two shared entities, what it says, and Kindling's side of it."""
    provider, said = BlinkerSignalProvider(), []
    for name in EntityCache.EMITS:
        provider.create_signal(name).connect(
            lambda sender, name=name, **payload: said.append(decode(name, payload)), weak=False
        )
    pipes = [pipe("p1", "x y", "o1"), pipe("p2", "x y", "o2"), pipe("p3", "x", "o3")]
    cache = EntityCache(app(pipes), provider, auto_cache=True, run_id="run-1")
    cache.begin(plan_of("p1", "p2", "p3"))
    yield SimpleNamespace(cache=cache, reads=Reads(provider), said=said)
    cache.end()


def test_each_entity_is_released_with_its_own_last_reader(shared):
    x, y = shared.reads.read("x", "p1"), shared.reads.read("y", "p1")
    shared.cache.done("p1")
    assert shared.reads.read("y", "p2") is y
    assert shared.reads.read("x", "p2") is x
    shared.cache.done("p2")
    assert (len(x.persisted), y.persisted[1:]) == (1, ["released"])
    assert shared.reads.read("x", "p3") is x
    shared.cache.done("p3")
    assert x.persisted[1:] == ["released"]
    assert shared.cache.metrics() == {"x": {"hits": 2, "misses": 1}, "y": {"hits": 1, "misses": 1}}
    released = [payload for payload in shared.said if payload.signal.endswith("released")]
    assert [(p.entity_id, p.hit_count, p.miss_count, p.run_id) for p in released] == [
        ("y", 1, 1, "run-1"),
        ("x", 2, 1, "run-1"),
    ]


def test_what_comes_after_the_release_is_left_alone(shared):
    shared.cache.end()
    mine = Frame("x")
    assert shared.reads.read("x", "late", frame=mine) is mine
    assert mine.persisted == []
    assert shared.cache.metrics()["x"] == {"hits": 0, "misses": 0}


def test_a_slice_by_watermark_is_never_shared(shared):
    first, second = (shared.reads.read("x", pipe_id, used_watermark=True) for pipe_id in ("p1", "p2"))
    assert first is not second
    assert first.persisted == second.persisted == []


def test_a_frame_that_was_changed_on_its_way_is_neither_shared_nor_replaced(shared):
    shared.reads.read("x", "p1")
    filtered = Frame("x, filtered for p2 by the app")
    assert shared.reads.read("x", "p2", frame=filtered) is filtered
    assert filtered.persisted == []
    assert shared.cache.metrics()["x"] == {"hits": 0, "misses": 2}
    misses = [payload for payload in shared.said if payload.signal.endswith("miss")]
    assert [(p.miss_count, p.auto_cached) for p in misses] == [(1, True), (2, False)]


def test_other_entities_are_not_touched(shared):
    mine = Frame("z")
    assert shared.reads.read("z", "p1", frame=mine) is mine
    assert mine.persisted == []


# Through Kindling, over a Delta table.


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    with started_mill(tmp_path_factory.mktemp("cache")) as mill:
        yield mill


@pytest.fixture
def mill(started):
    started.switches.reset()
    shutil.rmtree(started.folder / "data" / "out", ignore_errors=True)
    yield started
    assert not in_cache(started), "whatever happened, nothing stays cached"


def in_cache(mill):
    """Whether Spark holds any frame; Delta's own state, which it persists as well, is none."""
    return not mill.spark._jsparkSession.sharedState().cacheManager().isEmpty()


def run(mill, *pipe_ids, **options):
    """Run pipes as a step does; gives the result and the cache's signals, decoded."""
    events = []
    request = RunRequest("run-1", pipe_ids, RunOptions(**options))
    with PipeRunner(request, mill.manifest, mill.spark, mill.runtime, events.append) as runner:
        result = runner.orchestrator().execute(pipe_ids)
    seen = [event for event in events if isinstance(event, SignalSeen)]
    return result, [
        SimpleNamespace(name=event.name.removeprefix("orchestrator."), **event.payload["fields"])
        for event in seen
        if event.name.startswith(("orchestrator.cache", "orchestrator.execution_completed"))
    ]


def bytes_of(table):
    return sum(DeltaTable(table).get_add_actions(flatten=True).column("size_bytes").to_pylist())


@pytest.mark.spark
class TestOverDelta:
    def test_recommended_and_left_alone_unless_asked(self, mill):
        cached = []
        mill.switches.bodies["b"] = lambda frame: cached.append(frame.is_cached)
        result, told = run(mill, "a", "b")
        assert result.ok
        (advice,) = [signal for signal in told if signal.name.startswith("cache")]
        assert (advice.name, advice.entity_id, advice.consumer_pipes) == (
            "cache_recommended",
            "lake.grain",
            ["a", "b"],
        )
        assert advice.estimated_bytes == bytes_of(mill.table("lake.grain")) > 0
        assert (advice.auto_cache, advice.cache_level, advice.run_id) == (False, "MEMORY_AND_DISK", "run-1")
        assert cached == [False]
        assert mill.rows("a") == mill.rows("b") == GRAIN

    def test_cached_on_request_until_the_last_reader_is_done(self, mill):
        levels, held = {}, {}

        def look(pipe_id):
            def body(frame):
                levels[pipe_id], held[pipe_id] = frame.storageLevel, in_cache(mill)

            return body

        pipes = ("a", "b", "c", "after")
        mill.switches.bodies.update({pipe_id: look(pipe_id) for pipe_id in ("b", "c")})
        mill.switches.bodies["after"] = lambda frame: held.update(after=in_cache(mill))
        result, told = run(mill, *pipes, auto_cache=True)
        assert result.ok
        assert [signal.name for signal in told] == [
            "cache_recommended",
            "cache_miss",
            "cache_hit",
            "cache_hit",
            "cache_hit",
            "cache_released",
            "execution_completed",
        ]
        recommended, miss, *hits, released, completed = told
        assert (recommended.auto_cache, recommended.consumer_pipes) == (True, list(GRAIN_READERS))
        assert (miss.miss_count, miss.auto_cached) == (1, True)
        assert [hit.hit_count for hit in hits] == [1, 2, 3]
        assert (released.hit_count, released.miss_count) == (3, 1)
        assert completed.cache_metrics == {"lake.grain": {"hits": 3, "misses": 1}}
        assert all(level.useMemory for level in levels.values())
        assert held == {"b": True, "c": True, "after": True}
        assert mill.rows("a") == mill.rows("b") == mill.rows("c") == mill.rows("after") == GRAIN

    def test_released_before_what_comes_after_its_last_reader(self, mill):
        held = []
        mill.switches.bodies["slow"] = lambda frame: held.append(in_cache(mill))
        result, told = run(mill, "a", "start", "slow", auto_cache=True)
        assert result.ok
        assert [signal.name for signal in told][1:4] == ["cache_miss", "cache_hit", "cache_released"]
        assert held == [False]

    @pytest.mark.parametrize(
        ("level", "memory", "disk"), [("DISK_ONLY", False, True), ("MEMORY_ONLY", True, False)]
    )
    def test_the_storage_level_is_the_one_asked_for(self, mill, level, memory, disk):
        levels = []
        mill.switches.bodies["b"] = lambda frame: levels.append(frame.storageLevel)
        _, told = run(mill, "a", "b", auto_cache=True, cache_level=level)
        assert [(each.useMemory, each.useDisk) for each in levels] == [(memory, disk)]
        assert {signal.cache_level for signal in told if signal.name == "cache_miss"} == {level}

    @pytest.mark.parametrize(("over", "hits"), [(-1, 0), (0, 1)])
    def test_what_is_larger_than_the_limit_is_not_cached(self, mill, over, hits):
        limit = bytes_of(mill.table("lake.grain")) + over
        _, told = run(mill, "a", "b", auto_cache=True, cache_max_bytes=limit)
        assert told[0].auto_cache is bool(hits)
        assert sum(signal.name == "cache_hit" for signal in told) == hits

    def test_side_by_side_it_is_computed_once_and_read_by_all(self, mill):
        result, told = run(mill, "a", "b", "c", auto_cache=True, parallel=True, max_workers=3)
        assert result.ok
        assert told[-1].cache_metrics == {"lake.grain": {"hits": 2, "misses": 1}}
        assert mill.rows("a") == mill.rows("b") == mill.rows("c") == GRAIN

    def test_an_apps_own_receiver_changes_the_frame_of_its_pipe_alone(self, mill):
        def only_rye(sender, pipe_id, df, **payload):
            return df.filter("kind = 'rye'") if pipe_id == "b" else None

        with mill.receiving(AFTER_READ, only_rye):
            result, _ = run(mill, "a", "b", "c", auto_cache=True)
        assert result.ok
        rye = [row for row in GRAIN if row[1] == "rye"]
        assert (mill.rows("a"), mill.rows("b"), mill.rows("c")) == (GRAIN, rye, GRAIN)

    @pytest.mark.parametrize("strategy", ["fail_fast", "skip_dependents"])
    def test_released_though_a_reader_fails(self, mill, strategy):
        def broken(frame):
            raise ValueError("broken")

        mill.switches.bodies["b"] = broken
        result, told = run(mill, "a", "b", "c", auto_cache=True, error_strategy=strategy)
        assert not result.ok
        assert [signal.name for signal in told if signal.name == "cache_released"] == ["cache_released"]

    def test_a_second_try_of_a_reader_still_finds_it(self, mill):
        left = ["once"]

        def flaky(frame):
            if left:
                raise OSError(left.pop())
            return frame

        mill.switches.bodies["b"] = flaky
        pipes = {"b": PipeOptions(attempts=2, backoff=0.0)}
        result, told = run(mill, "a", "b", auto_cache=True, pipes=pipes)
        assert result.ok
        assert told[-1].cache_metrics == {"lake.grain": {"hits": 2, "misses": 1}}
