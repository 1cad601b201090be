"""The code of docs/data_pipes.md runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dag_apps import app, entity, pipe

PAGE = Path(__file__).parents[2] / "docs" / "data_pipes.md"


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    manifest = app(
        [
            pipe("load", "src", "x"),
            pipe("clean", "x", "y"),
            pipe("report", "y", "z"),
            pipe("other", "src", "w"),
        ],
        [entity("x", layer="bronze")],
    )
    manifest.write(tmp_path / "manifest.json")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert names["plan"].generations == (("load",), ("other",), ("clean",), ("report",))
    heavy = names["OneHeavyAtATime"]()
    tagged = [pipe("a", "src", "x"), pipe("b", "src", "y")]
    for each in tagged:
        each.tags["heavy"] = "yes"  # type: ignore[index]
    graph = names["PipeGraphBuilder"](app(tagged)).build_graph()
    assert heavy.plan(graph).generations == (("a",), ("b",))
    assert "subgraph g" in capsys.readouterr().out
