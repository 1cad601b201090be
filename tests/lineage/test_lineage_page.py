"""The code of docs/lineage.md runs; what only illustrates is at least Python."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "lineage.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(<!-- illustration -->\n)?```python\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_pages_code_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    for illustration, code in BLOCKS:
        if not illustration:
            exec(code, names)
    assert "`_silver_lineage`.`version` = '0.3.1'" in capsys.readouterr().out
    assert "defs" in names


@pytest.mark.parametrize("code", [code for illustration, code in BLOCKS if illustration])
def test_illustrations_name_what_there_is(code: str) -> None:
    from kindling_dagster import lineage

    compile(code, "docs/lineage.md", "exec")
    for name in re.findall(r"from kindling_dagster\.lineage import (\w+)", code):
        assert getattr(lineage, name)
