"""Random histories of a Delta table: nothing missed, nothing seen that was not there, by any method."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from dimension_histories import run_history

HISTORIES = int(os.environ.get("KINDLING_DAGSTER_HISTORIES", "40"))
SEED = int(os.environ.get("KINDLING_DAGSTER_SEED", random.SystemRandom().randrange(1 << 24)))
PARTS = 4
STEPS = 8
"""Fewer than in the program beside this, which takes minutes for 500 histories."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
def test_each_method_agrees_with_the_model(part: int, tmp_path: Path) -> None:
    print(f"seed {SEED}: run again with KINDLING_DAGSTER_SEED={SEED}")
    wrong: list[str] = []
    for number in range(part, HISTORIES, PARTS):
        wrong += run_history(tmp_path, SEED + number, STEPS)[0]
    assert wrong == []
