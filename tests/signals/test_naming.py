from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_dagster.signals.naming import EXCEPTIONS, find_problem, propose, undeclared
from kindling_dagster.signals.payloads import PAYLOAD_BY_SIGNAL


@pytest.mark.parametrize(
    "name",
    [
        "orders.before_load", "orders.after_load", "orders.load_failed", "orders.row_changed", "orders.loaded",
        "orders.file_found", "a.b_2.rows_written", "orders.pipe_timed_out", "orders.host_shut_down", "x.made",
    ],
)  # fmt: skip
def test_names_that_keep_the_convention(name: str) -> None:
    assert find_problem(name) is None


@pytest.mark.parametrize(
    ("name", "proposal"),
    [
        ("orders.loadError", "orders.load_failed"),
        ("Orders.Load", "orders.loaded"),
        ("load", "mine.loaded"),
        ("orders.onLoad", "orders.after_load"),
        ("orders.pre_load", "orders.before_load"),
        ("orders.post-load", "orders.after_load"),
        ("orders.data_changes", "orders.data_changed"),
        ("orders.retry", "orders.retried"),
        ("orders.start", "orders.started"),
        ("orders.write", "orders.written"),
        ("orders.merging", "orders.merged"),
        ("orders.stopping", "orders.stopped"),
        ("orders.row writing", "orders.row_written"),
        ("orders.need", ""),
        ("orders.thing", ""),
        ("orders.before", ""),
        ("orders.x.", ""),
        ("orders.1st", ""),
        ("", ""),
        (".", ""),
        ("..", ""),
    ],
)
def test_names_that_break_it_get_a_proposal(name: str, proposal: str) -> None:
    problem = find_problem(name, "mine")
    assert problem is not None
    assert repr(name) in problem.message
    assert problem.proposal == proposal
    assert (f"Call it {problem.proposal!r}." if problem.proposal else "Use namespace") in problem.suggestion


@given(st.one_of(st.text(max_size=30), st.from_regex(r"[a-zA-Z_]{1,8}\.[a-zA-Z_]{1,20}", fullmatch=True)))
def test_a_proposal_always_keeps_the_convention(name: str) -> None:
    proposal = propose(name, "mine")
    assert not proposal or find_problem(proposal) is None


def test_every_known_signal_is_good_or_a_listed_exception() -> None:
    assert [name for name in PAYLOAD_BY_SIGNAL if find_problem(name)] == []


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_exceptions_are_needed_known_and_explained(name: str) -> None:
    from kindling_dagster.signals import naming

    assert name in PAYLOAD_BY_SIGNAL
    assert not naming._follows(name.rpartition(".")[2]), "it keeps the convention: no exception needed"
    assert EXCEPTIONS[name].endswith(".")


def test_undeclared_names_the_near_one() -> None:
    declared = frozenset({"orders.after_load", "orders.before_load"})
    assert undeclared("orders.after_load", int, declared) is None
    problem = undeclared("orders.after_loads", int, declared)
    assert problem is not None
    assert problem.proposal == "orders.after_load"
    assert "builtins.int" in problem.message
    far = undeclared("elsewhere.moved", int, declared)
    assert far is not None
    assert far.proposal == ""
