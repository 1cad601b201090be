"""What a start of an app asks of Kindling for lineage: as good as nothing where rows carry none."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from lineage_tables import app_manifest

from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.applying import Lineage


def test_pipes_are_looked_up_when_they_write(tmp_path: Any) -> None:
    asked: list[str] = []

    def get_pipe_definition(pipe_id: str) -> Any:
        asked.append(pipe_id)
        return (
            None
            if pipe_id == "gold.total"
            else SimpleNamespace(execute=test_pipes_are_looked_up_when_they_write)
        )

    runtime: Any = SimpleNamespace(pipes=SimpleNamespace(get_pipe_definition=get_pipe_definition))
    spark: Any = SimpleNamespace(conf=SimpleNamespace(get=lambda name, default: default))
    lineage = Lineage(runtime, replace(app_manifest(tmp_path), settings={}), spark)
    lineage.install()
    assert asked == []
    assert {lineage.of("silver.clean").package for _ in range(2)} == {"test_lineage_lookups"}
    assert asked == ["silver.clean"]
    with pytest.raises(LineageError, match=r"gold\.total"):
        lineage.of("gold.total")
