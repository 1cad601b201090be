"""What importing the signals package brings into a process."""

from __future__ import annotations

import subprocess
import sys

BRIDGE = ("bridge", "bridge_table", "reading", "failure_report")


def test_the_bridge_loads_no_kindling_and_introspection_starts_no_spark() -> None:
    script = f"""
import importlib, sys
def loaded(*packages):
    return sorted(name for name in sys.modules if name.split(".")[0] in packages)
for name in {BRIDGE!r}:
    importlib.import_module("kindling_dagster.signals." + name)
assert loaded("kindling", "pyspark", "py4j") == [], loaded("kindling", "pyspark", "py4j")
from kindling_dagster.signals import catalog
before = loaded("kindling", "kindling_dagster")
catalog.get_all_signals()
catalog.list_emitters()
assert loaded("kindling", "kindling_dagster") == before, "the sources are read, not imported"
from pyspark import SparkContext
assert SparkContext._active_spark_context is None and SparkContext._gateway is None
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
