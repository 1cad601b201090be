from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_dagster.dag.scheduling import Blocked, ErrorStrategy, Frontier, Workload
from kindling_dagster.errors import PlanError

CONTINUE, SKIP, FAST = ErrorStrategy.CONTINUE, ErrorStrategy.SKIP_DEPENDENTS, ErrorStrategy.FAIL_FAST
DIAMOND = {"a": (), "slow": ("a",), "fast": ("a",), "after_fast": ("fast",), "end": ("slow", "after_fast")}

WRITERS = {
    "source": (),
    "w1": (),
    "w2": ("source", "w1"),
    "w3": ("w2",),
    "reader": ("w1", "w2", "w3"),
}
WRITERS_ORDERING = {"w2": ("w1",), "w3": ("w2",)}


def test_generations_follow_from_predecessors():
    assert Workload.of(DIAMOND).generations == {"a": 0, "slow": 1, "fast": 1, "after_fast": 2, "end": 3}


def test_predecessors_outside_the_workload_are_not_waited_for():
    workload = Workload.of({"b": ("a",), "c": ("b",)})
    assert workload.predecessors == {"b": frozenset(), "c": frozenset({"b"})}


@pytest.mark.parametrize(
    ("durations", "urgency"),
    [
        ({}, {"a": 4.0, "slow": 2.0, "fast": 3.0, "after_fast": 2.0, "end": 1.0}),
        # Unknown ones count as the mean of the known ones, here 20 s.
        ({"slow": 38.0, "end": 2.0}, {"a": 62.0, "slow": 40.0, "fast": 42.0, "after_fast": 22.0, "end": 2.0}),
    ],
)
def test_urgency_is_the_longest_path_to_the_end(durations, urgency):
    assert Workload.of(DIAMOND, durations=durations).urgency == urgency


@pytest.mark.parametrize(
    ("durations", "first"), [({}, "head"), ({"long": 10.0, "head": 1.0, "tail": 1.0}, "long")]
)
def test_the_head_of_the_longest_path_goes_first(durations, first):
    workload = Workload.of({"long": (), "head": (), "tail": ("head",)}, durations=durations)
    assert Frontier(workload, SKIP).take(1) == [first]


def test_ties_go_in_the_given_order():
    assert Frontier(Workload.of(dict.fromkeys("cab", ())), SKIP).take(3) == ["c", "a", "b"]


def test_no_more_than_free_are_taken():
    frontier = Frontier(Workload.of(dict.fromkeys("abc", ())), SKIP)
    assert (frontier.take(0), frontier.take(2), frontier.take(2), frontier.take(2)) == (
        [],
        ["a", "b"],
        ["c"],
        [],
    )


@pytest.mark.parametrize("barrier", [False, True])
def test_barrier_holds_back_the_next_generation(barrier):
    frontier = Frontier(Workload.of(DIAMOND), SKIP, barrier=barrier)
    frontier.take(4)
    frontier.ended("a", ok=True)
    assert frontier.take(4) == ["fast", "slow"]
    frontier.ended("fast", ok=True)
    assert frontier.take(4) == ([] if barrier else ["after_fast"])
    frontier.ended("slow", ok=True)
    assert frontier.take(4) == (["after_fast"] if barrier else [])


@pytest.mark.parametrize(
    ("strategy", "blocked", "next_pipes"),
    [
        (SKIP, [Blocked("after_fast", "fast"), Blocked("end", "fast")], []),
        (FAST, [Blocked("after_fast", "fast"), Blocked("end", "fast")], []),
        (CONTINUE, [], ["after_fast"]),
    ],
)
@pytest.mark.parametrize("barrier", [False, True])
def test_a_failure_blocks_what_depends_on_it(strategy, blocked, next_pipes, barrier):
    frontier = Frontier(Workload.of(DIAMOND), strategy, barrier=barrier)
    frontier.take(4)
    frontier.ended("a", ok=True)
    frontier.take(4)
    frontier.ended("slow", ok=True)
    assert frontier.ended("fast", ok=False) == blocked
    assert frontier.take(4) == next_pipes


def test_a_blocked_generation_does_not_hold_up_the_next():
    frontier = Frontier(
        Workload.of({"a": (), "x": (), "b": ("a",), "c": ("x",), "d": ("c",)}), SKIP, barrier=True
    )
    assert set(frontier.take(4)) == {"a", "x"}
    frontier.ended("x", ok=True)
    assert frontier.ended("a", ok=False) == [Blocked("b", "a")]
    assert frontier.take(4) == ["c"]
    frontier.ended("c", ok=True)
    assert frontier.take(4) == ["d"]


def test_giving_up_leaves_nothing_to_start():
    frontier = Frontier(Workload.of(DIAMOND), SKIP)
    frontier.take(1)
    assert frontier.give_up() == ["slow", "fast", "after_fast", "end"]
    assert frontier.ended("a", ok=True) == []
    assert frontier.take(4) == []


