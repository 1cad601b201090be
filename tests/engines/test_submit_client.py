"""What ``KindlingSubmitClient`` hands to spark-submit; a program in its place tells what it was given, so no Spark starts."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, MaterializeResult, asset, materialize

from kindling_dagster import KindlingSubmitClient

SECRET = {"spark.hadoop.fs.s3a.secret.key": "s3cr3t\\5f1c"}
TELLS = """#!{python}
import json, os, pathlib, sys
settings = pathlib.Path(sys.argv[sys.argv.index("--properties-file") + 1])
told = {{
    "arguments": sys.argv[1:],
    "environment": dict(os.environ),
    "settings": settings.read_text().splitlines(),
    "mode": settings.stat().st_mode,
}}
pathlib.Path({told!r}).write_text(json.dumps(told))
sys.exit({code})
"""


@pytest.fixture
def submitted(tmp_path: Path) -> Any:
    """Runs a client; gives whether the step succeeded, and what the program was given."""

    def run(code: int = 0, **arguments: Any) -> tuple[bool, dict[str, Any]]:
        told, program = tmp_path / "told.json", tmp_path / "spark-submit"
        program.write_text(TELLS.format(python=sys.executable, told=str(told), code=code))
        program.chmod(0o700)
        client = KindlingSubmitClient(spark_submit=str(program), **arguments)

        @asset
        def step(context):  # type: ignore[no-untyped-def]
            client.run(context=context)
            return MaterializeResult()

        with DagsterInstance.ephemeral() as instance:
            result = materialize([step], instance=instance, raise_on_error=False)
        return result.success, json.loads(told.read_text())

    return run


def test_settings_go_by_a_private_file_alone(submitted: Any) -> None:
    success, told = submitted(conf=SECRET, py_files=["a.zip", "b.zip"])
    assert success
    assert "spark.hadoop.fs.s3a.secret.key=s3cr3t\\\\5f1c" in told["settings"]
    assert "spark.master=local[*]" in told["settings"]
    assert stat.S_IMODE(told["mode"]) == 0o600
    assert told["arguments"][2:4] == ["--py-files", "a.zip,b.zip"]
    assert told["arguments"][-1].endswith("remote/__main__.py")
    assert not [text for text in (*told["arguments"], *told["environment"].values()) if "s3cr3t" in text]


@pytest.mark.parametrize(
    ("arguments", "before", "python"),
    [
        ({}, None, sys.executable),
        ({}, "/usr/bin/python3", "/usr/bin/python3"),
        ({"master": "spark://head:7077"}, None, None),
        ({"conf": {"spark.pyspark.python": "./env/bin/python"}}, None, "./env/bin/python"),
        ({"env": {"PYSPARK_PYTHON": "/opt/python"}}, None, "/opt/python"),
    ],
)
def test_local_executors_run_the_driver_s_python(
    submitted: Any, monkeypatch: pytest.MonkeyPatch, arguments: Any, before: str | None, python: str | None
) -> None:
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)
    if before:
        monkeypatch.setenv("PYSPARK_PYTHON", before)
    _, told = submitted(**arguments)
    assert told["environment"].get("PYSPARK_PYTHON") == python
    assert told["environment"]["PYSPARK_DRIVER_PYTHON"] == sys.executable


def test_a_job_that_ends_badly_fails_the_step(submitted: Any) -> None:
    success, _ = submitted(code=3)
    assert not success
