"""The benchmark harness: what is measured, judged, shown and written."""

from __future__ import annotations

import io
import json
import sys
import types

import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import harness
from benchmarks.harness import Case, figure, judge, run_case


@pytest.fixture
def add(monkeypatch):
    """Makes a benchmark module of some cases; what is not added is not there."""
    names: list[str] = []
    monkeypatch.setattr(harness, "names", lambda: names)

    def add(name, cases):
        module = types.ModuleType(f"benchmarks.{name}")
        module.cases = cases
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", module)
        names.append(name)

    return add


def shown(results) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(harness.table(results))
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("better", "goal", "ours", "other", "ratio", "ok"),
    [
        ("at most", 1.5, [3.0], [2.0], 1.5, True),
        ("at most", 1.4, [3.0], [2.0], 1.5, False),
        ("at least", 10.0, [1.0], [10.0], 10.0, True),
        ("at least", 10.1, [1.0], [10.0], 10.0, False),
        ("at least", None, [1.0], [10.0], 10.0, None),
        ("at most", 2.0, [2.0], [], None, True),
        ("at most", 2.0, [2.1], [], None, False),
        ("at least", 2.0, [2.1], [], None, True),
        ("at most", 1.0, [1.0], [0.0], float("inf"), False),
        ("at most", 1.5, [1.0, 1.0, 99.0], [1.0, 1.0, 1.0], 1.0, True),
        # Two of three rounds were slow for one side, and only one of them for the other.
        ("at most", 1.5, [1.0, 5.0, 5.0], [1.0, 1.0, 5.0], 1.0, True),
    ],
)
def test_goals(better, goal, ours, other, ratio, ok):
    result = judge("b", Case("c", ours=print, goal=goal, better=better), ours, other)
    assert result.ratio == ratio
    assert result.ok is ok
    assert result.failed is (ok is False)


def test_by_the_cpu_clock_the_minimum_counts():
    result = judge("b", Case("c", ours=print, clock="cpu"), [3.0, 1.0, 2.0], [8.0, 6.0, 4.0])
    assert (result.ours, result.other, result.ratio) == (1.0, 4.0, 0.25)


def test_rounds_take_turns_and_warmups_do_not_count():
    calls: list[str] = []
    values = iter(range(100))

    def side(name):
        def measured():
            calls.append(name)
            return float(next(values))

        return measured

    case = Case(
        "c",
        ours=side("ours"),
        other=side("other"),
        runs=3,
        warmups=1,
        units="rows",
        setup=lambda: calls.append("setup"),
        before_each=lambda: calls.append("-"),
        teardown=lambda: calls.append("teardown"),
    )
    result = run_case("b", case)
    assert calls[0] == "setup"
    assert calls[-1] == "teardown"
    assert [call for call in calls[1:-1] if call != "-"] == ["ours", "other", "other", "ours"] * 2
    assert calls[1:-1:2] == ["-"] * 8
    assert result.ours_runs == (3.0, 4.0, 7.0)
    assert result.other_runs == (2.0, 5.0, 6.0)
    assert result.ratios == (1.5, 0.8, 7 / 6)


def test_in_turn_neither_side_follows_itself():
    calls: list[str] = []
    case = Case(
        "c", ours=lambda: calls.append("ours"), other=lambda: calls.append("other"), runs=3, in_turn=True
    )
    run_case("b", case)
    assert calls == ["ours", "other"] * 4


@pytest.mark.parametrize("clock", ["wall", "cpu"])
def test_what_returns_nothing_is_timed(clock):
    case = Case("c", ours=lambda: sum(range(200_000)) and None, runs=2, warmups=0, clock=clock)
    result = run_case("b", case)
    assert 0 < result.ours < 10
    assert len(result.ours_runs) == 2


def test_a_case_that_breaks_is_torn_down_and_told():
    torn: list[bool] = []
    case = Case("c", ours=lambda: 1 / 0, teardown=lambda: torn.append(True))
    result = run_case("b", case)
    assert torn == [True]
    assert result.failed
    assert "ZeroDivisionError" in result.error
    assert "broken: ZeroDivisionError" in shown([result])


def test_cases_can_hold_something_open(add):
    events: list[str] = []

    def cases():
        events.append("open")
        try:
            yield Case("one", ours=lambda: events.append("one"), runs=1, warmups=0)
            yield Case("two", ours=lambda: events.append("two"), runs=1, warmups=0)
        finally:
            events.append("close")

    add("held", cases)
    results = list(harness.run_benchmark("held", log=lambda line: None))
    assert events == ["open", "one", "two", "close"]
    assert [result.case for result in results] == ["one", "two"]


@pytest.mark.parametrize(
    ("value", "units", "text"),
    [
        (None, "s", ""),
        (2.5, "s", "2.5 s"),
        (0.0123, "s", "12.3 ms"),
        (1.6e-6, "s", "1.6 µs"),
        (5e-9, "s", "5 ns"),
        (1600.0, "ns", "1.6e+03 ns"),
        (12.0, "rows", "12 rows"),
    ],
)
def test_figures(value, units, text):
    assert figure(value, units) == text


def test_the_table():
    met = judge("b", Case("fast", ours=print, goal=2, other_name="Kindling"), [1.0, 2.0], [2.0, 2.0])
    missed = judge("b", Case("few", ours=print, goal=10, better="at least", units="rows"), [3.0], [])
    text = shown([met, missed])
    assert "│ b: fast │  1.5 s │ 2 s (Kindling) │  0.75 │       ≤ 2 │         0.5 – 1 (2) │ ok     │" in text
    assert "│ b: few  │ 3 rows │                │       │ ≥ 10 rows │ 3 rows – 3 rows (1) │ missed │" in text


CASES = {
    "good": lambda: [Case("x", ours=lambda: 1.0, other=lambda: 2.0, goal=1.0)],
    "bad": lambda: [Case("x", ours=lambda: 2.0, other=lambda: 1.0, goal=1.0)],
    "broken": lambda: [Case("x", ours=lambda: 1 / 0)],
    "never": lambda: 1 / 0,
}


@pytest.mark.parametrize(
    ("arguments", "code", "ran"),
    [
        (["good"], 0, ["good"]),
        (["good", "--check"], 0, ["good"]),
        (["bad"], 0, ["bad"]),
        (["bad", "--check"], 1, ["bad"]),
        (["good", "broken"], 1, ["good", "broken"]),
        (["never", "good"], 1, ["never", "good"]),
        ([], 1, ["good", "bad", "broken", "never"]),
    ],
)
def test_the_command(add, tmp_path, capsys, arguments, code, ran):
    for name, cases in CASES.items():
        add(name, cases)
    out = tmp_path / "deep" / "out.json"
    assert command.main([*arguments, "--json", str(out), "--runs", "2"]) == code
    written = json.loads(out.read_text())
    assert [result["benchmark"] for result in written["results"]] == ran
    assert written["cpus"] >= 1
    assert all(len(result["ours_runs"]) in (0, 2) for result in written["results"])
    assert capsys.readouterr().out.count("Benchmarks") == 1


@pytest.mark.parametrize("arguments", [["lading"], ["good", "--runs", "0"]])
def test_the_command_refuses(add, capsys, arguments):
    add("good", CASES["good"])
    with pytest.raises(SystemExit) as raised:
        command.main(arguments)
    assert raised.value.code == 2
    told = capsys.readouterr().err
    assert "no benchmark lading; there are good" in told or "at least 1" in told


def test_the_benchmarks_there_are():
    assert "planning" in harness.names()
    assert not {"harness", "__main__"} & set(harness.names())
