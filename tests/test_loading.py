"""Definitions, the CLI and the cache never start Java: a program that stands in its place would tell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from app_forms import ENTITY, PIPE, small_app

from benchmarks.loading import write_app

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PIPES = 1_000

NO_SPARK = """
from pyspark import SparkContext

assert SparkContext._active_spark_context is None
assert SparkContext._gateway is None
"""
"""Ends a program: PySpark may be loaded, and that is all."""
NO_PYSPARK = """
import sys

found = {"kindling", "pyspark", "numpy", "pandas", "deltalake", "sqlglot", "cattrs"} & set(sys.modules)
assert not found, found
"""
"""Stands in a program: what takes long to import, and only runs need, is not there."""


@dataclass(frozen=True)
class Sandbox:
    """Runs programs where ``java`` only leaves a mark, and manifests are cached apart."""

    directory: Path

    @property
    def java_was_called(self) -> bool:
        """Whether anybody has tried to start a JVM so far."""
        return (self.directory / "java-was-called").exists()

    def run(self, program: str, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a Python program to its end, in the repository."""
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=ROOT,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expect, done.stderr
        return done

    def _environment(self) -> Mapping[str, str]:
        home = self.directory / "java"
        return {
            **os.environ,
            "JAVA_HOME": str(home),
            "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "KINDLING_DAGSTER_CACHE": str(self.directory / "cache"),
        }


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    made = Sandbox(tmp_path)
    java = tmp_path / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\ntouch '{tmp_path / 'java-was-called'}'\nexit 1\n")
    java.chmod(0o755)
    (tmp_path / "java" / "release").write_text('JAVA_VERSION="17.0.1"\nMODULES="jdk.incubator.vector"\n')
    return made


def test_the_sandbox_notices_a_jvm(sandbox: Sandbox) -> None:
    sandbox.run("from pyspark.sql import SparkSession\nSparkSession.builder.getOrCreate()", expect=1)
    assert sandbox.java_was_called


def test_the_repositorys_definitions_start_none(sandbox: Sandbox) -> None:
    program = "from definitions import defs\nprint(len(list(defs.resolve_all_asset_specs())))\n"
    program += 'import sys\nassert "pyspark" not in sys.modules\n' + NO_SPARK
    done = sandbox.run(program)
    assert int(done.stdout) > 12
    assert "Recording" in done.stderr
    assert not sandbox.java_was_called


def test_an_app_of_a_thousand_pipes_starts_none(sandbox: Sandbox, tmp_path: Path) -> None:
    write_app(tmp_path / "app", PIPES)
    program = (
        "import sys\nfrom kindling_dagster import KindlingProject, build_kindling_definitions\n"
        "repository = build_kindling_definitions(KindlingProject(sys.argv[1])).get_repository_def()\n"
        "print(len(repository.asset_graph.materializable_asset_keys))\n" + NO_PYSPARK + NO_SPARK
    )
    for recorded in (True, False):
        done = sandbox.run(program, str(tmp_path / "app"))
        assert int(done.stdout) == PIPES
        assert ("Recording" in done.stderr) is recorded
    assert not sandbox.java_was_called


def test_the_command_line_starts_none(sandbox: Sandbox, tmp_path: Path) -> None:
    app = small_app(tmp_path, {"entities/e.py": ENTITY, "pipes/a.py": PIPE})
    store = f"sqlite:///{tmp_path / 'streams.db'}"
    commands = (
        *(["check", app], ["manifest", app], ["plan", app], ["signals", "list"]),
        *(["streams", name, app, "--store", store] for name in ("status", "history", "dead-letters")),
    )
    program = "from click.testing import CliRunner\nfrom kindling_dagster.cli import main\n"
    for command in commands:
        program += (
            f"done = CliRunner().invoke(main, {[str(part) for part in command]!r})\n"
            "assert done.exit_code == 0, done.output\n"
        )
    sandbox.run(program + NO_SPARK)
    assert not sandbox.java_was_called
