"""Looks at many dimensions: the budget, where the next call goes on, and tables whose storage does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from kindling_dagster.streaming import looking
from kindling_dagster.streaming.dimensions.model import Dimension
from kindling_dagster.streaming.looking import look_at_all


def dimensions(*names: str, ask: Callable[[str], Any] = str) -> Mapping[str, Dimension]:
    return {name: Dimension(name, method="custom", custom=lambda name=name: ask(name)) for name in names}


NAMES = tuple("abcdefgh")


def test_all_are_looked_at_when_there_is_time() -> None:
    looked = look_at_all(dimensions(*NAMES), {})
    assert tuple(looked.looks) == NAMES
    assert looked.after == ""
    assert all(found.first for found in looked.looks.values())
    assert look_at_all({}, {}).looks == {}


def test_without_time_each_call_goes_on_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "_THREADS", 1)
    seen: list[str] = []
    after = ""
    for _ in NAMES:
        looked = look_at_all(dimensions(*NAMES), {}, after=after, budget=0.0)
        assert len(looked.looks) == 1  # one at least, whatever the budget
        seen += looked.looks
        after = looked.after
    assert seen == list(NAMES)


def test_one_that_is_in_trouble_hides_no_other() -> None:
    def ask(name: str) -> str:
        if name == "c":
            raise RuntimeError("no such thing")
        return name

    looked = look_at_all(dimensions(*NAMES, ask=ask), {})
    assert [name for name, found in looked.looks.items() if found.problem is not None] == ["c"]


def test_one_that_hangs_is_told_and_asked_again_only_once_it_has_ended() -> None:
    release, asked, ended = threading.Event(), [], threading.Event()

    def ask(name: str) -> str:
        asked.append(name)
        if name == "c" and not release.is_set():
            release.wait(30)
            ended.set()
        return name

    before = look_at_all(dimensions("c"), {}).looks["c"].fingerprint
    assert before is not None
    for _ in range(2):
        looked = look_at_all(dimensions(*NAMES, ask=ask), {"c": before}, budget=1.0, patience=0.0, scope="s")
        assert set(looked.looks) == set(NAMES)
        found = looked.looks["c"]
        assert found.problem is not None
        assert (found.problem.kind, found.changed, found.fingerprint) == ("unreachable", False, before)
        assert all(item.problem is None for name, item in looked.looks.items() if name != "c")
    assert asked.count("c") == 1
    # Another app's dimension of the same name is another one.
    assert look_at_all(dimensions("c"), {}, scope="other").looks["c"].problem is None
    release.set()
    assert ended.wait(30)
    deadline = threading.Event()
    for _ in range(100):
        if look_at_all(dimensions("c", ask=ask), {"c": before}, scope="s").looks["c"].problem is None:
            break
        deadline.wait(0.05)
    assert asked.count("c") == 2