class TestWritersOfOneEntity:
    """w1, w2 and w3 write one entity in this order; w2 also reads what ``source`` writes."""

    def frontier(self, strategy=SKIP):
        return Frontier(Workload.of(WRITERS, ordering=WRITERS_ORDERING), strategy)

    def test_a_failed_writer_blocks_the_readers_but_not_the_next_writer(self):
        frontier = self.frontier()
        frontier.take(2)
        frontier.ended("source", ok=True)
        assert frontier.ended("w1", ok=False) == [Blocked("reader", "w1")]
        assert frontier.take(2) == ["w2"]

    def test_a_blocked_writer_passes_the_turn_on_only_when_it_would_have_had_it(self):
        frontier = self.frontier()
        frontier.take(2)
        assert frontier.ended("source", ok=False) == [Blocked("w2", "source"), Blocked("reader", "source")]
        assert frontier.take(2) == []  # w1 is still running
        frontier.ended("w1", ok=True)
        assert frontier.take(2) == ["w3"]

    def test_writers_blocked_together_pass_the_turn_on_once(self):
        predecessors = {"source": (), "w0": (), "w1": ("source",), "w2": ("source", "w1"), "w3": ("w2", "w0")}
        ordering = {"w2": ("w1",), "w3": ("w2", "w0")}
        frontier = Frontier(Workload.of(predecessors, ordering=ordering), SKIP)
        frontier.take(2)
        frontier.ended("source", ok=False)
        assert frontier.take(2) == []  # w0 is still running
        frontier.ended("w0", ok=True)
        assert frontier.take(2) == ["w3"]

    def test_a_blocked_writer_whose_turn_it_was_passes_it_on_at_once(self):
        frontier = self.frontier()
        frontier.take(2)
        frontier.ended("w1", ok=True)
        frontier.ended("source", ok=False)
        assert frontier.take(2) == ["w3"]

    @pytest.mark.parametrize(("strategy", "left"), [(SKIP, []), (CONTINUE, ["reader"])])
    def test_nothing_writes_beside_a_pipe_that_may_still_be_at_work(self, strategy, left):
        frontier = self.frontier(strategy)
        frontier.take(2)
        frontier.ended("source", ok=True)
        blocked = {each.pipe_id for each in frontier.ended("w1", ok=False, alive=True)}
        assert blocked == {"w2", "w3", "reader"} - set(left)
        assert frontier.take(2) == left


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Workload.of({"a": ("b",), "b": ("a",), "c": ("b",)}), "circle"),
        (
            lambda: Workload.of({"a": (), "b": ("a",)}, generations={"a": 1, "b": 0}),
            "generation 0 waits for a",
        ),
        (lambda: ErrorStrategy.of("fail_slow"), "fail_fast, continue, skip_dependents"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(PlanError, match=message):
        make()


@st.composite
def workloads(draw):
    """Random graphs; edges go from earlier to later pipes, some of them only for order."""
    names = [f"p{number}" for number in range(draw(st.integers(1, 12)))]
    edges = {
        name: tuple(draw(st.sets(st.sampled_from(names[:index])))) if index else ()
        for index, name in enumerate(names)
    }
    ordering = {
        name: tuple(draw(st.sets(st.sampled_from(e)))) if (e := edges[name]) else () for name in names
    }
    return Workload.of(edges, ordering=ordering)


@given(
    workloads(),
    st.sampled_from(ErrorStrategy),
    st.booleans(),
    st.integers(1, 4),
    st.integers(0, 2**32),
)
def test_whatever_happens_every_pipe_ends_once_and_after_what_it_waits_for(
    work, strategy, barrier, free, seed
):
    dice = random.Random(seed)
    frontier = Frontier(work, strategy, barrier=barrier)
    running: list[str] = []
    ok: dict[str, bool] = {}
    while True:
        for pipe_id in frontier.take(free - len(running)):
            assert pipe_id not in ok
            for earlier in work.predecessors[pipe_id]:
                only_order = earlier in work.ordering[pipe_id]
                assert earlier in ok
                assert earlier not in running
                assert ok[earlier] or only_order or strategy is CONTINUE
            if barrier:
                assert all(
                    o in ok for o, level in work.generations.items() if level < work.generations[pipe_id]
                )
            running.append(pipe_id)
        assert len(running) <= free
        if not running:
            break
        pipe_id = running.pop(dice.randrange(len(running)))
        ok[pipe_id] = dice.random() < 0.7
        for blocked in frontier.ended(pipe_id, ok=ok[pipe_id]):
            assert blocked.pipe_id not in ok
            assert not ok[blocked.cause]
            ok[blocked.pipe_id] = False
    assert ok.keys() == set(work.order)
