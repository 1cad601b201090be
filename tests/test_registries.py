"""The recording registries: what they take from Kindling is still there, and they are linear."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from kindling.data_entities import DataEntityManager
from kindling.data_pipes import DataPipesManager

from kindling_dagster.errors import DeclarationError
from kindling_dagster.registries import Declared, RecordingEntities, RecordingPipes, is_internal


class Loggers:
    def get_logger(self, name: str) -> Any:
        import logging

        return logging.getLogger(name)


@pytest.mark.parametrize(
    ("manager", "names"),
    [
        (DataEntityManager, ("_converge_scd2_companions", "_declared_ids", "derivations_for")),
        (DataPipesManager, ("_declared_ids", "derivations_for")),
    ],
)
def test_what_is_used_of_kindlings_managers_exists(manager: type, names: tuple[str, ...]) -> None:
    assert [name for name in names if not callable(getattr(manager, name, None))] == []


def test_companions_come_when_they_are_read_and_after_their_base() -> None:
    recording, kindlings = RecordingEntities(), DataEntityManager()
    for manager in (recording, kindlings):
        manager.register_entity("a", name="a", merge_columns=["id"], tags={"scd.type": "2"}, schema=None)
        manager.register_entity("b", name="b", merge_columns=["id"], tags={}, schema=None)
    assert recording.get_entity_ids() == ["a", "a.current", "b"]
    assert set(kindlings.get_entity_ids()) == {"a", "a.current", "b"}
    for entity_id in kindlings.get_entity_ids():
        assert recording.get_entity_definition(entity_id) == kindlings.get_entity_definition(entity_id)


def _lines_run(entities: Any, pipes: Any, count: int) -> int:
    """Python lines that registering so many entities and pipes runs: no clock, no noise."""
    lines = 0

    def trace(_frame: Any, event: str, _arg: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for number in range(count):
            entities.register_entity(
                f"e{number}", name="e", merge_columns=["id"], tags={"scd.type": "2"}, schema=None
            )
            pipes.register_pipe(
                f"p{number}",
                name="p",
                tags={},
                input_entity_ids=[],
                output_entity_id=f"e{number}",
                output_type="delta",
                execute=len,
            )
        assert len(list(entities.get_entity_ids())) == 2 * count
    finally:
        sys.settrace(before)
    return lines


def test_registering_many_is_linear_where_kindlings_own_managers_are_quadratic() -> None:
    ours = [_lines_run(RecordingEntities(), RecordingPipes(Loggers()), count) for count in (20, 200)]
    kindlings = [_lines_run(DataEntityManager(), DataPipesManager(Loggers()), count) for count in (20, 200)]
    assert ours[1] < 12 * ours[0]
    assert kindlings[1] > 30 * kindlings[0]  # the measure sees what it is for


def _declare(into: Declared, **params: Any) -> None:
    into.add("x", params)


def test_one_place_may_declare_again_and_another_may_not() -> None:
    declared = Declared("pipe", ", or extend it")
    for _ in range(2):
        declared.add("x", {"tags": {"a": "1"}})
    with pytest.raises(
        DeclarationError, match=r"'x' is declared twice: .*test_registries.py:\d+ and at .*, or extend"
    ):
        declared.add("x", {"tags": {"a": "1"}})


def test_a_helper_that_declares_counts_by_its_caller() -> None:
    declared = Declared("pipe")
    _declare(declared, tags={"a": "1"})
    _declare(declared, tags={"a": "1"})  # the same declaration, run again
    with pytest.raises(DeclarationError):
        _declare(declared, tags={"a": "2"})


@pytest.mark.parametrize(
    ("module", "internal"),
    [("kindling", True), ("kindling.data_pipes", True), ("kindling_ext_x", False), ("kindling_app", False)],
)
def test_whose_frames_are_skipped(module: str, internal: bool) -> None:
    assert is_internal(module) is internal
